"""Sending a chunk of a batch: claim what the rates allow, hand it over, record what came of it, until nothing is left.

At most once per attempt, whatever dies when: the claim is committed before the provider is called, and what a dead
sender left `sending` is asked about and never sent again. What was certainly not handed over goes back and waits.
The chunk that follows gets its job first, so the chain does not break with this worker.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dispatch.accounts import Sender, Senders
from dispatch.circuit import RESTS, Rests, heed
from dispatch.doubts import PATIENCE, Doubts, Patience
from dispatch.handovers import handovers
from dispatch.provider import Busy, Outcome, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from postern.model import Campaign
from postern.settings import WorkerSettings
from storage.database import Database
from storage.engine import Engine, pause, persistently
from storage.jobs import SEND_CHUNK, JobBoard
from storage.ledger.batches import enqueue_chunk_after, get_batch
from storage.ledger.campaigns import get_campaign
from storage.ledger.cancelling import end_rows
from storage.ledger.sending import Claim, Claimed, OpenAttempt, Result, claim, open_attempts, record_results
from storage.ledger.settling import put_back

_SLICE = 0.25  # seconds of the lower rate that are claimed at once
_LARGEST_SLICE = 200
_LONGEST_WAIT = 5.0  # seconds between two looks at an account that rests; it may be mended before its time

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """What sending needs."""

    settings: WorkerSettings
    database: Database
    jobs: JobBoard
    senders: Senders
    now: Callable[[], datetime]
    rests: Rests = field(default_factory=lambda: RESTS)
    patience: Patience = field(default_factory=lambda: PATIENCE)


def register(engine: Engine, dispatch: Dispatch) -> None:
    """Let this worker send chunks of batches."""

    async def send_chunk(batch_id: str, first_row: int, last_row: int) -> None:
        campaign = await persistently(campaign_of, dispatch, batch_id)
        if campaign.deleted_at is None:
            await persistently(enqueue_chunk_after, dispatch.database, dispatch.jobs, batch_id, last_row, campaign.rate)
        # Of a deleted campaign nothing is claimed any more, but what was begun comes to its end.
        await send_rows(dispatch, campaign, batch_id, (first_row, last_row))

    engine.register(SEND_CHUNK, send_chunk)


async def send_rows(dispatch: Dispatch, campaign: Campaign, batch_id: str, rows: tuple[int, int]) -> None:
    """Send what is left to be sent of a batch's rows, and settle what a dead sender of them left open.

    Where the campaign is paused it waits, mid-chunk, too; where nothing more is to be sent, what waits ends.

    Raises:
        asyncio.CancelledError: the worker stops; the job stays pending, to be run again.
    """
    chunk = _Chunk(dispatch, campaign)
    async with Doubts(
        dispatch.database,
        sender=chunk.sender,
        handover=lambda one: chunk.handover(one.claimed),
        record=chunk.record_one,
        refused=chunk.account_refused,
        patience=dispatch.patience,
    ) as doubts:
        doubts.add(await persistently(lambda: open_attempts(dispatch.database, batch_id=batch_id, rows=rows)))
        sender = await chunk.sender()
        while not (claimed := await chunk.claim(sender, batch_id, rows)).is_done:
            if claimed.messages:
                doubts.add(await chunk.send(sender, claimed))
            else:
                await pause(min(claimed.wait, _LONGEST_WAIT))
            if not claimed.messages or claimed.is_probe:
                sender = await chunk.sender()
        await doubts.settled()
    # What went back to wait while its batch was cancelled would wait for ever.
    await persistently(lambda: end_rows(dispatch.database, batch_id, rows, now=dispatch.now()))


class _Chunk:
    """The steps of sending one chunk."""

    def __init__(self, dispatch: Dispatch, campaign: Campaign) -> None:
        self._dispatch = dispatch
        self._campaign = campaign
        self.handover = handovers(campaign, dispatch.settings)

    async def sender(self) -> Sender:
        """The account that sends now."""
        return await persistently(self._dispatch.senders, self._campaign)

    async def claim(self, sender: Sender, batch_id: str, rows: tuple[int, int]) -> Claim:
        """Claim a slice; one that is small enough for the pace of the account, too."""
        rate = min(self._campaign.rate, sender.account.rate or self._campaign.rate)
        await pause(0)
        return await persistently(
            lambda: claim(
                self._dispatch.database,
                batch_id=batch_id,
                rows=rows,
                rate=self._campaign.rate,
                most=max(1, min(_LARGEST_SLICE, int(rate * _SLICE))),
                account=sender.account,
                now=self._dispatch.now(),
            )
        )

    async def send(self, sender: Sender, claimed: Claim) -> list[OpenAttempt]:
        """Hand a slice over and record what came of it; returns what is in doubt."""
        since = self._dispatch.now()
        names = [sender.account.provider_of(message.recipient) for message in claimed.messages]
        answers = await asyncio.gather(
            *(
                sender.provider_for(name).send(self.handover(message))
                for name, message in zip(names, claimed.messages, strict=True)
            ),
            return_exceptions=True,
        )
        outcomes = [_outcome(message, answer) for message, answer in zip(claimed.messages, answers, strict=True)]
        theirs = [outcome for name, outcome in zip(names, outcomes, strict=True) if name == sender.account.provider]
        await persistently(self._record, sender.account.circuit_id, claimed, outcomes, theirs)
        return [
            OpenAttempt(claimed=message, claim=claimed.token, provider=name, created_at=since)
            for name, message, outcome in zip(names, claimed.messages, outcomes, strict=True)
            if isinstance(outcome, Unknown)
        ]

    def record_one(self, attempt: OpenAttempt, result: Result) -> None:
        """Record what was found out about an attempt in doubt."""
        now = self._dispatch.now()
        record_results(self._dispatch.database, attempt.claim, [result], now=now, handed_over=attempt.created_at)

    def account_refused(self, sender: Sender, busy: Busy) -> None:
        """A look-up was refused as a hand-over would be: the account rests, and an operator hears of it."""
        rests, now = self._dispatch.rests, self._dispatch.now
        heed(self._dispatch.database, sender.account.circuit_id, [busy], is_probe=False, rests=rests, now=now)

    def _record(self, circuit_id: str, claimed: Claim, outcomes: Sequence[Outcome], theirs: Sequence[Outcome]) -> None:
        """What is in doubt stays `sending`; what was not handed over waits again, and the account rests."""
        database, now = self._dispatch.database, self._dispatch.now
        pairs = list(zip(claimed.messages, outcomes, strict=True))
        results = [result_of(message, outcome) for message, outcome in pairs if not isinstance(outcome, Busy | Unknown)]
        waiting = [message.attempt_id for message, outcome in pairs if isinstance(outcome, Busy)]
        if results:
            record_results(database, claimed.token, results, now=now())
        put_back(database, claimed.token, waiting, now=now())
        heed(database, circuit_id, theirs, is_probe=claimed.is_probe, rests=self._dispatch.rests, now=now)


def _outcome(message: Claimed, answer: Outcome | BaseException) -> Outcome:
    if isinstance(answer, BaseException):  # a bug; it takes none of the others along
        log.error("attempt.unsettled", attempt_id=message.attempt_id, error=repr(answer))
        return Unknown()
    return answer


def campaign_of(dispatch: Dispatch, batch_id: str) -> Campaign:
    """The campaign of a batch, also after it was deleted. Blocks."""
    campaign_id = get_batch(dispatch.database, batch_id).campaign_id
    return get_campaign(dispatch.database, campaign_id, even_deleted=True)
