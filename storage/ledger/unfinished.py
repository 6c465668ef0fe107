"""What the ledger says is not finished, so that somebody has to be at it: the other side of the engine's jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postern.model import BatchStatus, IdKind, MessageStatus, NoticeKind, UploadStatus
from storage.database import Database
from storage.ledger.batches import IS_SENDABLE
from storage.ledger.notices import PENDING
from storage.tables import attempts, batches, campaigns, messages, notices, uploads

_HELD_OF = sa.select(uploads.c.campaign_id).where(uploads.c.status == UploadStatus.HELD.value)
_IS_OPEN = sa.exists().where(
    messages.c.batch == batches.c.number,
    messages.c.latest_status.in_([MessageStatus.ENQUEUED.value, MessageStatus.SENDING.value]),
)
_OPEN_UPLOADS = (UploadStatus.RECEIVED.value, UploadStatus.VALIDATING.value)


class OpenBatch(NamedTuple):
    """A batch that may have messages to be sent, or to be brought to an end."""

    id: str
    number: int
    campaign_id: str
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


def rejected_lately(
    database: Database, *, after: datetime, before: datetime, behind: str, most: int
) -> list[tuple[str, bool]]:
    """Uploads that were rejected between those times, by id from `behind` on, and whether their mail offers a workbook.

    `behind` is the last id that is left out, "" for none.
    """
    query = (
        sa.select(uploads.c.id, notices.c.context)
        .join(notices, notices.c.upload_id == uploads.c.id)
        .where(
            uploads.c.status == UploadStatus.REJECTED.value,
            uploads.c.finished_at.between(after, before),
            notices.c.kind == NoticeKind.REJECTED.value,
            uploads.c.id > behind,
        )
        .order_by(uploads.c.id)
        .limit(most)
    )
    with database.read() as connection:
        return [(row.id, bool(row.context.get("workbookURL"))) for row in connection.execute(query)]


def sending_batches(
    database: Database, *, after: datetime, before: datetime, below: int | None, most: int
) -> list[OpenBatch]:
    """Batches that were enqueued and last changed between those times, of campaigns that are there and not paused.

    From the last number below that one down; from the last of all, where it is None.
    """
    is_sending = sa.and_(
        IS_SENDABLE,
        batches.c.updated_at.between(after, before),
        campaigns.c.deleted_at.is_(None),
        campaigns.c.paused_at.is_(None),
        sa.or_(batches.c.upload_id.is_not(None), _IS_OPEN),  # single sends are many, and soon over
    )
    return _batches(database, is_sending, below, most)


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


def stopped_batches(
    database: Database, *, after: datetime, before: datetime, below: int | None, most: int
) -> list[OpenBatch]:
    """Batches that were cancelled, or whose campaign was deleted, between those times; in the same order."""
    is_stopped = sa.or_(
        sa.and_(
            batches.c.status == BatchStatus.CANCELLED.value,
            batches.c.updated_at.between(after, before),
        ),
        campaigns.c.deleted_at.between(after, before),
    )
    return _batches(database, is_stopped, below, most)


def deleted_with_held(database: Database, *, before: datetime, most: int) -> list[str]:
    """Campaigns that were deleted before that time, and of which uploads are held all the same."""
    query = (
        sa.select(campaigns.c.id)
        .where(campaigns.c.deleted_at < before, campaigns.c.id.in_(_HELD_OF))
        .order_by(campaigns.c.deleted_at)
    )
    return _ids(database, query.limit(most))


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
    with database.read() as connection:
        first_waiting = connection.execute(waiting).scalar_one()
    doubts = rows_in_doubt(database, batch)
    found = (first_waiting, doubts[0] if doubts else None)
    return min((row for row in found if row is not None), default=None)


def rows_in_doubt(database: Database, batch: int) -> tuple[int, int] | None:
    """The first and the last row of a batch, by its number, whose sender is at it, or died; None if there is none."""
    query = (
        sa.select(sa.func.min(attempts.c.row), sa.func.max(attempts.c.row))
        .join(messages, sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row))
        .where(
            attempts.c.batch == batch,
            attempts.c.status == MessageStatus.SENDING.value,
            attempts.c.external_id == "",  # else the provider has it
            messages.c.latest_status == MessageStatus.SENDING.value,
        )
    )
    with database.read() as connection:
        first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def is_finished(database: Database, subject_id: str) -> bool:
    """Whether nothing is left to be done about an upload, a notice, a batch or all batches of a campaign, by its id."""
    kind = subject_id.partition("_")[0]
    if kind == IdKind.UPLOAD:
        return not _ids(database, sa.select(uploads.c.id).where(_is(uploads, subject_id, _OPEN_UPLOADS)))
    if kind == IdKind.NOTICE:
        return not _ids(database, sa.select(notices.c.id).where(_is(notices, subject_id, [PENDING])))
    if kind not in (IdKind.BATCH, IdKind.CAMPAIGN):
        return False
    query = sa.select(batches.c.number, batches.c.is_indexed, batches.c.status).where(
        sa.or_(batches.c.id == subject_id, batches.c.campaign_id == subject_id)
    )
    of_deleted = sa.select(campaigns.c.id).where(campaigns.c.deleted_at.is_not(None), campaigns.c.id.in_(_HELD_OF))
    with database.read() as connection:
        found = connection.execute(query).all()
        has_held = connection.execute(of_deleted.where(campaigns.c.id == subject_id)).first() is not None
    return not has_held and all(
        (batch.is_indexed or batch.status == BatchStatus.MESSAGES_ENQUEUING.value)
        and not has_waiting(database, batch.number)
        and rows_in_doubt(database, batch.number) is None
        for batch in found
    )


def _is(table: sa.Table, row_id: str, statuses: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.id == row_id, table.c.status.in_(statuses))


def _batches(database: Database, condition: sa.ColumnElement[bool], below: int | None, most: int) -> list[OpenBatch]:
    query = (
        sa.select(batches.c.id, batches.c.number, batches.c.campaign_id, campaigns.c.rate, batches.c.updated_at)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(condition, sa.true() if below is None else batches.c.number < below)
        .order_by(batches.c.number.desc())
        .limit(most)
    )
    with database.read() as connection:
        return [OpenBatch(*row) for row in connection.execute(query)]


def _ids(database: Database, query: sa.Select[str]) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(query).scalars())
