"""Attempts, counted by all that a charge depends on, and summed up. Every figure is a sum, so parts make the whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from postern.months import Month
from postern.sms.charges import Kind, Tariff


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Attempts of one kind, of one campaign, in one month."""

    campaign_id: str
    month: Month
    kind: Kind
    messages: int  # of which these are the first attempts
    attempts: int
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """So many attempts, and what they cost."""

    attempts: int = 0
    segments: int = 0
    charged_attempts: int = 0
    charged_segments: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            attempts=self.attempts + other.attempts,
            segments=self.segments + other.segments,
            charged_attempts=self.charged_attempts + other.charged_attempts,
            charged_segments=self.charged_segments + other.charged_segments,
            cost=self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a report says of a month, a year or a campaign."""

    messages: int = 0  # that were handed over for the first time
    pending: int = 0  # attempts that are not charged yet but may be
    simulated: int = 0  # attempts that the simulator took
    local: Tally = field(default_factory=Tally)
    foreign: Tally = field(default_factory=Tally)
    by_outcome: Mapping[str, Tally] = field(default_factory=dict)  # the error code of a failure, otherwise the status

    @property
    def total(self) -> Tally:
        """All of them."""
        return self.local + self.foreign


def figures_of(usages: Iterable[Usage], tariff: Tariff) -> Figures:
    """Sum up what was used, at that tariff."""
    messages = pending = simulated = 0
    sides = {True: Tally(), False: Tally()}  # by whether they are local
    by_outcome: dict[str, Tally] = {}
    for usage in usages:
        tally = _tally(usage, tariff)
        messages += usage.messages
        pending += usage.attempts if tariff.is_pending(usage.kind) else 0
        simulated += usage.attempts if usage.kind.is_simulated else 0
        sides[usage.kind.is_local] += tally
        by_outcome[usage.kind.outcome] = by_outcome.get(usage.kind.outcome, Tally()) + tally
    return Figures(
        messages=messages,
        pending=pending,
        simulated=simulated,
        local=sides[True],
        foreign=sides[False],
        by_outcome=dict(sorted(by_outcome.items())),
    )


def _tally(usage: Usage, tariff: Tariff) -> Tally:
    is_charged = tariff.is_charged(usage.kind)
    return Tally(
        attempts=usage.attempts,
        segments=usage.segments,
        charged_attempts=usage.attempts if is_charged else 0,
        charged_segments=usage.segments if is_charged else 0,
        cost=tariff.cost(usage.kind, usage.segments),
    )
