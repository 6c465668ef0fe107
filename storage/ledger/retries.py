"""Retries of failed messages that somebody asks for: the same message, a new attempt, never unasked.

Whoever asks sets a first slice of messages failure → created and leaves a job, which does the rest
(`storage.ledger.retry_slices`). A second retry of the batch is refused while one is on its way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postern.errors import Refusal
from postern.model import BatchStatus, ErrorCode, MessageStatus
from postern.sms.retrying import MOST_RETRIES
from storage.database import Database
from storage.jobs import JobBoard
from storage.ledger import audit
from storage.ledger.batches import get_batch
from storage.ledger.messages import Message, get_message
from storage.ledger.retry_slices import (
    HAS_FAILED,
    MAY_BE_RETRIED,
    SAME_MESSAGE,
    has_created,
    leave_retry,
    mark,
    retriable_batch,
    set_status,
)
from storage.tables import attempts, batches, messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What has failed of a batch and how it may be retried."""

    by_code: Mapping[ErrorCode, int]  # failures that may be retried, by their latest error
    inferred: int  # of these, failures of our own conclusion: a retry may deliver a second time
    used_up: int  # failures that were retried as often as may be
    failed_until: datetime | None  # when the last of those failed that may be retried

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
        batch = retriable_batch(connection, message.batch_id, message.campaign_id)
        here = sa.and_(messages.c.batch == batch.number, messages.c.row == message.row)
        changed = connection.execute(
            messages.update()
            .where(here, messages.c.latest_status == MessageStatus.FAILURE.value, MAY_BE_RETRIED)
            .values(latest_status=MessageStatus.CREATED.value, updated_at=now)
        )
        if changed.rowcount == 0:
            raise _refusal(connection, here, message_id)
        is_ours = sa.select(attempts.c.inferred).join(messages, SAME_MESSAGE)
        is_ours = is_ours.where(here, attempts.c.number == messages.c.num_attempts)
        if not may_repeat and connection.execute(is_ours).scalar_one_or_none():
            raise Refusal(
                "may_deliver_twice",
                f"Nobody knows whether {message_id} was delivered: its failure is our own conclusion. A retry may "
                "deliver it a second time. Say --yes if that may be.",
            )
        leave_retry(connection, jobs, batch, after=0, failed_until="", may_repeat=may_repeat, now=now)
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
        batch = retriable_batch(connection, batch_id, campaign_id)
        outlook = _outlook(connection, batch.number)
        is_under_way = has_created(connection, batch.number)
        if is_under_way:
            set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUING_FAILED, now)
        else:
            _check(batch_id, outlook, may_repeat=may_repeat)
            # The clock of whoever asks need not be that of the workers.
            until = outlook.failed_until or now
            last = mark(connection, batch.number, 0, until, may_repeat=may_repeat, now=now) or 0
            set_status(connection, batch.id, BatchStatus.MESSAGES_ENQUEUED, now)
            failed_until = until.isoformat()
            leave_retry(connection, jobs, batch, after=last, failed_until=failed_until, may_repeat=may_repeat, now=now)
            detail = {"messages": outlook.total, "usedUp": outlook.used_up, "inferred": outlook.inferred}
            _note(connection, "batch.retried", batch_id, campaign_id, detail, actor=actor, now=now)
    if is_under_way:
        raise Refusal(
            "retry_under_way",
            f"Messages of {batch_id} are still created: a retry of them is on its way. It was set "
            "messages_enqueuing_failed until that is through; try again then.",
        )
    return outlook


def _outlook(connection: sa.Connection, batch: int) -> Outlook:
    query = (
        sa.select(
            attempts.c.error_code,
            attempts.c.inferred,
            MAY_BE_RETRIED.label("may"),
            sa.func.count().label("count"),
            sa.func.max(messages.c.updated_at).label("until"),
        )
        .join(messages, SAME_MESSAGE)
        .where(attempts.c.batch == batch, HAS_FAILED)
        .group_by(attempts.c.error_code, attempts.c.inferred, "may")
    )
    by_code: dict[ErrorCode, int] = {}
    inferred = used_up = 0
    failed_until = None
    for code, is_ours, may, count, until in connection.execute(query):
        if not may:
            used_up += count
            continue
        key = ErrorCode(code) if code else ErrorCode.DELIVERY_UNKNOWN_ERROR
        by_code[key] = by_code.get(key, 0) + count
        inferred += count if is_ours else 0
        failed_until = max(filter(None, (failed_until, until)), default=None)
    return Outlook(by_code=by_code, inferred=inferred, used_up=used_up, failed_until=failed_until)


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
