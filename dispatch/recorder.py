"""Writes down what comes of hand-overs, as soon as it is known: all that waits goes into one transaction.

So a message that takes long holds up no other's record, a worker that dies leaves little in doubt, and many campaigns
at once cost as few commits as one. What is in doubt gets its job in the same transaction (`dispatch.doubts`); what was
certainly not handed over waits again, and its account rests (`dispatch.circuit`).
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatch.circuit import Rests, heed
from dispatch.provider import Accepted, Busy, Outcome, Refused, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from storage.database import Database
from storage.engine import persistently
from storage.jobs import JobBoard
from storage.ledger.claiming import Claimed
from storage.ledger.doubts import leave_doubts
from storage.ledger.putting_back import put_back
from storage.ledger.results import write_results

_GATHER = 0.03  # seconds that the first of some records waits for others; so few messages more may be in doubt
_SILENCE = 5  # messages in a row of which none was answered; then their account rests


log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of handing a message over."""

    batch_id: str
    token: str  # of its claim
    message: Claimed
    outcome: Outcome
    circuit_id: str  # of the account that it was claimed for
    is_simulated: bool  # it went to the simulator instead, which says nothing of the account
    is_probe: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    answered: Answered
    written: asyncio.Future[None]


class Recorder:
    """One for a worker."""

    def __init__(self, database: Database, jobs: JobBoard, *, rests: Rests, now: Callable[[], datetime]) -> None:
        self._database = database
        self._jobs = jobs
        self._rests = rests
        self._now = now
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._silent: Counter[str] = Counter()  # messages in a row that were not answered, by circuit

    async def record(self, answered: Answered) -> None:
        """Return when it is written.

        Raises:
            asyncio.CancelledError: the worker stops while the database is away.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(answered, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        await written

    async def _write_waiting(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER)
            waiting, self._waiting = self._waiting, []
            if not await self._written(waiting):
                for each in waiting:  # one that cannot be written takes none of the others along
                    await self._written([each])
            await self._heed([each.answered for each in waiting])

    async def _written(self, waiting: Sequence[_Waiting]) -> bool:
        """Write records, and tell those who wait; False where that cannot be done for all of them together."""
        left = [each for each in waiting if not each.written.done()]  # else its sender was cancelled, or is told
        if not left:
            return True
        try:
            await persistently(self._write, [each.answered for each in left])
        except asyncio.CancelledError:
            for each in left:
                each.written.cancel()
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            if len(left) == 1:
                log.error("attempt.not_recorded", attempt_id=left[0].answered.message.attempt_id)  # noqa: TRY400 - no values
                left[0].written.set_exception(error)
            return False
        for each in left:
            if not each.written.done():
                each.written.set_result(None)
        return True

    def _write(self, answered: Sequence[Answered]) -> None:
        now = self._now()
        known = [
            (one.token, result_of(one.message, one.outcome))
            for one in answered
            if isinstance(one.outcome, Accepted | Refused)
        ]
        waits = [(one.token, one.message.attempt_id) for one in answered if isinstance(one.outcome, Busy)]
        doubts: dict[str, list[str]] = defaultdict(list)
        for one in answered:
            if isinstance(one.outcome, Unknown):
                doubts[one.batch_id].append(one.message.attempt_id)
        with self._database.write() as connection:
            write_results(connection, known, now=now)
            put_back(connection, waits, now=now)
            for batch_id, attempt_ids in doubts.items():
                leave_doubts(connection, self._jobs, batch_id, attempt_ids, is_told=True)

    async def _heed(self, answered: Sequence[Answered]) -> None:
        """Let an account rest, or flow again, by what it answered. What cannot be noted now, the next answers note."""
        for circuit_id in sorted({one.circuit_id for one in answered}):
            of_this = [one for one in answered if one.circuit_id == circuit_id]
            outcomes = [one.outcome for one in of_this if not one.is_simulated]
            is_probe = any(one.is_probe for one in of_this)
            if self._tells_something(circuit_id, outcomes) or is_probe:
                try:
                    await persistently(self._note, circuit_id, outcomes, is_probe)
                except asyncio.CancelledError:
                    return

    def _note(self, circuit_id: str, outcomes: Sequence[Outcome], is_probe: bool) -> None:  # noqa: FBT001 - passed on
        heed(self._database, circuit_id, outcomes, is_probe=is_probe, rests=self._rests, now=self._now)

    def _tells_something(self, circuit_id: str, outcomes: Sequence[Outcome]) -> bool:
        """Whether answers tell of the account; one that broke tells nothing, several in a row do."""
        if any(isinstance(outcome, Accepted | Refused) for outcome in outcomes):
            self._silent[circuit_id] = 0
        else:
            self._silent[circuit_id] += sum(isinstance(outcome, Unknown) for outcome in outcomes)
        is_busy = any(isinstance(outcome, Busy) for outcome in outcomes)
        return is_busy or self._silent[circuit_id] >= _SILENCE
