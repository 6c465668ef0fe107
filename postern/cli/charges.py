"""What a report of charges says, as JSON and as CSV; amounts are exact decimals in text."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from postern.display import clean
from postern.errors import Refusal
from postern.model import Campaign
from postern.months import Month
from postern.sms.charges import CURRENCY, Tariff
from postern.sms.usage import Figures, Tally, Usage, figures_of
from postern.times import iso

_Key = TypeVar("_Key")
_FORMULA = ("=", "+", "-", "@")
_COLUMNS = (
    *("month", "campaignId", "campaignName", "agency", "channel", "messages"),
    *("localAttempts", "localSegments", "localChargedSegments", "localCost"),
    *("foreignAttempts", "foreignSegments", "foreignChargedSegments", "foreignCost"),
    *("pendingAttempts", "simulatedAttempts", "cost", "currency"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """What was used in some months, with all that it takes to say what it costs."""

    months: Sequence[Month]
    usages: Sequence[Usage]
    campaigns: Sequence[Campaign]
    tariff: Tariff
    zone: ZoneInfo
    now: datetime

    def document(self) -> dict[str, Any]:
        """Summary and breakdown by campaign of all these months."""
        by_campaign = _grouped(self.usages, lambda usage: usage.campaign_id)
        return {
            "timezone": self.zone.key,
            "environment": self.tariff.environment.value,
            "currency": CURRENCY,
            "prices": {"local": str(self.tariff.local), "foreign": str(self.tariff.foreign)},
            **self._of(self.usages, self.months[-1]),
            "campaigns": [
                self._campaign_json(campaign) | self._figures_json(figures_of(by_campaign[campaign.id], self.tariff))
                for campaign in sorted(self.campaigns, key=lambda one: (one.agency, one.name, one.id))
                if campaign.id in by_campaign
            ],
        }

    def month_documents(self) -> list[dict[str, Any]]:
        """The figures of each month."""
        by_month = _grouped(self.usages, lambda usage: usage.month)
        return [{"month": str(month)} | self._of(by_month.get(month, []), month) for month in self.months]

    def rows(self) -> Iterator[Sequence[object]]:
        """A row for each month and campaign of which anything was handed over."""
        campaigns = {campaign.id: campaign for campaign in self.campaigns}
        used = _grouped(self.usages, lambda usage: (usage.month, usage.campaign_id))
        for (month, campaign_id), usages in sorted(used.items()):
            campaign, figures = campaigns[campaign_id], figures_of(usages, self.tariff)
            yield (
                *(month, campaign.id, _guarded(campaign.name), _guarded(campaign.agency), campaign.channel.value),
                figures.messages,
                *self._cells(figures.local),
                *self._cells(figures.foreign),
                *(figures.pending, figures.simulated, self.tariff.amount(figures.total.cost), CURRENCY),
            )

    def _of(self, usages: Sequence[Usage], last: Month) -> dict[str, Any]:
        """Figures, and whether they will stay as they are."""
        figures = figures_of(usages, self.tariff)
        is_over = last.next().start(self.zone) <= self.now
        return {"isComplete": is_over and not figures.pending, "summary": self._figures_json(figures)}

    def _campaign_json(self, campaign: Campaign) -> dict[str, Any]:
        return {
            "id": campaign.id,
            "name": campaign.name,
            "agency": campaign.agency,
            "channel": campaign.channel.value,
            "createdAt": iso(campaign.created_at, self.zone),
            "deletedAt": iso(campaign.deleted_at, self.zone),
        }

    def _figures_json(self, figures: Figures) -> dict[str, Any]:
        return {
            "messages": figures.messages,
            **self._tally_json(figures.total),
            "pendingAttempts": figures.pending,
            "simulatedAttempts": figures.simulated,
            "local": self._tally_json(figures.local),
            "foreign": self._tally_json(figures.foreign),
            "byStatus": {outcome: self._tally_json(tally) for outcome, tally in figures.by_outcome.items()},
        }

    def _tally_json(self, tally: Tally) -> dict[str, Any]:
        return {
            "attempts": tally.attempts,
            "segments": tally.segments,
            "chargedAttempts": tally.charged_attempts,
            "chargedSegments": tally.charged_segments,
            "unchargedAttempts": tally.attempts - tally.charged_attempts,
            "unchargedSegments": tally.segments - tally.charged_segments,
            "cost": self.tariff.amount(tally.cost),
        }

    def _cells(self, tally: Tally) -> tuple[object, ...]:
        return tally.attempts, tally.segments, tally.charged_segments, self.tariff.amount(tally.cost)


def write_csv(path: Path, charges: Charges) -> None:
    """Write the rows of a report as a CSV that Excel opens with the right characters.

    Raises:
        Refusal: the file cannot be written.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_COLUMNS, *charges.rows()])
    try:
        path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise Refusal("csv_unwritable", f"{path} cannot be written: {error.strerror}.") from None


def _grouped(usages: Sequence[Usage], key: Callable[[Usage], _Key]) -> dict[_Key, list[Usage]]:
    groups: dict[_Key, list[Usage]] = {}
    for usage in usages:
        groups.setdefault(key(usage), []).append(usage)
    return groups


def _guarded(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    shown: str = clean(name)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
