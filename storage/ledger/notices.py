"""The outbox of mails. A notice is written with the outcome it tells, and names its job in the same transaction."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import IdKind, Notice, NoticeKind, derived_id
from storage.database import Database
from storage.jobs import SEND_NOTICE, JobBoard
from storage.tables import notices

PENDING, SENT, FAILED = "pending", "sent", "failed"


def add_notice(
    database: Database,
    connection: sa.Connection,
    jobs: JobBoard,
    *,
    upload_id: str,
    kind: NoticeKind,
    recipient: str,
    context: Mapping[str, Any],
    now: datetime,
    again: int = 0,
) -> None:
    """Put a notice into the outbox, in the caller's transaction; the same upload and kind twice is one notice.

    `again`: the number of the retry whose outcome it tells once more; 0: there was none. The notice is sent a second
    time then, with the new context. One that still waits to be sent stays as it is, and tells of both.
    """
    notice_id = derived_id(IdKind.NOTICE, upload_id, kind)
    inserted = connection.execute(
        database.insert_ignore(notices)
        .values(
            id=notice_id,
            upload_id=upload_id,
            kind=kind.value,
            recipient=recipient,
            context=dict(context),
            status=PENDING,
            tries=0,
            created_at=now,
        )
        .returning(notices.c.id)
    ).first()
    if inserted is not None or not again:
        jobs.enqueue(connection, SEND_NOTICE, notice_id, notice_id)
        return
    renewed = connection.execute(
        notices.update()
        .where(notices.c.id == notice_id, notices.c.status != PENDING)
        .values(
            recipient=recipient,
            context=dict(context),
            status=PENDING,
            tries=0,
            created_at=now,
            sent_at=None,
            last_error=None,
        )
    )
    if renewed.rowcount:
        jobs.enqueue(connection, SEND_NOTICE, f"{notice_id}:{again}", notice_id)


def context_of(connection: sa.Connection, upload_id: str, kind: NoticeKind) -> dict[str, Any]:
    """What a notice tells about an upload, as the caller's transaction sees it; nothing where there is none."""
    query = sa.select(notices.c.context).where(notices.c.upload_id == upload_id, notices.c.kind == kind.value)
    return dict(connection.execute(query).scalar_one_or_none() or {})


def get_notice(database: Database, notice_id: str) -> Notice:
    """A notice of the outbox.

    Raises:
        NotFoundError: there is none with that id.
    """
    with database.read() as connection:
        row = connection.execute(sa.select(notices).where(notices.c.id == notice_id)).mappings().first()
    if row is None:
        raise NotFoundError("notice", notice_id)
    return Notice(
        id=row["id"],
        upload_id=row["upload_id"],
        kind=NoticeKind(row["kind"]),
        recipient=row["recipient"],
        context=row["context"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        is_settled=row["status"] != PENDING,
    )


def count_notices(database: Database) -> dict[str, int]:
    """How many notices there are of each status."""
    with database.read() as connection:
        rows = connection.execute(sa.select(notices.c.status, sa.func.count()).group_by(notices.c.status))
        return {status: count for status, count in rows}  # noqa: C416 - typed


def mark_sent(database: Database, notice_id: str, *, now: datetime) -> None:
    """The mail server has taken the mail."""
    _mark(database, notice_id, status=SENT, sent_at=now, last_error=None)


def mark_failed(database: Database, notice_id: str, *, error: str) -> None:
    """The mail server has refused the mail for good."""
    _mark(database, notice_id, status=FAILED, last_error=error)


def mark_tried(database: Database, notice_id: str, *, error: str) -> None:
    """The mail could not be delivered now; it will be tried again."""
    _mark(database, notice_id, last_error=error)


def _mark(database: Database, notice_id: str, **values: Any) -> None:
    with database.write() as connection:
        connection.execute(
            notices.update()
            .where(notices.c.id == notice_id, notices.c.status == PENDING)
            .values(tries=notices.c.tries + 1, **values)
        )
