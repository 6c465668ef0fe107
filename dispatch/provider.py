"""What a provider of SMS is to us: something that takes a message, once, and can be asked about it later.

A provider never raises for remote trouble; each of its answers is one of the outcomes below. What they promise
decides what may be done next: only `Busy` says that the provider certainly does not have the message, so only that
one may be handed over again without being asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from postern.model import ErrorCode, MessageStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One message, rendered, for one attempt."""

    attempt_id: str
    message_id: str
    recipient: str  # digits with country code
    text: str = field(repr=False)  # the full message


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The provider has it."""

    external_id: str
    status: MessageStatus = MessageStatus.SENT  # further on where it is looked up; `sending` in a load test


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The provider will not take it, or has given it up; trying again is for a person to decide."""

    code: ErrorCode
    note: str | None = None  # what the provider calls it
    external_id: str = ""


class Trouble(StrEnum):
    """Why a provider takes nothing now."""

    THROTTLED = "throttled"  # it asks for a pause
    UNREACHABLE = "unreachable"  # no connection came about
    ACCOUNT = "account"  # it knows us and refuses us: credentials, a suspended account, a wrong setting
    UNANSWERED = "unanswered"  # nothing that it was handed lately was answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """The message was certainly not handed over; it waits as if nobody had tried."""

    trouble: Trouble
    seconds: float | None = None  # how long to wait, where the provider says so
    detail: str = ""  # for the log; no content, no numbers, no keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody can tell whether the provider has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a provider has that may be the attempt in question, the oldest first; nothing where it knows of none."""

    candidates: Sequence[Accepted | Refused] = ()
    is_certain: bool = False  # it knows attempts by our ids


Outcome = Accepted | Refused | Busy | Unknown


class Provider(Protocol):
    """A provider of SMS, with the account that we have there."""

    @property
    def name(self) -> str:
        """What attempts are marked with."""
        ...

    @property
    def looks(self) -> Sequence[float]:
        """How many seconds after an attempt is found open the provider is asked about it; receipts may be faster."""
        ...

    async def send(self, handover: Handover) -> Outcome:
        """Hand a message over. Called at most once for an attempt."""
        ...

    async def find(self, handover: Handover, since: datetime, external_id: str = "") -> Found | Busy:
        """Ask for an attempt whose hand-over nobody recorded, or whose final report never came.

        Args:
            handover: what was, or was not, handed over.
            since: when the attempt was claimed; it was not handed over before.
            external_id: what the provider calls it, where that is known: then only that one is found.
        """
        ...
