"""Batches in the ledger: created with their rows under `messages_enqueuing`, sent only from `messages_enqueued`.

Rows are written in commits of a bounded size, so that nobody waits long for SQLite's write lock; nothing is sent
meanwhile. One last transaction makes the batch `messages_enqueued` together with its first job, the upload's
acceptance and its notice. A crash before that leaves rows that the next try finds and leaves alone: their ids are
made from batch and row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import BatchStatus, IdKind, MessageStatus, UploadStatus, Verdict, derived_id, derived_ids
from storage.bulk import insert_many, stored
from storage.database import Database
from storage.jobs import SEND_CHUNK, JobBoard
from storage.ledger import uploads as upload_ledger
from storage.tables import batches, messages

_CHUNK_SECONDS = 10  # a chunk is about so long at the campaign's rate
_SMALLEST_CHUNK, _LARGEST_CHUNK = 20, 500
_ENQUEUED = MessageStatus.ENQUEUED.value
_MESSAGE_COLUMNS = (
    "id", "batch_id", "row", "campaign_id", "recipient", "language", "values", "latest_status", "num_attempts",
    "segments", "created_at", "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch in the ledger."""

    id: str
    upload_id: str | None
    campaign_id: str
    status: BatchStatus
    total: int
    first_row: int
    last_row: int
    created_at: datetime
    updated_at: datetime


class NewMessage(NamedTuple):
    """A row of a valid file, ready to be a message."""

    row: int
    recipient: str
    language: str
    values: str  # JSON object
    segments: int


def start_batch(
    database: Database, *, upload_id: str, campaign_id: str, rows: tuple[int, int, int], now: datetime
) -> str:
    """Record an upload's batch as `messages_enqueuing`, or find it there from an earlier try.

    Args:
        database: the database.
        upload_id: the upload; the batch's id is made from it.
        campaign_id: its campaign.
        rows: how many there are, the first and the last row number.
        now: the time.

    Returns:
        the batch's id.
    """
    batch_id = derived_id(IdKind.BATCH, upload_id, "batch")
    total, first_row, last_row = rows
    with database.write() as connection:
        connection.execute(
            database.insert_ignore(batches).values(
                id=batch_id,
                upload_id=upload_id,
                campaign_id=campaign_id,
                status=BatchStatus.MESSAGES_ENQUEUING.value,
                total=total,
                first_row=first_row,
                last_row=last_row,
                created_at=now,
                updated_at=now,
            )
        )
    return batch_id


def add_messages(
    database: Database, *, batch_id: str, campaign_id: str, rows: Iterable[NewMessage], now: datetime
) -> None:
    """Write message rows in one commit; those that are there already stay as they are.

    They are written `enqueued` at once: nobody looks at them before the batch is, and a second status would
    double the writing.
    """
    found = list(rows)
    if not found:
        return
    ids = derived_ids(IdKind.MESSAGE, batch_id, [str(row.row) for row in found])
    with database.write() as connection:
        at = stored(connection, messages.c.created_at, now)
        insert_many(
            connection,
            messages,
            _MESSAGE_COLUMNS,
            [
                (message_id, batch_id, row.row, campaign_id, row.recipient, row.language, row.values, _ENQUEUED, 0,
                 row.segments, at, at)
                for message_id, row in zip(ids, found, strict=True)
            ],
        )  # fmt: skip


def enqueue_batch(
    database: Database,
    jobs: JobBoard,
    *,
    batch_id: str,
    upload_id: str,
    rate: float,
    verdict: Verdict,
    context: Mapping[str, Any],
    now: datetime,
) -> bool:
    """messages_enqueuing → messages_enqueued, and the upload is accepted: the one point after which SMS leave.

    Returns:
        False when the upload has its outcome already.
    """
    with database.write() as connection:
        accepted = upload_ledger.finish(
            database,
            connection,
            jobs,
            upload_id,
            UploadStatus.ACCEPTED,
            values=upload_ledger.verdict_values(verdict),
            context=context,
            now=now,
        )
        if not accepted:
            return False
        batch = connection.execute(
            batches.update()
            .where(batches.c.id == batch_id, batches.c.status == BatchStatus.MESSAGES_ENQUEUING.value)
            .values(status=BatchStatus.MESSAGES_ENQUEUED.value, updated_at=now)
            .returning(batches.c.campaign_id, batches.c.first_row, batches.c.last_row)
        ).one()
        _enqueue_chunk(connection, jobs, batch_id, batch.campaign_id, (batch.first_row, batch.last_row), rate)
    return True


def enqueue_chunk_after(database: Database, jobs: JobBoard, batch_id: str, row: int, rate: float) -> None:
    """Leave the job of the chunk that follows `row`, if the batch goes on there. Doing it twice is one job."""
    batch = get_batch(database, batch_id)
    if row < batch.last_row:
        with database.write() as connection:
            _enqueue_chunk(connection, jobs, batch_id, batch.campaign_id, (row + 1, batch.last_row), rate)


def _enqueue_chunk(
    connection: sa.Connection, jobs: JobBoard, batch_id: str, campaign_id: str, rows: tuple[int, int], rate: float
) -> None:
    first_row, last_row = rows
    size = max(_SMALLEST_CHUNK, min(_LARGEST_CHUNK, int(rate * _CHUNK_SECONDS)))
    jobs.enqueue(
        connection,
        SEND_CHUNK,
        f"chunk:{batch_id}:{first_row}",
        batch_id,
        first_row,
        min(first_row + size - 1, last_row),
        partition=campaign_id,
    )


def get_batch(database: Database, batch_id: str) -> Batch:
    """A batch.

    Raises:
        NotFoundError: there is none with that id.
    """
    with database.read() as connection:
        row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().first()
    if row is None:
        raise NotFoundError("batch", batch_id)
    return _batch(row)


def list_batches(database: Database, *, campaign_id: str | None = None, limit: int = 100) -> Sequence[Batch]:
    """The newest batches, newest first."""
    query = sa.select(batches).order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
    if campaign_id is not None:
        query = query.where(batches.c.campaign_id == campaign_id)
    with database.read() as connection:
        return [_batch(row) for row in connection.execute(query).mappings()]


def count_messages(database: Database, batch_id: str) -> dict[MessageStatus, int]:
    """How many messages of a batch have each status."""
    query = (
        sa.select(messages.c.latest_status, sa.func.count())
        .where(messages.c.batch_id == batch_id)
        .group_by(messages.c.latest_status)
    )
    with database.read() as connection:
        counts = {status: count for status, count in connection.execute(query)}  # noqa: C416 - typed
    return {status: counts[status.value] for status in MessageStatus if status.value in counts}


def _batch(row: sa.RowMapping) -> Batch:
    return Batch(**{**row, "status": BatchStatus(row["status"])})
