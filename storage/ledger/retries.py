"""Retries of failed messages: the same message, a new attempt, never unasked.

Whoever asks for a retry sets a first slice of messages failure → created and leaves a job. The job sets a slice
created → enqueued together with the job that sends it, and the next slice created, in one transaction, until none is
left. So while a retry is not through, some message of the batch is `created`, and a second retry of the batch fails.
Failures are found by an index of failures; nobody reads the whole batch.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.errors import Refusal
from postern.model import BatchStatus, ErrorCode, MessageStatus
from postern.sms.retrying import MOST_RETRIES
from storage.database import Database
from storage.jobs import ENQUEUE_RETRIES, SEND_AGAIN, JobBoard
from storage.ledger import audit
from storage.ledger.batches import get_batch
from storage.ledger.messages import Message, get_message
from storage.ledger.uploads import lock_campaign
from storage.tables import attempts, batches, messages

_SLICE, _SPAN = 500, 5_000  # messages that are retried together, and the rows that they may stand in
_RETRIABLE = (BatchStatus.MESSAGES_ENQUEUED, BatchStatus.MESSAGES_ENQUEUING_FAILED)
_FAILURE = sa.literal(MessageStatus.FAILURE.value, literal_execute=True)  # as partial indexes want it
_IS_CREATED = messages.c.latest_status == sa.literal(MessageStatus.CREATED.value, literal_execute=True)
_HAS_FAILED = sa.and_(
    attempts.c.status == _FAILURE,
    messages.c.latest_status == MessageStatus.FAILURE.value,
    messages.c.num_attempts == attempts.c.number,
)
_MAY_BE_RETRIED = messages.c.num_attempts <= MOST_RETRIES
_Row = sa.Row[*tuple[Any, ...]]
_SAME_MESSAGE = sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What has failed of a batch and how it may be retried."""

    by_code: Mapping[ErrorCode, int]  # failures that may be retried, by their latest error
    inferred: int  # of these, failures of our own conclusion: a retry may deliver a second time
    used_up: int  # failures that were retried as often as may be

    @property
    def total(self) -> int:
        """How many messages a retry of the batch takes."""
        return sum(self.by_code.values())


def batch_outlook(database: Database, batch_id: str) -> Outlook:
    """What a retry of a batch would take.

    Raises:
        NotFoundError: there is no batch with that id.
    """
    get_batch(database, batch_id)
    with database.read() as connection:
        number = connection.execute(sa.select(batches.c.number).where(batches.c.id == batch_id)).scalar_one()
        return _outlook(connection, number)


def retry_message(
    database: Database, jobs: JobBoard, message_id: str, *, may_repeat: bool, actor: str, now: datetime
) -> Message:
    """failure → created, with the job that sends it anew.

    Args:
        database: the database.
        jobs: where jobs are left.
        message_id: the message.
        may_repeat: whether a second delivery is accepted, where the failure is only our own conclusion.
        actor: who asks.
        now: the time.

    Returns:
        the message.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it has not failed, was retried as often as may be, might be delivered twice, or nothing of its batch
            is sent any more.
    """
    message = get_message(database, message_id)
    with database.write() as connection:
        batch = _retriable_batch(connection, message.batch_id, message.campaign_id)
        here = sa.and_(messages.c.batch == batch.number, messages.c.row == message.row)
        changed = connection.execute(
            messages.update()
            .where(here, messages.c.latest_status == MessageStatus.FAILURE.value, _MAY_BE_RETRIED)
            .values(latest_status=MessageStatus.CREATED.value, updated_at=now)
        )
        if changed.rowcount == 0:
            raise _refusal(connection, here, message_id)
        is_ours = sa.select(attempts.c.inferred).join(messages, _SAME_MESSAGE)
        is_ours = is_ours.where(here, attempts.c.number == messages.c.num_attempts)
        if not may_repeat and connection.execute(is_ours).scalar_one_or_none():
            raise Refusal(
                "may_deliver_twice",
                f"Nobody knows whether {message_id} was delivered: its failure is our own conclusion. A retry may "
                "deliver it a second time. Say --yes if that may be.",
            )
        _leave(connection, jobs, batch, 0, "", now)
        _note(connection, "message.retried", message_id, message.campaign_id, {}, actor=actor, now=now)
    return get_message(database, message_id)


def retry_batch(
    database: Database, jobs: JobBoard, batch_id: str, *, may_repeat: bool, actor: str, now: datetime
) -> Outlook:
    """Retry all failed messages of a batch.

    A retry while any of its messages is still `created` fails and sets `messages_enqueuing_failed`. What is on its way
    goes on, and the batch is `messages_enqueued` again once none is `created` any more.

    Args:
        database: the database.
        jobs: where jobs are left.
        batch_id: the batch.
        may_repeat: whether second deliveries are accepted, where failures are only our own conclusion.
        actor: who asks.
        now: the time.

    Returns:
        what is retried.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: a retry is still on its way, nothing of it has failed, some might be delivered twice, or nothing of it
            is sent any more.
    """
    campaign_id = get_batch(database, batch_id).campaign_id
    with database.write() as connection:
        batch = _retriable_batch(connection, batch_id, campaign_id)
        outlook = _outlook(connection, batch.number)
        is_under_way = _has_created(connection, batch.number)
        if is_under_way:
            _set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUING_FAILED, now)
        else:
            _check(batch_id, outlook, may_repeat=may_repeat)
            _mark(connection, batch.number, 0, now, now)
            _set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUED, now)
            _leave(connection, jobs, batch, 0, now.isoformat(), now)
            detail = {"messages": outlook.total, "usedUp": outlook.used_up, "inferred": outlook.inferred}
            _note(connection, "batch.retried", batch_id, campaign_id, detail, actor=actor, now=now)
    if is_under_way:
        raise Refusal(
            "retry_under_way",
            f"Messages of {batch_id} are still created: a retry of them is on its way. It was set "
            "messages_enqueuing_failed until that is through; try again then.",
        )
    return outlook


def enqueue_retries(
    database: Database, jobs: JobBoard, batch_id: str, *, after: int, failed_until: str, now: datetime
) -> int | None:
    """One step of a retry: what is created becomes enqueued with its job, and the next failures become created.

    Args:
        database: the database.
        jobs: where jobs are left.
        batch_id: the batch.
        after: failures are looked for behind this row.
        failed_until: only what failed until then is retried (ISO 8601); empty: nothing but what is created.
        now: the time.

    Returns:
        the row to go on behind, or None when all is done.
    """
    campaign_id = get_batch(database, batch_id).campaign_id
    with database.write() as connection:
        try:
            batch = _retriable_batch(connection, batch_id, campaign_id)
        except Refusal:
            return None  # it was cancelled or deleted meanwhile; what is created ends with the rest
        first = _enqueue_created(connection, jobs, batch, now)
        last = (
            _mark(connection, batch.number, after, datetime.fromisoformat(failed_until), now) if failed_until else None
        )
        if first is None and last is None:
            _set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUED, now)
            return None
        return last or after


def _retriable_batch(connection: sa.Connection, batch_id: str, campaign_id: str) -> _Row:
    """A batch, locked: nobody cancels it, deletes its campaign or retries any of it meanwhile."""
    if not lock_campaign(connection, campaign_id):
        raise Refusal("campaign_deleted", f"The campaign of {batch_id} was deleted; nothing more is sent for it.")
    query = sa.select(batches.c.id, batches.c.number, batches.c.campaign_id, batches.c.status, batches.c.num_retries)
    batch = connection.execute(query.where(batches.c.id == batch_id).with_for_update()).one()
    if batch.status not in _RETRIABLE:
        raise Refusal("batch_not_enqueued", f"Messages of {batch_id} cannot be retried: it is {batch.status}.")
    return batch


def _outlook(connection: sa.Connection, batch: int) -> Outlook:
    query = (
        sa.select(
            attempts.c.error_code, attempts.c.inferred, _MAY_BE_RETRIED.label("may"), sa.func.count().label("count")
        )
        .join(messages, _SAME_MESSAGE)
        .where(attempts.c.batch == batch, _HAS_FAILED)
        .group_by(attempts.c.error_code, attempts.c.inferred, "may")
    )
    by_code: dict[ErrorCode, int] = {}
    inferred = used_up = 0
    for code, is_ours, may, count in connection.execute(query):
        if not may:
            used_up += count
            continue
        key = ErrorCode(code) if code else ErrorCode.DELIVERY_UNKNOWN_ERROR
        by_code[key] = by_code.get(key, 0) + count
        inferred += count if is_ours else 0
    return Outlook(by_code=by_code, inferred=inferred, used_up=used_up)


def _check(batch_id: str, outlook: Outlook, *, may_repeat: bool) -> None:
    if not outlook.total:
        tail = f" {outlook.used_up} were retried {MOST_RETRIES} times already." if outlook.used_up else ""
        raise Refusal("nothing_to_retry", f"No message of {batch_id} has failed that may be retried.{tail}")
    if outlook.inferred and not may_repeat:
        raise Refusal(
            "may_deliver_twice",
            f"Nobody knows whether {outlook.inferred} of the {outlook.total} failed messages of {batch_id} were "
            "delivered: these failures are our own conclusion. A retry may deliver them a second time. Say --yes if "
            "that may be.",
        )


def _has_created(connection: sa.Connection, batch: int) -> bool:
    query = sa.select(messages.c.row).where(messages.c.batch == batch, _IS_CREATED).limit(1)
    return connection.execute(query).first() is not None


def _mark(connection: sa.Connection, batch: int, after: int, until: datetime, now: datetime) -> int | None:
    """failure → created, for the next slice of failures behind a row; returns the last row of it."""
    query = (
        sa.select(attempts.c.row)
        .join(messages, _SAME_MESSAGE)
        .where(
            attempts.c.batch == batch,
            attempts.c.row > after,
            _HAS_FAILED,
            _MAY_BE_RETRIED,
            messages.c.updated_at <= until,
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
            messages.c.row.in_(rows),
            messages.c.latest_status == MessageStatus.FAILURE.value,  # a late report may have said success
        )
        .values(latest_status=MessageStatus.CREATED.value, updated_at=now)
    )
    return rows[-1]


def _enqueue_created(connection: sa.Connection, jobs: JobBoard, batch: _Row, now: datetime) -> int | None:
    """created → enqueued, for a slice, with the job that sends it; returns its first row."""
    query = sa.select(messages.c.row).where(messages.c.batch == batch.number, _IS_CREATED)
    rows: list[int] = list(connection.execute(query.order_by(messages.c.row).limit(_SLICE)).scalars())
    rows = [row for row in rows if row < rows[0] + _SPAN]
    if not rows:
        return None
    connection.execute(
        messages.update()
        .where(
            messages.c.batch == batch.number,
            messages.c.row.in_(rows),
            messages.c.latest_status == MessageStatus.CREATED.value,
        )
        .values(latest_status=MessageStatus.ENQUEUED.value, updated_at=now)
    )
    # Each slice is enqueued once, so its job needs no id that could be made again.
    job_id = f"again:{batch.id}:{rows[0]}:{uuid.uuid4()}"
    jobs.enqueue(connection, SEND_AGAIN, job_id, batch.id, rows[0], rows[-1], partition=batch.campaign_id)
    return rows[0]


def _leave(
    connection: sa.Connection, jobs: JobBoard, batch: _Row, after: int, failed_until: str, now: datetime
) -> None:
    number = batch.num_retries + 1
    connection.execute(batches.update().where(batches.c.id == batch.id).values(num_retries=number, updated_at=now))
    jobs.enqueue(connection, ENQUEUE_RETRIES, f"retry:{batch.id}:{number}", batch.id, after, failed_until)


def _set_status(connection: sa.Connection, batch_id: str, status: BatchStatus, now: datetime) -> None:
    connection.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.status != status.value)
        .values(status=status.value, updated_at=now)
    )


def _refusal(connection: sa.Connection, here: sa.ColumnElement[bool], message_id: str) -> Refusal:
    query = sa.select(messages.c.latest_status).where(here)
    status = connection.execute(query).scalar_one()
    if status == MessageStatus.FAILURE.value:
        return Refusal("retries_used_up", f"{message_id} was retried {MOST_RETRIES} times already.")
    return Refusal("not_failure", f"{message_id} has not failed: it is {status}.")


def _note(
    connection: sa.Connection,
    action: str,
    subject: str,
    campaign_id: str,
    detail: Mapping[str, int],
    *,
    actor: str,
    now: datetime,
) -> None:
    audit.record(
        connection, at=now, actor=actor, action=action, subject=subject, campaign_id=campaign_id, detail=detail
    )
