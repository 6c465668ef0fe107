"""Sending a chunk of a batch: claim what the rates allow, hand it over, record what came of it, until nothing is left.

At most once per attempt, whatever dies when: the claim is committed before the provider is called, and what a dead
sender left `sending` is asked about (`dispatch.doubts`) and never sent again. What was certainly not handed over goes
back and waits. Several slices are on their way at once, so that a provider that takes its time slows nothing down.
The chunk that follows gets its job when this one is nearly claimed; one that died before is run again, and leaves it.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping
from typing import Any

from dispatch.accounts import Sender
from dispatch.context import Dispatch, campaign_of
from dispatch.handovers import handovers
from dispatch.under_way import UnderWay
from postern.logs import get_logger
from postern.model import Campaign
from storage.engine import Engine, again_and_again, pause, persistently, this_job
from storage.jobs import SEND_CHUNK, SEND_OTP, SEND_SINGLE
from storage.ledger.accounts import SendingAccount
from storage.ledger.batches import enqueue_chunk_after, get_batch
from storage.ledger.cancelling import end_rows
from storage.ledger.claiming import Claim, claim, give_back, new_token
from storage.ledger.doubts import doubt_what_is_open

_AHEAD = 0.5  # seconds before a chunk is claimed that the next one gets its job: it takes up to 0.2 s to begin
_LONGEST_WAIT = 5.0  # seconds between two looks at an account that rests; it may be mended before its time
# Seconds that a claim takes only where much stands still, this process perhaps, so that another worker may have taken
# over; then it gets a moment to notice (`storage.takeover`), and to end, before it hands anything over.
_FROZEN, _TO_NOTICE = 2.0, 1.0
_TO_GIVE_BACK = 5.0  # seconds for a claim that a worker's stop cuts short
_LOOK = 0.5  # seconds; after so long a wait an account's credentials may be others
# Seconds that a single send may be ahead of the rate of its campaign; the batches of that campaign wait for them.
_OTP_BORROWS, _SINGLE_BORROWS = 10.0, 2.0

log = get_logger(__name__)


def register(engine: Engine, dispatch: Dispatch) -> None:
    """Let this worker send."""

    async def send_chunk(batch_id: str, first_row: int, last_row: int) -> None:
        campaign = await persistently(campaign_of, dispatch, batch_id)
        await _Chunk(dispatch, campaign, batch_id, (first_row, last_row), is_followed=True).send()

    async def send_otp(batch_id: str) -> None:
        await _send_single(dispatch, batch_id, _OTP_BORROWS)

    async def send_single(batch_id: str) -> None:
        await _send_single(dispatch, batch_id, _SINGLE_BORROWS)

    engine.register(SEND_CHUNK, send_chunk)
    engine.register(SEND_OTP, send_otp)
    engine.register(SEND_SINGLE, send_single)


async def send_rows(dispatch: Dispatch, campaign: Campaign, batch_id: str, rows: tuple[int, int]) -> None:
    """Send what is left to be sent of a batch's rows, and leave to be settled what a dead sender of them left open.

    Where the campaign is paused it waits, mid-chunk, too; where nothing more is to be sent, what waits ends.

    Raises:
        asyncio.CancelledError: the worker stops; the job stays pending, to be run again.
    """
    await _Chunk(dispatch, campaign, batch_id, rows).send()


async def _send_single(dispatch: Dispatch, batch_id: str, borrow: float) -> None:
    campaign = await persistently(campaign_of, dispatch, batch_id)
    batch = await persistently(get_batch, dispatch.database, batch_id)
    await _Chunk(dispatch, campaign, batch_id, (batch.first_row, batch.last_row), borrow=borrow).send()


class _Chunk:
    """The steps of sending one chunk."""

    def __init__(
        self,
        dispatch: Dispatch,
        campaign: Campaign,
        batch_id: str,
        rows: tuple[int, int],
        *,
        borrow: float = 0.0,
        is_followed: bool = False,
    ) -> None:
        self._dispatch = dispatch
        self._campaign = campaign
        self._batch_id = batch_id
        self._rows = rows
        self._next = rows[0]  # of these, what is before it was claimed
        self._borrow = borrow
        self._is_followed = is_followed

    async def send(self) -> None:
        """See `send_rows`."""
        database, jobs = self._dispatch.database, self._dispatch.jobs
        await persistently(doubt_what_is_open, database, jobs, self._batch_id, self._rows)
        if self._campaign.deleted_at is None:  # otherwise nothing is claimed any more
            await self._send_all()
        # What went back to wait while its batch was cancelled would wait for ever.
        await persistently(lambda: end_rows(database, self._batch_id, self._rows, now=self._dispatch.now()))

    async def _send_all(self) -> None:
        sender = await persistently(self._dispatch.senders, self._campaign)
        handover = handovers(self._campaign, self._dispatch.settings)
        async with UnderWay(
            self._dispatch.recorder,
            self._batch_id,
            handover,
            self._rate,
            in_hand=self._dispatch.in_hand,
            job_id=this_job(),
        ) as under_way:
            while True:
                await under_way.room()
                claimed = await self._claim(sender, under_way)
                if claimed.messages:
                    under_way.hand_over(sender, claimed)
                    self._next = claimed.last_row + 1
                elif claimed.is_done and await self._is_over(under_way):
                    break
                await self._get_on(claimed, under_way)
                if claimed.is_probe or claimed.wait >= _LOOK:
                    sender = await persistently(self._dispatch.senders, self._campaign)
        await self._leave_the_next()

    async def _is_over(self, under_way: UnderWay) -> bool:
        """Whether nothing is left; what is on its way may come back and wait again."""
        if self._next == self._rows[0] and not under_way.is_any:
            return True
        await self._leave_the_next()
        await under_way.ended()
        self._next = self._rows[0]
        return False

    async def _get_on(self, claimed: Claim, under_way: UnderWay) -> None:
        """What goes on beside the sending, and the wait for the next slice."""
        if self._next > self._rows[1] - _AHEAD * self._rate:
            await self._leave_the_next()
        if claimed.is_probe:
            await under_way.ended()
        if not claimed.is_done:
            await pause(min(claimed.wait, _LONGEST_WAIT))

    @property
    def _rate(self) -> float:
        return self._campaign.rate

    async def _claim(self, sender: Sender, under_way: UnderWay) -> Claim:
        """Claim a slice; where the rate of a shared account holds it up, in turn with the others in this worker."""
        account = sender.account
        in_turn = self._dispatch.turns[account.id] if account.rate and not self._borrow else contextlib.nullcontext()
        async with in_turn:
            while True:
                await pause(0)
                claimed = await self._claim_for(account, under_way.slice)
                if not claimed.awaits_account or self._borrow:
                    return claimed
                await pause(claimed.wait)

    async def _claim_for(self, account: SendingAccount, most: int) -> Claim:
        token, tries, began = new_token(self._dispatch.worker), itertools.count(), time.monotonic()
        what: dict[str, Any] = {
            "batch_id": self._batch_id,
            "rows": (self._next, self._rows[1]),
            "rate": self._rate,
            "account": account,
            "token": token,
        }
        with self._dispatch.in_hand.claiming(token, most):
            try:
                claimed = await again_and_again(
                    lambda: self._dispatch.ledger.call(
                        claim,
                        **what,
                        most=most,
                        now=self._dispatch.now(),
                        borrow=self._borrow,
                        is_again=next(tries) > 0,
                    )
                )
                if self._dispatch.worker and claimed.messages and time.monotonic() - began > _FROZEN:
                    await asyncio.sleep(_TO_NOTICE)
            except (Exception, asyncio.CancelledError) as error:
                # It may be committed; but nothing of it was handed over, as that begins with what this returns.
                await self._give_back(what, None if isinstance(error, Exception) else _TO_GIVE_BACK)
                raise
        return claimed

    async def _give_back(self, what: Mapping[str, Any], patience: float | None) -> None:
        """Undo a claim. What cannot be given back is asked about when its rows are sent again.

        What is not waited for may still happen, even after those rows were sent; then the reconciler has them sent.
        """
        database, now = self._dispatch.database, self._dispatch.now
        try:
            async with asyncio.timeout(patience):
                await persistently(lambda: give_back(database, **what, now=now()))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - why it is undone is told in its place
            log.warning("claim.not_given_back", batch_id=self._batch_id, token=what["token"], error=repr(error))

    async def _leave_the_next(self) -> None:
        if self._is_followed:
            database, jobs, last = self._dispatch.database, self._dispatch.jobs, self._rows[1]
            await persistently(enqueue_chunk_after, database, jobs, self._batch_id, last, self._rate)
            self._is_followed = False
