"""What the ledger says is not finished, so that somebody has to be at it: the other side of the engine's jobs."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postern.model import BatchStatus, MessageStatus, NoticeKind, UploadStatus
from storage.database import Database
from storage.ledger.batches import IS_SENDABLE
from storage.ledger.notices import PENDING
from storage.tables import attempts, batches, campaigns, messages, notices, uploads

_OPEN_UPLOADS = (UploadStatus.RECEIVED.value, UploadStatus.VALIDATING.value)


class SendingBatch(NamedTuple):
    """A batch that may have messages to be sent."""

    id: str
    number: int
    rate: float  # of its campaign
    updated_at: datetime


def open_uploads(database: Database, *, before: datetime, most: int) -> list[str]:
    """Uploads that came in before that time and have no outcome, oldest first."""
    query = sa.select(uploads.c.id).where(uploads.c.status.in_(_OPEN_UPLOADS), uploads.c.received_at < before)
    return _ids(database, query.order_by(uploads.c.received_at).limit(most))


def pending_notices(database: Database, *, before: datetime, most: int) -> list[str]:
    """Mails in the outbox since before that time, oldest first."""
    query = sa.select(notices.c.id).where(notices.c.status == PENDING, notices.c.created_at < before)
    return _ids(database, query.order_by(notices.c.created_at).limit(most))


def unindexed_batches(database: Database, *, before: datetime, most: int) -> list[str]:
    """Batches that get no more messages and whose index of ids is not complete."""
    query = sa.select(batches.c.id).where(
        batches.c.status != BatchStatus.MESSAGES_ENQUEUING.value,
        batches.c.is_indexed.is_(False),
        batches.c.updated_at < before,
    )
    return _ids(database, query.order_by(batches.c.number).limit(most))


def rejected_lately(database: Database, *, after: datetime, before: datetime, most: int) -> list[str]:
    """Uploads that were rejected between those times and whose mail offers a workbook."""
    query = (
        sa.select(uploads.c.id, notices.c.context)
        .join(notices, notices.c.upload_id == uploads.c.id)
        .where(
            uploads.c.status == UploadStatus.REJECTED.value,
            uploads.c.finished_at.between(after, before),
            notices.c.kind == NoticeKind.REJECTED.value,
        )
        .order_by(uploads.c.finished_at)
        .limit(most)
    )
    with database.read() as connection:
        return [row.id for row in connection.execute(query) if row.context.get("workbookURL")]


def sending_batches(database: Database, *, after: datetime, before: datetime, most: int) -> list[SendingBatch]:
    """Batches that were enqueued and last changed between those times, of campaigns that are there and not paused."""
    query = (
        sa.select(batches.c.id, batches.c.number, campaigns.c.rate, batches.c.updated_at)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(
            IS_SENDABLE,
            batches.c.updated_at.between(after, before),
            campaigns.c.deleted_at.is_(None),
            campaigns.c.paused_at.is_(None),
        )
        .order_by(batches.c.updated_at.desc())
        .limit(most)
    )
    with database.read() as connection:
        return [SendingBatch(*row) for row in connection.execute(query)]


def retried_batches(database: Database, *, before: datetime, most: int) -> list[tuple[str, int]]:
    """Batches with messages that were set back to `created` before that time, and how often they were retried."""
    created = sa.literal(MessageStatus.CREATED.value, literal_execute=True)  # as its partial index wants it
    numbers = sa.select(messages.c.batch).where(messages.c.latest_status == created, messages.c.updated_at < before)
    query = (
        sa.select(batches.c.id, batches.c.num_retries)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(
            batches.c.number.in_(numbers.distinct()),
            IS_SENDABLE,
            campaigns.c.deleted_at.is_(None),
        )
        .order_by(batches.c.number)
        .limit(most)
    )
    with database.read() as connection:
        return [(row.id, row.num_retries) for row in connection.execute(query)]


def stopped_batches(database: Database, *, after: datetime, before: datetime, most: int) -> list[tuple[str, int]]:
    """Batches that were cancelled, or whose campaign was deleted, between those times: their ids and numbers."""
    is_cancelled = batches.c.status == BatchStatus.CANCELLED.value
    query = (
        sa.select(batches.c.id, batches.c.number)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(
            sa.or_(
                sa.and_(is_cancelled, batches.c.updated_at.between(after, before)),
                campaigns.c.deleted_at.between(after, before),
            )
        )
        .order_by(batches.c.number.desc())
        .limit(most)
    )
    with database.read() as connection:
        return [(row.id, row.number) for row in connection.execute(query)]


def has_waiting(database: Database, batch: int) -> bool:
    """Whether messages of a batch, by its number, have not been handed over."""
    waiting = [MessageStatus.CREATED.value, MessageStatus.ENQUEUED.value]
    query = sa.select(messages.c.row).where(messages.c.batch == batch, messages.c.latest_status.in_(waiting))
    with database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


def first_unsent_row(database: Database, batch: int) -> int | None:
    """The first row of a batch whose message still has to be handed over, or whose sender died; None if there is none.

    Args:
        database: the database.
        batch: the batch's number.
    """
    waiting = sa.select(sa.func.min(messages.c.row)).where(
        messages.c.batch == batch, messages.c.latest_status == MessageStatus.ENQUEUED.value
    )
    in_doubt = sa.select(sa.func.min(attempts.c.row)).where(
        attempts.c.batch == batch,
        attempts.c.status == MessageStatus.SENDING.value,
        attempts.c.external_id == "",  # else the provider has it
    )
    with database.read() as connection:
        found = [connection.execute(query).scalar_one() for query in (waiting, in_doubt)]
    return min((row for row in found if row is not None), default=None)


def _ids(database: Database, query: sa.Select[str]) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(query).scalars())
