"""Uploads in the ledger: validating, then accepted, rejected or failed; and how they are looked up.

How they come in is in `storage.ledger.receiving`, what a person decides about one in `storage.ledger.decisions`.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import BatchStatus, NoticeKind, Upload, UploadStatus, Verdict
from storage.database import Database
from storage.jobs import INDEX_MESSAGES, MAKE_WORKBOOK, JobBoard
from storage.ledger.notices import add_notice
from storage.tables import batches, campaigns, enrolments, uploads

OPEN = frozenset({UploadStatus.RECEIVED, UploadStatus.VALIDATING})


def lock_campaign(connection: sa.Connection, campaign_id: str) -> bool:
    """Until the transaction ends, nobody else decides about uploads of a campaign (on SQLite nobody writes at all).

    Returns:
        False where it was deleted: then its uploads go the way on which they are dropped.
    """
    query = sa.select(campaigns.c.deleted_at).where(campaigns.c.id == campaign_id)
    return connection.execute(query.with_for_update(key_share=True)).scalar_one() is None


def start_validation(database: Database, upload_id: str) -> Upload | None:
    """received → validating. An upload that is being validated already goes on: its worker died.

    Returns:
        the upload, or None when it has its outcome already.
    """
    with database.write() as connection:
        started = connection.execute(
            uploads.update()
            .where(uploads.c.id == upload_id, is_one_of(OPEN))
            .values(status=UploadStatus.VALIDATING.value)
        )
        if started.rowcount == 0:
            return None
    return get_upload(database, upload_id)


def reject_upload(
    database: Database,
    jobs: JobBoard,
    upload_id: str,
    verdict: Verdict,
    *,
    report_key: str,
    report_url: str,
    context: Mapping[str, Any],
    now: datetime,
    has_workbook: bool = False,
) -> bool:
    """validating → rejected, with its verdict, report and notice. False when it has its outcome already.

    `has_workbook`: the report is to become a workbook, too; leaves the job that makes it.
    """
    values = {"report_key": report_key, "report_url": report_url, **verdict_values(verdict)}
    with database.write() as connection:
        rejected = finish(
            database, connection, jobs, upload_id, UploadStatus.REJECTED, values=values, context=context, now=now
        )
        if rejected:  # an earlier try may have judged it by other settings
            close_batch(connection, jobs, upload_id, now)
        if rejected and has_workbook:
            jobs.enqueue(connection, MAKE_WORKBOOK, f"workbook:{upload_id}", upload_id)
    return rejected


def fail_upload(
    database: Database,
    jobs: JobBoard,
    upload_id: str,
    *,
    support_id: str,
    reason: str,
    context: Mapping[str, Any],
    now: datetime,
) -> bool:
    """validating → failed: our fault, with a support id. False when it has its outcome already.

    Its mail is sent again where the failure is that of a retry.
    """
    values = {"support_id": support_id, "reason": reason}
    with database.write() as connection:
        tell_again = upload_in(connection, upload_id).num_retries
        failed = finish(
            database,
            connection,
            jobs,
            upload_id,
            UploadStatus.FAILED,
            values=values,
            context=context,
            now=now,
            tell_again=tell_again,
        )
        if failed:
            close_batch(connection, jobs, upload_id, now)
    return failed


def close_batch(connection: sa.Connection, jobs: JobBoard, upload_id: str, now: datetime) -> None:
    """Nothing more comes to what an earlier try has written of the upload's batch."""
    closed = connection.execute(
        batches.update()
        .where(batches.c.upload_id == upload_id, batches.c.status == BatchStatus.MESSAGES_ENQUEUING.value)
        .values(status=BatchStatus.MESSAGES_ENQUEUING_FAILED.value, updated_at=now)
        .returning(batches.c.id)
    )
    for batch_id in closed.scalars().all():
        jobs.enqueue(connection, INDEX_MESSAGES, f"index:{batch_id}:closed", batch_id)


def finish(
    database: Database,
    connection: sa.Connection,
    jobs: JobBoard,
    upload_id: str,
    status: UploadStatus,
    *,
    values: Mapping[str, Any],
    context: Mapping[str, Any],
    now: datetime,
    start: Collection[UploadStatus] = OPEN,
    tell_again: int = 0,
) -> bool:
    """Give an upload in a status of `start` its outcome and its one outcome mail, in the caller's transaction.

    `tell_again`: see `storage.ledger.notices.add_notice`.
    """
    finished = connection.execute(
        uploads.update()
        .where(uploads.c.id == upload_id, is_one_of(start))
        .values(status=status.value, finished_at=now, **values)
    )
    if finished.rowcount == 0:
        return False
    kind = NoticeKind(status.value)
    tell_owner(database, connection, jobs, upload_id, kind, context=context, now=now, again=tell_again)
    return True


def is_one_of(statuses: Collection[UploadStatus]) -> sa.ColumnElement[bool]:
    """The condition that an upload has one of these statuses."""
    return uploads.c.status.in_([status.value for status in statuses])


def tell_owner(
    database: Database,
    connection: sa.Connection,
    jobs: JobBoard,
    upload_id: str,
    kind: NoticeKind,
    *,
    context: Mapping[str, Any],
    now: datetime,
    again: int = 0,
) -> None:
    """Leave a mail to the owner of an upload, in the caller's transaction; see `storage.ledger.notices.add_notice`."""
    recipient = connection.execute(
        sa.select(enrolments.c.email)
        .join(uploads, uploads.c.enrolment_id == enrolments.c.id)
        .where(uploads.c.id == upload_id)
    ).scalar_one()
    add_notice(
        database,
        connection,
        jobs,
        upload_id=upload_id,
        kind=kind,
        recipient=recipient,
        context=context,
        now=now,
        again=again,
    )


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """The columns of an upload that its verdict fills."""
    return {
        "total_rows": verdict.total_rows,
        "num_rows": verdict.num_rows,
        "num_errors": verdict.num_errors,
        "has_avoidable_character": verdict.has_avoidable_character,
        "has_unicode": verdict.has_unicode,
        "verdict": verdict.as_json(),
    }


def is_recorded(database: Database, upload_id: str) -> bool:
    """Whether the ledger has an upload."""
    with database.read() as connection:
        return connection.execute(sa.select(uploads.c.id).where(uploads.c.id == upload_id)).first() is not None


def get_upload(database: Database, upload_id: str) -> Upload:
    """An upload.

    Raises:
        NotFoundError: there is none with that id.
    """
    found = _select(database, sa.or_(uploads.c.id == upload_id, uploads.c.support_id == upload_id), limit=1)
    if not found:
        raise NotFoundError("upload", upload_id)
    return found[0]


def upload_in(connection: sa.Connection, upload_id: str) -> Upload:
    """An upload that is there, as the caller's transaction sees it."""
    return _upload(connection.execute(_query().where(uploads.c.id == upload_id)).mappings().one())


def first_upload(
    connection: sa.Connection, condition: sa.ColumnElement[bool], *order: sa.ColumnElement[Any]
) -> Upload | None:
    """The first upload of those that meet a condition, as the caller's transaction sees it."""
    row = connection.execute(_query().where(condition).order_by(*order).limit(1)).mappings().first()
    return None if row is None else _upload(row)


def list_uploads(database: Database, *, campaign_id: str | None = None, limit: int = 100) -> list[Upload]:
    """The newest uploads, newest first."""
    condition = sa.true() if campaign_id is None else uploads.c.campaign_id == campaign_id
    return _select(database, condition, limit=limit)


def count_uploads(database: Database) -> dict[str, int]:
    """How many uploads there are of each status."""
    with database.read() as connection:
        rows = connection.execute(sa.select(uploads.c.status, sa.func.count()).group_by(uploads.c.status))
        return {status: count for status, count in rows}  # noqa: C416 - typed


def _select(database: Database, condition: sa.ColumnElement[bool], *, limit: int) -> list[Upload]:
    query = _query().where(condition).order_by(uploads.c.received_at.desc(), uploads.c.id).limit(limit)
    with database.read() as connection:
        return [_upload(row) for row in connection.execute(query).mappings()]


def _query() -> sa.Select[Any]:
    return sa.select(uploads, batches.c.id.label("batch_id")).outerjoin(batches, batches.c.upload_id == uploads.c.id)


def _upload(row: sa.RowMapping) -> Upload:
    fields = dict(row)
    verdict = fields.pop("verdict") or {}
    return Upload(**{**fields, "status": UploadStatus(fields["status"]), "verdict": verdict})
