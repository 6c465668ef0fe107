"""What is decided about an upload outside its way: held → validating or dropped, failed → validating.

Each happens once, whoever presses twice: the transition names the status that it starts from, and who comes second is
told what became of the upload. The audit trail says who it was.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postern.errors import Refusal
from postern.model import BatchStatus, NoticeKind, Upload, UploadStatus
from storage.database import Database
from storage.jobs import PROCESS_UPLOAD, JobBoard
from storage.ledger import audit
from storage.ledger.notices import context_of
from storage.ledger.receiving import find_repeated
from storage.ledger.uploads import close_batch, finish, get_upload, is_one_of, lock_campaign, upload_in
from storage.tables import batches, campaigns, uploads

OWNER = "owner"  # who decides by the link in the hold notice
_SLICE = 50  # uploads that are dropped in one transaction
_CAMPAIGN_DELETED = "Its campaign was deleted."
_HELD, _FAILED = frozenset({UploadStatus.HELD}), frozenset({UploadStatus.FAILED})


def release_upload(database: Database, jobs: JobBoard, upload_id: str, *, actor: str, now: datetime) -> Upload:
    """held → validating, with the job that goes on. Nobody asks again whether it is a repeat.

    Returns:
        the upload.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it is not held, or its campaign was deleted.
    """
    upload = get_upload(database, upload_id)
    with database.write() as connection:
        _set_validating(connection, upload, _HELD, {"decided_at": now, "decided_by": actor})
        jobs.enqueue(connection, PROCESS_UPLOAD, upload.id, upload.id)
        _note(connection, upload, "released", actor=actor, now=now)
    return get_upload(database, upload.id)


def drop_upload(database: Database, jobs: JobBoard, upload_id: str, *, actor: str, now: datetime) -> Upload:
    """held → dropped, with its mail; final.

    Returns:
        the upload.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it is not held.
    """
    upload = get_upload(database, upload_id)
    why = "It was dropped by the link in the hold notice." if actor == OWNER else "An operator dropped it."
    with database.write() as connection:
        if not _drop_held(database, connection, jobs, upload, why=why, actor=actor, now=now):
            raise _refusal(connection, upload, UploadStatus.HELD)
    return get_upload(database, upload.id)


def retry_upload(
    database: Database,
    jobs: JobBoard,
    upload_id: str,
    *,
    window: timedelta,
    may_repeat: bool = False,
    actor: str,
    now: datetime,
) -> Upload:
    """failed → validating, with a job of its own. What the earlier try has left is found by its ids.

    Args:
        database: the database.
        jobs: the job board.
        upload_id: its id, or its support id.
        window: how long before it the same bytes of its campaign are a probable repeat, up to now; none: never.
        may_repeat: it goes on even so.
        actor: who wants it.
        now: the time.

    Returns:
        the upload. It keeps its support id, by which its owner may still ask for it.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it has not failed, its bytes are not kept any more, its campaign was deleted, or the same bytes went
            on, or are held, as another upload.
    """
    upload = get_upload(database, upload_id)
    number = upload.num_retries + 1
    with database.write() as connection:
        _set_validating(connection, upload, _FAILED, {"num_retries": number, "finished_at": None, "reason": None})
        if upload_in(connection, upload.id).blob_key is None:
            raise Refusal(
                "bytes_gone", f"The bytes of {upload.id} are not kept any more. Its owner can upload them again."
            )
        other = None if may_repeat else find_repeated(connection, upload, window, now=now)
        if other is not None:
            raise Refusal(
                "is_repeat",
                f"{other.id} of the same campaign has the same bytes, and is {other.status.value}. A retry of "
                f"{upload.id} may send all of it a second time. Say --yes if that may be.",
            )
        _reopen_batch(connection, upload, now)
        jobs.enqueue(connection, PROCESS_UPLOAD, f"{upload.id}:{number}", upload.id)
        _note(connection, upload, "retried", actor=actor, now=now)
    return get_upload(database, upload.id)


def drop_some_held(
    database: Database, connection: sa.Connection, jobs: JobBoard, *, campaign_id: str, actor: str, now: datetime
) -> bool:
    """Drop a slice of what is held of a campaign that is deleted, in the caller's transaction.

    Returns:
        whether that was all.
    """
    query = sa.select(uploads.c.id).where(uploads.c.campaign_id == campaign_id, is_one_of(_HELD))
    found = connection.execute(query.order_by(uploads.c.id).limit(_SLICE)).scalars().all()
    for upload_id in found:
        upload = upload_in(connection, upload_id)
        _drop_held(database, connection, jobs, upload, why=_CAMPAIGN_DELETED, actor=actor, now=now)
    return len(found) < _SLICE


def go_on_dropping(database: Database, jobs: JobBoard, subject_id: str, *, now: datetime) -> bool:
    """Drop one more slice of what is held of a deleted campaign, on behalf of who deleted it.

    Returns:
        whether that was all; True, too, where no campaign that was deleted has that id.
    """
    deleted = sa.select(campaigns.c.id).where(campaigns.c.id == subject_id, campaigns.c.deleted_at.is_not(None))
    with database.write() as connection:
        if connection.execute(deleted).first() is None:
            return True
        actor = audit.actor_of(connection, "campaign.deleted", subject_id)
        return drop_some_held(database, connection, jobs, campaign_id=subject_id, actor=actor, now=now)


def drop_open_upload(
    database: Database, jobs: JobBoard, upload: Upload, *, context: Mapping[str, Any], now: datetime
) -> bool:
    """received or validating → dropped, with its mail, because its campaign was deleted meanwhile.

    Returns:
        False when it has its outcome already.
    """
    told = {**context, "reason": _CAMPAIGN_DELETED}
    values = {"reason": _CAMPAIGN_DELETED}
    with database.write() as connection:
        dropped = finish(
            database, connection, jobs, upload.id, UploadStatus.DROPPED, values=values, context=told, now=now
        )
        if dropped:
            close_batch(connection, jobs, upload.id, now)
    return dropped


def _set_validating(
    connection: sa.Connection, upload: Upload, start: frozenset[UploadStatus], values: Mapping[str, Any]
) -> None:
    if not lock_campaign(connection, upload.campaign_id):
        raise Refusal("campaign_deleted", f"The campaign of {upload.id} was deleted; nothing more is sent for it.")
    changed = connection.execute(
        uploads.update()
        .where(uploads.c.id == upload.id, is_one_of(start))
        .values(status=UploadStatus.VALIDATING.value, **values)
    )
    if changed.rowcount == 0:
        (wanted,) = start
        raise _refusal(connection, upload, wanted)


def _drop_held(
    database: Database,
    connection: sa.Connection,
    jobs: JobBoard,
    upload: Upload,
    *,
    why: str,
    actor: str,
    now: datetime,
) -> bool:
    told = context_of(connection, upload.id, NoticeKind.HELD)
    dropped = finish(
        database,
        connection,
        jobs,
        upload.id,
        UploadStatus.DROPPED,
        values={"decided_at": now, "decided_by": actor, "reason": f"{upload.reason} {why}"},
        context={**told, "reason": why, "answers": NoticeKind.HELD.value},
        now=now,
        start=_HELD,
    )
    if dropped:
        _note(connection, upload, "dropped", actor=actor, now=now)
    return dropped


def _reopen_batch(connection: sa.Connection, upload: Upload, now: datetime) -> None:
    """Let what an earlier try has written of the batch be completed."""
    connection.execute(
        batches.update()
        .where(batches.c.upload_id == upload.id, batches.c.status == BatchStatus.MESSAGES_ENQUEUING_FAILED.value)
        .values(status=BatchStatus.MESSAGES_ENQUEUING.value, is_indexed=False, updated_at=now)
    )


def _note(connection: sa.Connection, upload: Upload, what: str, *, actor: str, now: datetime) -> None:
    audit.record(
        connection,
        at=now,
        actor=actor,
        action=f"upload.{what}",
        subject=upload.id,
        campaign_id=upload.campaign_id,
    )


def _refusal(connection: sa.Connection, upload: Upload, wanted: UploadStatus) -> Refusal:
    status = upload_in(connection, upload.id).status
    return Refusal(f"not_{wanted.value}", f"{upload.id} is not {wanted.value}: it is {status.value}.")
