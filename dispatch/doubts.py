"""Attempts of which nobody knows whether they were handed over: never sent again, but asked about.

A receipt is the surest answer, and often on its way, so it gets a few seconds. Then the provider is asked, once more
a while later, and what it does not know by then, or could not be asked about in good time, fails as
`server_unknown_error`, in words that say so. A final receipt that comes after all overrides that. All this goes on
beside the sending of the rest.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from dispatch.accounts import Sender
from dispatch.provider import Accepted, Busy, Found, Handover, Refused, Trouble, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from storage.database import Database
from storage.engine import pause, persistently
from storage.ledger.sending import OpenAttempt, Result
from storage.ledger.settling import is_open, owned

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to ask a provider that cannot answer now
_AT_ONCE = 5  # look-ups of a chunk

Patience = Mapping[Trouble, float]

PATIENCE: Patience = {  # seconds that a provider is asked about what is in doubt before that is given up
    Trouble.THROTTLED: 3600,
    Trouble.UNREACHABLE: 3600,
    Trouble.UNANSWERED: 3600,
    Trouble.ACCOUNT: 600,
}

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
        refused: Callable[[Sender, Busy], None],
        patience: Patience = PATIENCE,
    ) -> None:
        self._database = database
        self._sender = sender
        self._handover = handover
        self._record = record
        self._refused = refused
        self._patience = patience
        self._told: set[str] = set()  # circuits; once a chunk, as sending may go on where only look-ups are refused
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
        began = asyncio.get_running_loop().time()
        looks = (await self._sender()).provider_for(provider).looks
        for before, look in itertools.pairwise((0.0, *looks)):
            await pause(look - before)
            is_last = look == looks[-1]
            settled = await asyncio.gather(*(self._is_settled(one, began, is_last=is_last) for one in attempts))
            attempts = [attempt for attempt, is_settled in zip(attempts, settled, strict=True) if not is_settled]

    async def _is_settled(self, attempt: OpenAttempt, began: float, *, is_last: bool) -> bool:
        async with self._look_ups:
            found = await self._ask(attempt, began)
        if found is None:
            return True
        async with self._picking:
            candidates = found.candidates if isinstance(found, Found) else ()
            outcome = await persistently(self._pick, attempt.claimed.attempt_id, candidates)
            if isinstance(outcome, Unknown) and not (is_last or isinstance(found, Unknown)):
                return False
            result = result_of(attempt.claimed, outcome)
            await persistently(self._record, attempt, result)
        log.warning("attempt.settled", attempt_id=result.attempt_id, status=result.status.value)
        return True

    async def _ask(self, attempt: OpenAttempt, began: float) -> Found | Unknown | None:
        """What the provider knows of an attempt; Unknown where it cannot say, None where a receipt told meanwhile."""
        attempt_id, seconds = attempt.claimed.attempt_id, _FIRST_PAUSE
        while await persistently(is_open, self._database, attempt_id):
            sender = await self._sender()
            provider = sender.provider_for(attempt.provider)
            found = await provider.find(self._handover(attempt), attempt.created_at)
            if not isinstance(found, Busy):
                return found
            log.warning("attempt.look_up_waits", attempt_id=attempt_id, trouble=found.trouble.value)
            if found.trouble is Trouble.ACCOUNT and sender.account.circuit_id not in self._told:
                self._told.add(sender.account.circuit_id)
                await persistently(self._refused, sender, found)
            if asyncio.get_running_loop().time() - began >= self._patience[found.trouble]:
                return Unknown()
            await pause(min(found.seconds or seconds, _LONGEST_PAUSE))
            seconds = min(2 * seconds, _LONGEST_PAUSE)
        return None

    def _pick(self, attempt_id: str, candidates: Sequence[Accepted | Refused]) -> Accepted | Refused | Unknown:
        """The first that is nobody else's: the same text may have gone to the same number in another attempt."""
        others = owned(self._database, [one.external_id for one in candidates if one.external_id], but_by=attempt_id)
        return next((one for one in candidates if one.external_id not in others), Unknown())
