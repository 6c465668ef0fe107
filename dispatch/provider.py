"""What a provider of SMS is to us: something that takes a message, once, and can be asked about it later.

A provider never raises for remote trouble; each of its answers is one of the outcomes below.
"""

from dataclasses import dataclass
from typing import Protocol

from postern.model import ErrorCode
from storage.ledger.sending import OpenAttempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One message, rendered, for one attempt."""

    attempt_id: str
    message_id: str
    recipient: str  # digits with country code
    text: str  # the full message


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The provider has it."""

    external_id: str
    stays_pending: bool = False  # as in a load test: it goes no further, and nothing more is heard of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The provider will not take it; it was not sent."""

    code: ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody can tell whether the provider has it."""


Outcome = Accepted | Refused | Unknown


class Provider(Protocol):
    """A provider of SMS."""

    name: str

    async def send(self, handover: Handover) -> Outcome:
        """Hand a message over. Called at most once for an attempt."""
        ...

    async def look_up(self, attempt: OpenAttempt) -> Outcome:
        """Ask what became of an attempt whose sender died. `Unknown` where the provider cannot tell."""
        ...
