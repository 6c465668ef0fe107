"""Retries that were asked for, on their way: the next failures become created, what is created is enqueued.

A job sets what is created to enqueued, together with the job that sends it, and marks the next slice of failures as
created, in one transaction with the job that goes on behind that slice. So a worker that dies repeats a slice at most;
and while a retry is not through, some message of the batch is `created`. Failures are found by an index of failures;
nobody reads the whole batch.
"""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.errors import Refusal
from postern.model import BatchStatus, MessageStatus
from postern.sms.retrying import MOST_RETRIES
from storage.database import Database
from storage.jobs import ENQUEUE_RETRIES, SEND_AGAIN, JobBoard
from storage.ledger.batches import get_batch
from storage.ledger.uploads import lock_campaign
from storage.lists import at_rows, these_rows
from storage.tables import attempts, batches, messages

_SLICE, _SPAN = 500, 5_000  # messages that are retried together, and the rows that they may stand in
_RETRIABLE = (BatchStatus.MESSAGES_ENQUEUED, BatchStatus.MESSAGES_ENQUEUING_FAILED)
_FAILURE = sa.literal(MessageStatus.FAILURE.value, literal_execute=True)  # as partial indexes want it
_IS_CREATED = messages.c.latest_status == sa.literal(MessageStatus.CREATED.value, literal_execute=True)
HAS_FAILED = sa.and_(
    attempts.c.status == _FAILURE,
    messages.c.latest_status == MessageStatus.FAILURE.value,
    messages.c.num_attempts == attempts.c.number,
)
MAY_BE_RETRIED = messages.c.num_attempts <= MOST_RETRIES
SAME_MESSAGE = sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row)
BatchRow = sa.Row[*tuple[Any, ...]]


def enqueue_retries(
    database: Database,
    jobs: JobBoard,
    batch_id: str,
    *,
    after: int,
    failed_until: str,
    may_repeat: bool,
    now: datetime,
) -> bool:
    """One step of a retry: what is created becomes enqueued with its job, and the next failures become created.

    Where there are such, the job that goes on behind them is left with them.

    Args:
        database: the database.
        jobs: where jobs are left.
        batch_id: the batch.
        after: failures are looked for behind this row.
        failed_until: only what had failed by then is retried (ISO 8601); empty: nothing but what is created.
        may_repeat: whether failures that are only our own conclusion are retried, too.
        now: the time.

    Returns:
        whether this job is done: nothing is left, or another one goes on.
    """
    campaign_id = get_batch(database, batch_id).campaign_id
    with database.write() as connection:
        try:
            batch = retriable_batch(connection, batch_id, campaign_id)
        except Refusal:
            return True  # it was cancelled or deleted meanwhile; what is created ends with the rest
        is_any_created = _enqueue_created(connection, jobs, batch, now)
        last = None
        if failed_until:
            until = datetime.fromisoformat(failed_until)
            last = mark(connection, batch.number, after, until, may_repeat=may_repeat, now=now)
        if last is not None:
            job_id = f"retry:{batch.id}:{batch.num_retries}:{last}"
            jobs.enqueue(connection, ENQUEUE_RETRIES, job_id, batch.id, last, failed_until, may_repeat)
        elif not is_any_created:
            set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUED, now)
        return last is not None or not is_any_created


def leave_retry(
    connection: sa.Connection,
    jobs: JobBoard,
    batch: BatchRow,
    *,
    after: int,
    failed_until: str,
    may_repeat: bool,
    now: datetime,
) -> None:
    """Leave the first job of a retry, and count it."""
    number = batch.num_retries + 1
    connection.execute(batches.update().where(batches.c.id == batch.id).values(num_retries=number, updated_at=now))
    jobs.enqueue(connection, ENQUEUE_RETRIES, f"retry:{batch.id}:{number}", batch.id, after, failed_until, may_repeat)


def retriable_batch(connection: sa.Connection, batch_id: str, campaign_id: str) -> BatchRow:
    """A batch, locked: nobody cancels it, deletes its campaign or retries any of it meanwhile."""
    if not lock_campaign(connection, campaign_id):
        raise Refusal("campaign_deleted", f"The campaign of {batch_id} was deleted; nothing more is sent for it.")
    query = sa.select(batches.c.id, batches.c.number, batches.c.campaign_id, batches.c.status, batches.c.num_retries)
    batch = connection.execute(query.where(batches.c.id == batch_id).with_for_update()).one()
    if batch.status not in _RETRIABLE:
        raise Refusal("batch_not_enqueued", f"Messages of {batch_id} cannot be retried: it is {batch.status}.")
    return batch


def has_created(connection: sa.Connection, batch: int) -> bool:
    """Whether a retry of the batch, by its number, is on its way."""
    query = sa.select(messages.c.row).where(messages.c.batch == batch, _IS_CREATED).limit(1)
    return connection.execute(query).first() is not None


def mark(
    connection: sa.Connection, batch: int, after: int, until: datetime, *, may_repeat: bool, now: datetime
) -> int | None:
    """failure → created, for the next slice of failures behind a row; returns the last row of it."""
    query = (
        sa.select(attempts.c.row)
        .join(messages, SAME_MESSAGE)
        .where(
            attempts.c.batch == batch,
            attempts.c.row > after,
            HAS_FAILED,
            MAY_BE_RETRIED,
            messages.c.updated_at <= until,
            sa.true() if may_repeat else attempts.c.inferred.is_(False),
        )
        .order_by(attempts.c.row)
        .limit(_SLICE)
    )
    rows: list[int] = list(connection.execute(query).scalars())
    rows = [row for row in rows if row < rows[0] + _SPAN]
    if not rows:
        return None
    connection.execute(
        messages.update()
        .where(
            messages.c.batch == batch,
            at_rows(connection.dialect.name, messages.c.row),
            messages.c.latest_status == MessageStatus.FAILURE.value,  # a late report may have said success
        )
        .values(latest_status=MessageStatus.CREATED.value, updated_at=now),
        these_rows(connection, rows),
    )
    return rows[-1]


def set_status(connection: sa.Connection, batch_id: str, status: BatchStatus, now: datetime) -> None:
    """Set a batch's status, unless it has it."""
    connection.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.status != status.value)
        .values(status=status.value, updated_at=now)
    )


def _enqueue_created(connection: sa.Connection, jobs: JobBoard, batch: BatchRow, now: datetime) -> bool:
    """created → enqueued, for a slice, with the job that sends it; returns whether there were any."""
    query = sa.select(messages.c.row).where(messages.c.batch == batch.number, _IS_CREATED)
    rows: list[int] = list(connection.execute(query.order_by(messages.c.row).limit(_SLICE)).scalars())
    rows = [row for row in rows if row < rows[0] + _SPAN]
    if not rows:
        return False
    connection.execute(
        messages.update()
        .where(
            messages.c.batch == batch.number,
            at_rows(connection.dialect.name, messages.c.row),
            messages.c.latest_status == MessageStatus.CREATED.value,
        )
        .values(latest_status=MessageStatus.ENQUEUED.value, updated_at=now),
        these_rows(connection, rows),
    )
    # Each slice is enqueued once, so its job needs no id that could be made again.
    job_id = f"again:{batch.id}:{rows[0]}:{uuid.uuid4()}"
    jobs.enqueue(connection, SEND_AGAIN, job_id, batch.id, rows[0], rows[-1], partition=batch.campaign_id)
    return True
