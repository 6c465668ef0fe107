"""Uploads in the ledger: received or held, validating, accepted, rejected or failed, or refused at the gate.

What a person decides about one (release, drop, retry) is in `storage.ledger.decisions`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import BatchStatus, NoticeKind, Upload, UploadStatus, Verdict
from storage.database import Database
from storage.jobs import INDEX_MESSAGES, MAKE_WORKBOOK, PROCESS_UPLOAD, JobBoard
from storage.ledger.notices import add_notice
from storage.tables import batches, campaigns, enrolments, notices, uploads

REFUSAL_INTERVAL = timedelta(hours=1)  # one mail a campaign and file name in this time
OPEN = frozenset({UploadStatus.RECEIVED, UploadStatus.VALIDATING})
_HAPPENED = {  # what has happened to a file that holds its repeat; one that came to nothing never does
    UploadStatus.RECEIVED: "was being validated",
    UploadStatus.VALIDATING: "was being validated",
    UploadStatus.ACCEPTED: "was accepted",
    UploadStatus.HELD: "was held",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is held back, and how its owner is told."""

    window: timedelta  # in which the same bytes of a campaign are a probable repeat; none: no repeat is held
    context: Callable[[Upload, Upload | None], Mapping[str, Any]]  # of the notice; the upload, and what it repeats
    now: datetime


def receive_upload(
    database: Database, jobs: JobBoard, upload: Upload, holding: Holding | None = None
) -> UploadStatus | None:
    """Record an upload whose bytes are in the blob store, together with the job that processes it, or hold it.

    A probable repeat and a file that looks cut off are held: there is a notice then, and no job. One upload of a
    campaign is decided on at a time, so of the same bytes that come at once exactly one goes on.

    Args:
        database: the database.
        jobs: the job board.
        upload: the upload.
        holding: what is held back; None: nothing is.

    Returns:
        received or held, or None when it was recorded before; then nothing changes.
    """
    with database.write() as connection:
        if holding is None or not lock_campaign(connection, upload.campaign_id):
            return _let_on(database, connection, jobs, upload)
        earlier = find_repeated(connection, upload, holding.window)
        if earlier is None and not upload.is_cut_off:
            return _let_on(database, connection, jobs, upload)
        return _hold(database, connection, jobs, upload, earlier, holding)


def _let_on(database: Database, connection: sa.Connection, jobs: JobBoard, upload: Upload) -> UploadStatus | None:
    if not _insert(database, connection, upload):
        return None
    jobs.enqueue(connection, PROCESS_UPLOAD, upload.id, upload.id)
    return upload.status


def _hold(
    database: Database,
    connection: sa.Connection,
    jobs: JobBoard,
    upload: Upload,
    earlier: Upload | None,
    holding: Holding,
) -> UploadStatus | None:
    held = replace(
        upload,
        status=UploadStatus.HELD,
        held_at=holding.now,
        repeat_of=earlier.id if earlier else None,
        reason=_why_held(upload, earlier),
    )
    if not _insert(database, connection, held):
        return None
    context = holding.context(held, earlier)
    _tell_owner(database, connection, jobs, held.id, NoticeKind.HELD, context=context, now=holding.now)
    return held.status


def lock_campaign(connection: sa.Connection, campaign_id: str) -> bool:
    """Until the transaction ends, nobody else decides about uploads of a campaign (on SQLite nobody writes at all).

    Returns:
        False where it was deleted: then its uploads go the way on which they are dropped.
    """
    query = sa.select(campaigns.c.deleted_at).where(campaigns.c.id == campaign_id)
    return connection.execute(query.with_for_update(key_share=True)).scalar_one() is None


def find_repeated(
    connection: sa.Connection, upload: Upload, window: timedelta, *, now: datetime | None = None
) -> Upload | None:
    """The upload that this one repeats: rather one that goes on than one that is held, the newest of them.

    Under `lock_campaign`, or another one may be let on meanwhile.

    Args:
        connection: the caller's transaction.
        upload: the upload.
        window: how far the other one may be from it, either way, as a gate host's uploads may come late; none: no
            upload is a repeat.
        now: where the upload goes on only now, so that all that came since it did counts, too.
    """
    if not window:
        return None
    last = max(upload.received_at, now or upload.received_at)
    query = _query().where(
        uploads.c.campaign_id == upload.campaign_id,
        uploads.c.sha256 == upload.sha256,
        uploads.c.id != upload.id,
        is_one_of(_HAPPENED),
        uploads.c.received_at > upload.received_at - window,
        uploads.c.received_at < last + window,
    )
    held_last = sa.case((uploads.c.status == UploadStatus.HELD.value, 1), else_=0)
    found = connection.execute(query.order_by(held_last, uploads.c.received_at.desc(), uploads.c.id).limit(1))
    row = found.mappings().first()
    return None if row is None else _upload(row)


def _why_held(upload: Upload, earlier: Upload | None) -> str:
    reasons = []
    if earlier is not None:
        reasons.append(f"It has the same bytes as {earlier.id}, which {_HAPPENED[earlier.status]} when this one came.")
    if upload.is_cut_off:
        reasons.append("It looks cut off: no line end after its last record, and only full blocks were written.")
    return " ".join(reasons)


def refuse_upload(
    database: Database, jobs: JobBoard, upload: Upload, *, recipient: str | None, context: Mapping[str, Any]
) -> bool:
    """Record what the gate refused, and tell the owner, at most once an hour a campaign and file name.

    Returns:
        False when it was recorded before; then nothing changes.
    """
    with database.write() as connection:
        # One refusal of a campaign at a time, or gate hosts that tell of two at once would both mail.
        lock_campaign(connection, upload.campaign_id)
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
    _tell_owner(database, connection, jobs, upload_id, kind, context=context, now=now, again=tell_again)
    return True


def is_one_of(statuses: Collection[UploadStatus]) -> sa.ColumnElement[bool]:
    """The condition that an upload has one of these statuses."""
    return uploads.c.status.in_([status.value for status in statuses])


def _tell_owner(
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
        "is_cut_off": upload.is_cut_off,
        "repeat_of": upload.repeat_of,
        "received_at": upload.received_at,
        "held_at": upload.held_at,
        "finished_at": upload.finished_at,
    }


def _upload(row: sa.RowMapping) -> Upload:
    fields = dict(row)
    verdict = fields.pop("verdict") or {}
    return Upload(**{**fields, "status": UploadStatus(fields["status"]), "verdict": verdict})
