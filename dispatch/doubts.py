"""Attempts in doubt: never sent again, but asked about, by a job of their own, while the sending goes on.

A receipt is the surest answer, and often on its way, so it gets a few seconds. Then the provider is asked, once more
a while later, and what it does not know by then, or could not be asked about in good time, fails as
`server_unknown_error`, in words that say so. A final receipt that comes after all overrides that.
"""

import asyncio
import itertools
from collections.abc import Sequence

from dispatch.circuit import heed
from dispatch.context import Dispatch, campaign_of, is_in_hand
from dispatch.handovers import handovers
from dispatch.provider import Busy, Found, Trouble, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from postern.model import Campaign
from storage.engine import Engine, pause, persistently
from storage.jobs import SETTLE_DOUBTS
from storage.ledger.doubts import OpenAttempt, is_open, open_attempts, settle

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to ask a provider that cannot answer now
_AT_ONCE = 5  # look-ups of a job
_RECOVERIES = 100  # these jobs are there because workers die, and only ask and wait while others do
_IN_HAND, _LONGEST_IN_HAND = 5.0, 300.0  # seconds between two looks at what a live sender may be at

log = get_logger(__name__)


def register(engine: Engine, dispatch: Dispatch) -> None:
    """Let this worker settle doubts."""

    async def settle_doubts(batch_id: str, attempt_ids: list[str], is_told: bool) -> None:  # noqa: FBT001 - a job's
        campaign = await persistently(campaign_of, dispatch, batch_id)
        await settle_all(dispatch, campaign, batch_id, attempt_ids, is_told=is_told)

    engine.register(SETTLE_DOUBTS, settle_doubts, recoveries=_RECOVERIES)


async def settle_all(
    dispatch: Dispatch, campaign: Campaign, batch_id: str, attempt_ids: Sequence[str], *, is_told: bool = False
) -> None:
    """Settle these attempts of a batch; returns when nothing of them is open.

    Args:
        dispatch: what is needed.
        campaign: the batch's.
        batch_id: the batch.
        attempt_ids: its attempts.
        is_told: see `leave_doubts`. Where it is not told, nothing is concluded while a live sender may be at them.

    Raises:
        asyncio.CancelledError: the worker stops; the job stays pending, to be run again.
    """
    doubts = _Doubts(dispatch, campaign, is_told=is_told)
    found = await persistently(open_attempts, dispatch.database, batch_id, attempt_ids)
    by_provider = itertools.groupby(sorted(found, key=lambda one: one.provider), key=lambda one: one.provider)
    ended = await asyncio.gather(
        *(doubts.settle(name, list(group)) for name, group in by_provider), return_exceptions=True
    )
    _raise_first(ended)


class _Doubts:
    """The attempts of one job."""

    def __init__(self, dispatch: Dispatch, campaign: Campaign, *, is_told: bool) -> None:
        self._dispatch = dispatch
        self._is_told = is_told
        self._campaign = campaign
        self._handover = handovers(campaign, dispatch.settings)
        self._told: set[str] = set()  # circuits; once a job, as sending may go on where only look-ups are refused
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def settle(self, provider: str, attempts: list[OpenAttempt]) -> None:
        """Look as often as the provider's answers may change."""
        began = asyncio.get_running_loop().time()
        sender = await persistently(self._dispatch.senders, self._campaign)
        looks = sender.provider_for(provider).looks
        for before, look in itertools.pairwise((0.0, *looks)):
            await pause(look - before)
            attempts = await self._look(attempts, began, is_last=look == looks[-1])
        seconds = _IN_HAND
        while attempts:  # a live sender is at them
            await pause(seconds)
            attempts = await self._look(attempts, began, is_last=True)
            seconds = min(2 * seconds, _LONGEST_IN_HAND)

    async def _look(self, attempts: Sequence[OpenAttempt], began: float, *, is_last: bool) -> list[OpenAttempt]:
        """Ask about attempts; returns those that are still open. One that is a bug's takes none of the others along."""
        settled = await asyncio.gather(
            *(self._is_settled(one, began, is_last=is_last) for one in attempts), return_exceptions=True
        )
        _raise_first(settled)
        return [attempt for attempt, is_settled in zip(attempts, settled, strict=True) if not is_settled]

    async def _is_settled(self, attempt: OpenAttempt, began: float, *, is_last: bool) -> bool:
        async with self._turns:
            # First, or it might be handed over after the provider was asked, and no more in hand thereafter.
            may_leave = not self._is_told and await is_in_hand(self._dispatch, attempt)
            found = await self._ask(attempt, began)
        if found is None:
            return True
        candidates = found.candidates if isinstance(found, Found) else ()
        results = [result_of(attempt.claimed, one) for one in candidates]
        is_over = (is_last or isinstance(found, Unknown)) and not may_leave
        result = await persistently(
            lambda: settle(
                self._dispatch.database,
                attempt,
                results,
                is_certain=isinstance(found, Found) and found.is_certain,
                otherwise=result_of(attempt.claimed, Unknown()) if is_over else None,
                now=self._dispatch.now(),
            )
        )
        if result is None:
            return not await persistently(is_open, self._dispatch.database, attempt.claimed.attempt_id)
        log.warning("attempt.settled", attempt_id=result.attempt_id, status=result.status.value)
        return True

    async def _ask(self, attempt: OpenAttempt, began: float) -> Found | Unknown | None:
        """What the provider knows of an attempt; Unknown where it cannot say, None where a receipt told meanwhile."""
        attempt_id, seconds = attempt.claimed.attempt_id, _FIRST_PAUSE
        while await persistently(is_open, self._dispatch.database, attempt_id):
            sender = await persistently(self._dispatch.senders, self._campaign)
            found = await sender.provider_for(attempt.provider).find(
                self._handover(attempt.claimed), attempt.created_at
            )
            if not isinstance(found, Busy):
                return found
            log.warning("attempt.look_up_waits", attempt_id=attempt_id, trouble=found.trouble.value)
            if found.trouble is Trouble.ACCOUNT and sender.account.circuit_id not in self._told:
                self._told.add(sender.account.circuit_id)
                await persistently(self._tell_refused, sender.account.circuit_id, found)
            if asyncio.get_running_loop().time() - began >= self._dispatch.patience[found.trouble]:
                return Unknown()
            await pause(min(found.seconds or seconds, _LONGEST_PAUSE))
            seconds = min(2 * seconds, _LONGEST_PAUSE)
        return None

    def _tell_refused(self, circuit_id: str, busy: Busy) -> None:
        """A look-up was refused as a hand-over would be: the account rests, and an operator hears of it."""
        rests, now = self._dispatch.rests, self._dispatch.now
        heed(self._dispatch.database, circuit_id, [busy], is_probe=False, rests=rests, now=now)


def _raise_first(ended: Sequence[object]) -> None:
    """Raise what one of several came to, after all of them ended.

    Raises:
        BaseException: the first there is.
    """
    for one in ended:
        if isinstance(one, BaseException):
            raise one
