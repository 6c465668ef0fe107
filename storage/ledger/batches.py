"""Batches in the ledger: created with their rows under `messages_enqueuing`, sent only from `messages_enqueued`.

Rows are written in commits of a bounded size (`storage.ledger.new_messages`); nothing is sent meanwhile. One last
transaction makes the batch `messages_enqueued` together with its first job, the upload's acceptance and its notice.
A crash before that leaves rows that the next try finds and leaves alone: their ids are made from batch and row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.errors import NotFoundError, Refusal
from postern.model import BatchStatus, IdKind, MessageStatus, UploadStatus, Verdict, derived_id
from storage.database import Database
from storage.jobs import INDEX_MESSAGES, SEND_CHUNK, JobBoard
from storage.ledger import uploads as upload_ledger
from storage.tables import batches, messages

_CHUNK_SECONDS = 10  # a chunk is about so long at the campaign's rate
_SMALLEST_CHUNK, _LARGEST_CHUNK = 20, 5_000
# Of these messages may be claimed. A retry that was refused does not hold up what is on its way; a batch whose upload
# failed was never enqueued.
IS_SENDABLE = sa.or_(
    batches.c.status == BatchStatus.MESSAGES_ENQUEUED.value,
    sa.and_(batches.c.status == BatchStatus.MESSAGES_ENQUEUING_FAILED.value, batches.c.enqueued_at.is_not(None)),
)
_COLUMNS = [column for column in batches.c if column.name not in ("number", "is_indexed")]


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
    num_retries: int = 0  # how often something of it was retried
    created_at: datetime
    updated_at: datetime
    enqueued_at: datetime | None = None  # from then on its messages may be sent


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
        add_batch(
            database,
            connection,
            batch_id,
            upload_id=upload_id,
            campaign_id=campaign_id,
            status=BatchStatus.MESSAGES_ENQUEUING.value,
            total=total,
            first_row=first_row,
            last_row=last_row,
            created_at=now,
            updated_at=now,
        )
    return batch_id


def add_batch(database: Database, connection: sa.Connection, batch_id: str, **values: Any) -> int:
    """Add a batch under the next number, unless it is there; returns its number.

    Args:
        database: the database.
        connection: the transaction.
        batch_id: the batch.
        values: its other columns.
    """
    next_number = sa.select(sa.func.coalesce(sa.func.max(batches.c.number), 0) + 1).scalar_subquery()
    insert = database.insert_ignore(batches).values(id=batch_id, number=next_number, **values)
    number = sa.select(batches.c.number).where(batches.c.id == batch_id)
    while True:
        connection.execute(insert)
        found = connection.execute(number).scalar_one_or_none()
        if found is not None:  # otherwise, on PostgreSQL, another batch got the number first
            return int(found)


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

    Raises:
        Refusal: its campaign was deleted.
    """
    with database.write() as connection:
        campaign_id = connection.execute(sa.select(batches.c.campaign_id).where(batches.c.id == batch_id)).scalar_one()
        if not upload_ledger.lock_campaign(connection, campaign_id):
            raise Refusal("campaign_deleted", f"The campaign of {batch_id} was deleted; nothing more is sent for it.")
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
            .values(status=BatchStatus.MESSAGES_ENQUEUED.value, enqueued_at=now, updated_at=now)
            .returning(batches.c.first_row, batches.c.last_row)
        ).one()
        _enqueue_chunk(connection, jobs, batch_id, campaign_id, (batch.first_row, batch.last_row), rate)
        jobs.enqueue(connection, INDEX_MESSAGES, f"index:{batch_id}", batch_id)
    return True


def enqueue_chunk_after(database: Database, jobs: JobBoard, batch_id: str, row: int, rate: float) -> None:
    """Leave the job of the chunk that follows `row`, if the batch goes on there. Doing it twice is one job."""
    batch = get_batch(database, batch_id)
    if row < batch.last_row and batch.status is not BatchStatus.CANCELLED:
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
        row = connection.execute(sa.select(*_COLUMNS).where(batches.c.id == batch_id)).mappings().first()
    if row is None:
        raise NotFoundError("batch", batch_id)
    return _batch(row)


def list_batches(database: Database, *, campaign_id: str | None = None, limit: int = 100) -> Sequence[Batch]:
    """The newest batches, newest first; single sends are no batches to anybody."""
    query = sa.select(*_COLUMNS).where(batches.c.upload_id.is_not(None))
    query = query.order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
    if campaign_id is not None:
        query = query.where(batches.c.campaign_id == campaign_id)
    with database.read() as connection:
        return [_batch(row) for row in connection.execute(query).mappings()]


def count_messages(database: Database, batch_id: str) -> dict[MessageStatus, int]:
    """How many messages of a batch have each status."""
    query = (
        sa.select(messages.c.latest_status, sa.func.count())
        .join(batches, batches.c.number == messages.c.batch)
        .where(batches.c.id == batch_id)
        .group_by(messages.c.latest_status)
    )
    with database.read() as connection:
        counts = {status: count for status, count in connection.execute(query)}  # noqa: C416 - typed
    return {status: counts[status.value] for status in MessageStatus if status.value in counts}


def _batch(row: sa.RowMapping) -> Batch:
    return Batch(**{**row, "status": BatchStatus(row["status"])})
