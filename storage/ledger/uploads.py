"""Uploads in the ledger: received → validating → accepted | rejected | failed, or refused at the gate."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import BatchStatus, NoticeKind, Upload, UploadStatus, Verdict
from storage.database import Database
from storage.jobs import MAKE_WORKBOOK, PROCESS_UPLOAD, JobBoard
from storage.ledger.notices import add_notice
from storage.tables import batches, campaigns, enrolments, notices, uploads

REFUSAL_INTERVAL = timedelta(hours=1)  # one mail a campaign and file name in this time
_OPEN = (UploadStatus.RECEIVED.value, UploadStatus.VALIDATING.value)


def receive_upload(database: Database, jobs: JobBoard, upload: Upload) -> bool:
    """Record an upload whose bytes are in the blob store, together with the job that processes it.

    Returns:
        False when it was recorded before; then nothing changes.
    """
    with database.write() as connection:
        if not _insert(database, connection, upload):
            return False
        jobs.enqueue(connection, PROCESS_UPLOAD, upload.id, upload.id)
    return True


def refuse_upload(
    database: Database, jobs: JobBoard, upload: Upload, *, recipient: str | None, context: Mapping[str, Any]
) -> bool:
    """Record what the gate refused, and tell the owner, at most once an hour a campaign and file name.

    Returns:
        False when it was recorded before; then nothing changes.
    """
    with database.write() as connection:
        # One refusal of a campaign at a time, or gate hosts that tell of two at once would both mail.
        connection.execute(sa.select(campaigns.c.id).where(campaigns.c.id == upload.campaign_id).with_for_update())
        told = _told_lately(connection, upload)
        if not _insert(database, connection, upload):
            return False
        if recipient is not None and not told:
            add_notice(
                database,
                connection,
                jobs,
                upload_id=upload.id,
                kind=NoticeKind.REFUSED,
                recipient=recipient,
                context=context,
                now=upload.received_at,
            )
    return True


def _insert(database: Database, connection: sa.Connection, upload: Upload) -> bool:
    """Whether the upload is new. The row itself tells: PostgreSQL's driver does not count what INSERT wrote."""
    inserted = connection.execute(database.insert_ignore(uploads).values(**_values(upload)).returning(uploads.c.id))
    return inserted.first() is not None


def _told_lately(connection: sa.Connection, upload: Upload) -> bool:
    query = (
        sa.select(notices.c.id)
        .join(uploads, uploads.c.id == notices.c.upload_id)
        .where(
            notices.c.kind == NoticeKind.REFUSED.value,
            uploads.c.campaign_id == upload.campaign_id,
            uploads.c.file_name == upload.file_name,
            notices.c.created_at > upload.received_at - REFUSAL_INTERVAL,
        )
    )
    return connection.execute(query.limit(1)).first() is not None


def start_validation(database: Database, upload_id: str) -> Upload | None:
    """received → validating. An upload that is being validated already goes on: its worker died.

    Returns:
        the upload, or None when it has its outcome already.
    """
    with database.write() as connection:
        started = connection.execute(
            uploads.update()
            .where(uploads.c.id == upload_id, uploads.c.status.in_(_OPEN))
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
            _close_batch(connection, upload_id, now)
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
    """validating → failed: our fault, with a support id. False when it has its outcome already."""
    values = {"support_id": support_id, "reason": reason}
    with database.write() as connection:
        failed = finish(
            database, connection, jobs, upload_id, UploadStatus.FAILED, values=values, context=context, now=now
        )
        if failed:
            _close_batch(connection, upload_id, now)
    return failed


def _close_batch(connection: sa.Connection, upload_id: str, now: datetime) -> None:
    """Nothing more comes to what an earlier try has written of the upload's batch."""
    connection.execute(
        batches.update()
        .where(batches.c.upload_id == upload_id, batches.c.status == BatchStatus.MESSAGES_ENQUEUING.value)
        .values(status=BatchStatus.MESSAGES_ENQUEUING_FAILED.value, updated_at=now)
    )


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
) -> bool:
    """Give an open upload its outcome and its one outcome mail, in the caller's transaction."""
    finished = connection.execute(
        uploads.update()
        .where(uploads.c.id == upload_id, uploads.c.status.in_(_OPEN))
        .values(status=status.value, finished_at=now, **values)
    )
    if finished.rowcount == 0:
        return False
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
        kind=NoticeKind(status.value),
        recipient=recipient,
        context=context,
        now=now,
    )
    return True


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


def get_upload(database: Database, upload_id: str) -> Upload:
    """An upload.

    Raises:
        NotFoundError: there is none with that id.
    """
    found = _select(database, sa.or_(uploads.c.id == upload_id, uploads.c.support_id == upload_id), limit=1)
    if not found:
        raise NotFoundError("upload", upload_id)
    return found[0]


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
    query = (
        sa.select(uploads, batches.c.id.label("batch_id"))
        .outerjoin(batches, batches.c.upload_id == uploads.c.id)
        .where(condition)
        .order_by(uploads.c.received_at.desc(), uploads.c.id)
        .limit(limit)
    )
    with database.read() as connection:
        return [_upload(row) for row in connection.execute(query).mappings()]


def _values(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "campaign_id": upload.campaign_id,
        "enrolment_id": upload.enrolment_id,
        "file_name": upload.file_name,
        "size": upload.size,
        "sha256": upload.sha256,
        "peer": upload.peer,
        "key_fingerprint": upload.key_fingerprint,
        "status": upload.status.value,
        "reason": upload.reason,
        "blob_key": upload.blob_key,
        "received_at": upload.received_at,
        "finished_at": upload.finished_at,
    }


def _upload(row: sa.RowMapping) -> Upload:
    fields = dict(row)
    verdict = fields.pop("verdict") or {}
    return Upload(**{**fields, "status": UploadStatus(fields["status"]), "verdict": verdict})
