"""Uploads on their way into the ledger: received with a job, held with a notice, or refused at the gate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postern.model import NoticeKind, Upload, UploadStatus
from storage.database import Database
from storage.jobs import PROCESS_UPLOAD, JobBoard
from storage.ledger.notices import add_notice
from storage.ledger.uploads import first_upload, is_one_of, lock_campaign, tell_owner
from storage.tables import notices, uploads

REFUSAL_INTERVAL = timedelta(hours=1)  # one mail a campaign and file name in this time
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
    tell_owner(database, connection, jobs, held.id, NoticeKind.HELD, context=context, now=holding.now)
    return held.status


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
    is_repeat = sa.and_(
        uploads.c.campaign_id == upload.campaign_id,
        uploads.c.sha256 == upload.sha256,
        uploads.c.id != upload.id,
        is_one_of(_HAPPENED),
        uploads.c.received_at > upload.received_at - window,
        uploads.c.received_at < last + window,
    )
    held_last = sa.case((uploads.c.status == UploadStatus.HELD.value, 1), else_=0)
    return first_upload(connection, is_repeat, held_last, uploads.c.received_at.desc(), uploads.c.id)


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
