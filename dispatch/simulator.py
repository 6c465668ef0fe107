"""The simulator: a provider without a network, and the default one.

It keeps a durable journal of every hand-over, written before it answers, and answers look-ups from it as a provider
would: what is in the journal was taken; what is not there may still be on its way, so that tells nothing. Some
numbers fail in a known way; any other succeeds a moment later by a receipt. In a load test it takes every message
and leaves it pending.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from typing_extensions import override

from dispatch.provider import Accepted, Found, Handover, Provider, Refused
from postern.errors import TransientError
from postern.logs import get_logger
from postern.model import Environment, ErrorCode, MessageStatus
from storage.database import Database
from storage.engine import persistently
from storage.ledger.receipts import Receipt, apply_receipts
from storage.tables import simulator_journal as journal

MAGIC_NUMBERS = {
    "6511111111": ErrorCode.RECIPIENT_INVALID,
    "6511112222": ErrorCode.RECIPIENT_UNAVAILABLE,
    "6511113333": ErrorCode.CONTENT_INVALID,
    "6511114444": ErrorCode.ROUTING_ERROR,
    "6511115555": ErrorCode.MESSAGE_EXPIRED,
    "6511119999": ErrorCode.DELIVERY_UNKNOWN_ERROR,
    "6522222222": ErrorCode.SERVER_UNKNOWN_ERROR,
}
NAME = "simulator"
_ACCEPTED = "accepted"
_DELIVERY = timedelta(seconds=0.3)
_RECEIPTS = 500  # at once
_LOOK = 0.2  # seconds

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A hand-over that waits to be written into the journal."""

    row: dict[str, object]
    written: asyncio.Future[None]


class Simulator(Provider):
    """A provider that delivers nothing. Hand-overs that come together are journalled in one commit."""

    name = NAME
    looks = (0.0,)  # its receipts wait for its journal, so the journal knows at least as much

    def __init__(self, database: Database, *, environment: Environment, now: Callable[[], datetime]) -> None:
        self._database = database
        self._sends_receipts = environment is not Environment.LOADTEST
        self._now = now
        self._waiting: list[_Entry] = []
        self._writer: asyncio.Task[None] | None = None

    @override
    async def send(self, handover: Handover) -> Accepted | Refused:
        code = MAGIC_NUMBERS.get(handover.recipient) if self._sends_receipts else None
        outcome: Accepted | Refused = Refused(code=code) if code else self._accepted(f"simulated_{uuid.uuid4()}")
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(row=self._row(handover, outcome), written=written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        await written
        return outcome

    @override
    async def find(self, handover: Handover, since: datetime, external_id: str = "") -> Found:
        return await persistently(self._journalled, handover.attempt_id)

    async def deliver_receipts(self, stop: asyncio.Event) -> None:
        """Report deliveries as they fall due, until told to stop; a report may come twice."""
        while not stop.is_set():
            try:
                reported = await asyncio.to_thread(self.report_due)
            except TransientError as error:
                log.warning("simulator.receipts_wait", error=str(error))
                reported = 0
            if reported < _RECEIPTS:
                try:
                    await asyncio.wait_for(stop.wait(), _LOOK)
                except TimeoutError:
                    continue

    def report_due(self) -> int:
        """Report the deliveries that are due now; returns how many."""
        now = self._now()
        with self._database.read() as connection:
            due = connection.execute(
                sa.select(journal.c.id, journal.c.attempt_id)
                .where(journal.c.receipt_due_at <= now)
                .order_by(journal.c.receipt_due_at, journal.c.id)  # all workers in one order, or they would deadlock
                .limit(_RECEIPTS)
            ).all()
        if not due:
            return 0
        receipts = [Receipt(attempt_id=row.attempt_id, status=MessageStatus.SUCCESS, external_id=row.id) for row in due]
        apply_receipts(self._database, receipts, now=now)
        with self._database.write() as connection:
            connection.execute(
                journal.update()
                .where(journal.c.id.in_([row.id for row in due]))
                .values(receipt_due_at=None, receipt_sent_at=now)
            )
        return len(due)

    async def _write_waiting(self) -> None:
        while self._waiting:
            entries, self._waiting = self._waiting, []
            try:
                await persistently(self._write, entries)  # without a database nothing is handed over; it waits
            except asyncio.CancelledError:
                for entry in _still_waiting(entries):
                    entry.written.cancel()
            except Exception as error:  # noqa: BLE001 - every sender that waits must hear of it
                for entry in _still_waiting(entries):
                    entry.written.set_exception(error)
            for entry in _still_waiting(entries):
                entry.written.set_result(None)

    def _write(self, entries: Sequence[_Entry]) -> None:
        with self._database.write() as connection:
            connection.execute(self._database.insert_ignore(journal), [entry.row for entry in entries])

    def _row(self, handover: Handover, outcome: Accepted | Refused) -> dict[str, object]:
        now, accepted = self._now(), outcome if isinstance(outcome, Accepted) else None
        return {
            "id": accepted.external_id if accepted else f"refused_{uuid.uuid4()}",
            "attempt_id": handover.attempt_id,
            "message_id": handover.message_id,
            "recipient": handover.recipient,
            "outcome": outcome.code.value if isinstance(outcome, Refused) else _ACCEPTED,
            "accepted_at": now,
            "receipt_due_at": now + _DELIVERY if accepted and self._sends_receipts else None,
        }

    def _journalled(self, attempt_id: str) -> Found:
        query = sa.select(journal.c.id, journal.c.outcome).where(journal.c.attempt_id == attempt_id)
        with self._database.read() as connection:
            found = connection.execute(query).first()
        if found is None:
            return Found()
        taken = found.outcome == _ACCEPTED
        state = self._accepted(found.id) if taken else Refused(code=ErrorCode(found.outcome))
        return Found(candidates=[state], is_certain=True)

    def _accepted(self, external_id: str) -> Accepted:
        status = MessageStatus.SENT if self._sends_receipts else MessageStatus.SENDING
        return Accepted(external_id=external_id, status=status)


def _still_waiting(entries: Sequence[_Entry]) -> list[_Entry]:
    """A sender that was cancelled waits no more."""
    return [entry for entry in entries if not entry.written.done()]
