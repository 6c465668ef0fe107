"""Writes down what comes of hand-overs, as soon as it is known: all that waits goes into one transaction.

So a message that takes long holds up no other's record, a worker that dies leaves little in doubt, and many campaigns
at once cost as few commits as one. What is in doubt gets its job (`dispatch.doubts`); what was certainly not handed
over waits again, and its account rests (`dispatch.circuit`).
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from dispatch.circuit import Rests, heed
from dispatch.provider import Accepted, Busy, Outcome, Refused, Unknown
from dispatch.results import result_of
from postern.logs import get_logger
from storage.clerk import LedgerCalls
from storage.database import Database
from storage.engine import again_and_again, persistently
from storage.jobs import JobBoard
from storage.ledger.claiming import Claimed
from storage.ledger.doubts import leave_doubts
from storage.ledger.recording import record

_GATHER = 0.03  # seconds that the first of some records waits for others; so few messages more may be in doubt
_SILENCE = 5  # messages in a row of which none was answered; then their account rests


log = get_logger(__name__)


class Answered(NamedTuple):
    """What came of handing a message over."""

    batch_id: str
    token: str  # of its claim
    message: Claimed
    outcome: Outcome
    circuit_id: str  # of the account that it was claimed for
    is_simulated: bool  # it went to the simulator instead, which says nothing of the account
    is_probe: bool
    gets_on: str | None  # the job that sends it, where this shows that it does not kill its workers
    written: Callable[[BaseException | None], None]  # called when it is, or with what kept it from being written


class Recorder:
    """One for a worker."""

    def __init__(
        self, database: Database, jobs: JobBoard, ledger: LedgerCalls, *, rests: Rests, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._jobs = jobs
        self._rests = rests
        self._now = now
        self._waiting: list[Answered] = []
        self._writer: asyncio.Task[None] | None = None
        self._silent: Counter[str] = Counter()  # messages in a row that were not answered, by circuit

    def record(self, answered: Answered) -> None:
        """Have it written soon; `answered.written` is told."""
        self._waiting.append(answered)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
            self._writer.add_done_callback(self._wrote)

    async def _write_waiting(self) -> None:
        writer = asyncio.current_task()
        assert writer is not None
        while self._waiting:
            await asyncio.sleep(_GATHER)
            waiting, self._waiting = self._waiting, []
            failures = await self._failures(waiting, writer)
            if not writer.cancelling():  # else the loop ends, and there may be no database
                await self._heed(waiting)  # before anybody claims anew
            for each, failure in zip(waiting, failures, strict=True):
                each.written(failure)

    def _wrote(self, writer: asyncio.Task[None]) -> None:
        """Whoever waits for a writer that was cancelled must not wait for ever; one that is done has a successor."""
        if writer.cancelled() and writer is self._writer:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.written(asyncio.CancelledError())

    async def _failures(self, answered: Sequence[Answered], writer: asyncio.Task[None]) -> list[BaseException | None]:
        """Write records; returns what kept each of them from being written."""
        try:
            if writer.cancelling():
                raise asyncio.CancelledError  # noqa: TRY301 - as if it came while this was written
            await self._write(answered)
        except asyncio.CancelledError as error:  # the worker stops while the database is away, or the loop ends
            return [error] * len(answered)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            if len(answered) > 1:  # one that cannot be written takes none of the others along
                return [failure for each in answered for failure in await self._failures([each], writer)]
            await self._give_up(answered[0])
            return [error]
        return [None] * len(answered)

    async def _give_up(self, one: Answered) -> None:
        """Leave to be asked about what cannot be recorded: whoever runs its chunk next may take it for in hand here."""
        log.error("attempt.not_recorded", attempt_id=one.message.attempt_id)
        with contextlib.suppress(Exception, asyncio.CancelledError):  # a bug there, too, or the worker stops
            await persistently(self._leave_doubts, {one.batch_id: [one.message.attempt_id]})

    async def _write(self, answered: Sequence[Answered]) -> None:
        known = [
            (one.token, result_of(one.message, one.outcome))
            for one in answered
            if isinstance(one.outcome, Accepted | Refused)
        ]
        waits = [(one.token, one.message.attempt_id) for one in answered if isinstance(one.outcome, Busy)]
        got_on = sorted({one.gets_on for one in answered if one.gets_on is not None})
        if known or waits or got_on:
            await again_and_again(lambda: self._ledger.call(record, known, waits, got_on, now=self._now()))
        doubts: dict[str, list[str]] = defaultdict(list)
        for one in answered:
            if isinstance(one.outcome, Unknown):
                doubts[one.batch_id].append(one.message.attempt_id)
        if doubts:
            await persistently(self._leave_doubts, doubts)

    def _leave_doubts(self, doubts: Mapping[str, Sequence[str]]) -> None:
        with self._database.write() as connection:
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
                except Exception as error:  # noqa: BLE001 - a bug; whoever waits for the records must hear of them
                    log.error("circuit.not_noted", account=circuit_id, error=repr(error))  # noqa: TRY400 - no values

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
