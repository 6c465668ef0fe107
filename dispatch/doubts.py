"""Attempts of which nobody knows whether they were handed over: never sent again, but asked about.

A receipt is the surest answer, and often on its way, so it gets a few seconds. Then the provider is asked, once more
a while later, and what it does not know by then fails as `server_unknown_error`, in words that say so. A final
receipt that comes after all overrides that. All this goes on beside the sending of the rest.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from dispatch.accounts import Sender
from dispatch.provider import Accepted, Busy, Found, Handover, Refused, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from storage.database import Database
from storage.engine import pause, persistently
from storage.ledger.sending import OpenAttempt, Result
from storage.ledger.settling import is_open, owned

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to ask a provider that cannot answer now
_AT_ONCE = 5  # look-ups of a chunk

log = get_logger(__name__)


class Doubts:
    """The attempts in doubt of one chunk. Leaving its block abandons what is not settled; the next worker finds it."""

    def __init__(
        self,
        database: Database,
        *,
        sender: Callable[[], Awaitable[Sender]],
        handover: Callable[[OpenAttempt], Handover],
        record: Callable[[OpenAttempt, Result], None],
    ) -> None:
        self._database = database
        self._sender = sender
        self._handover = handover
        self._record = record
        self._tasks: list[asyncio.Task[None]] = []
        self._look_ups = asyncio.Semaphore(_AT_ONCE)
        self._picking = asyncio.Lock()  # what one has picked and recorded, the next one leaves alone

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, attempts: Sequence[OpenAttempt]) -> None:
        """Begin to settle these."""
        by_provider = itertools.groupby(sorted(attempts, key=lambda one: one.provider), key=lambda one: one.provider)
        self._tasks += [asyncio.create_task(self._settle(name, list(group))) for name, group in by_provider]

    async def settled(self) -> None:
        """Wait until none is left.

        Raises:
            asyncio.CancelledError: the worker stops.
        """
        await asyncio.gather(*self._tasks)

    async def _settle(self, provider: str, attempts: list[OpenAttempt]) -> None:
        looks = (await self._sender()).provider_for(provider).looks
        for before, look in itertools.pairwise((0.0, *looks)):
            await pause(look - before)
            is_last = look == looks[-1]
            settled = await asyncio.gather(*(self._is_settled(attempt, is_last=is_last) for attempt in attempts))
            attempts = [attempt for attempt, is_settled in zip(attempts, settled, strict=True) if not is_settled]

    async def _is_settled(self, attempt: OpenAttempt, *, is_last: bool) -> bool:
        async with self._look_ups:
            found = await self._ask(attempt)
        if found is None:
            return True
        async with self._picking:
            outcome = await persistently(self._pick, attempt.claimed.attempt_id, found.candidates)
            if isinstance(outcome, Unknown) and not is_last:
                return False
            result = result_of(attempt.claimed, outcome)
            await persistently(self._record, attempt, result)
        log.warning("attempt.settled", attempt_id=result.attempt_id, status=result.status.value)
        return True

    async def _ask(self, attempt: OpenAttempt) -> Found | None:
        """What the provider knows of an attempt; None where a receipt told meanwhile."""
        attempt_id, seconds = attempt.claimed.attempt_id, _FIRST_PAUSE
        while await persistently(is_open, self._database, attempt_id):
            provider = (await self._sender()).provider_for(attempt.provider)
            found = await provider.find(self._handover(attempt), attempt.created_at)
            if not isinstance(found, Busy):
                return found
            log.warning("attempt.look_up_waits", attempt_id=attempt_id, trouble=found.trouble.value)
            await pause(min(found.seconds or seconds, _LONGEST_PAUSE))
            seconds = min(2 * seconds, _LONGEST_PAUSE)
        return None

    def _pick(self, attempt_id: str, candidates: Sequence[Accepted | Refused]) -> Accepted | Refused | Unknown:
        """The first that is nobody else's: the same text may have gone to the same number in another attempt."""
        others = owned(self._database, [one.external_id for one in candidates if one.external_id], but_by=attempt_id)
        return next((one for one in candidates if one.external_id not in others), Unknown())
