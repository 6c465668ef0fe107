"""What sending needs, and what all chunks of a worker share."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dispatch.accounts import Senders
from dispatch.circuit import RESTS, Rests
from dispatch.in_hand import InHand
from dispatch.provider import Trouble
from dispatch.recorder import Recorder
from postern.model import Campaign
from postern.settings import WorkerSettings
from storage.clerk import LedgerCalls
from storage.database import Database
from storage.engine import persistently
from storage.jobs import JobBoard
from storage.ledger.batches import get_batch
from storage.ledger.campaigns import get_campaign
from storage.ledger.claiming import worker_of
from storage.ledger.doubts import OpenAttempt
from storage.takeover import is_alive

Patience = Mapping[Trouble, float]

PATIENCE: Patience = {  # seconds that a provider is asked about what is in doubt before that is given up
    Trouble.THROTTLED: 3600,
    Trouble.UNREACHABLE: 3600,
    Trouble.UNANSWERED: 3600,
    Trouble.ACCOUNT: 600,
}


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """What sending needs."""

    settings: WorkerSettings
    database: Database
    ledger: LedgerCalls  # for what is asked all the time
    jobs: JobBoard
    senders: Senders
    now: Callable[[], datetime]
    rests: Rests = field(default_factory=lambda: RESTS)
    patience: Patience = field(default_factory=lambda: PATIENCE)
    worker: str = ""  # its executor id, where there may be others
    in_hand: InHand = field(default_factory=InHand)
    # Whoever waits for the rate of an account that several campaigns share has its turn after those who came before.
    turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @cached_property
    def recorder(self) -> Recorder:
        """Who writes down what comes of hand-overs."""
        return Recorder(self.database, self.jobs, self.ledger, rests=self.rests, now=self.now)


async def is_in_hand(dispatch: Dispatch, attempt: OpenAttempt) -> bool:
    """Whether a live sender may be at an attempt: it will record what comes of it.

    Raises:
        asyncio.CancelledError: the worker stops.
    """
    worker = worker_of(attempt.claim)
    if worker == dispatch.worker:
        return dispatch.in_hand.has(attempt.claimed.attempt_id, attempt.claim)
    return await persistently(is_alive, dispatch.database, worker)


def campaign_of(dispatch: Dispatch, batch_id: str) -> Campaign:
    """The campaign of a batch, also after it was deleted. Blocks."""
    campaign_id = get_batch(dispatch.database, batch_id).campaign_id
    return get_campaign(dispatch.database, campaign_id, even_deleted=True)
