"""Batches that are cancelled, and what was not handed over of them or of a deleted campaign: it ends as a failure.

Cancelling is one small transaction; from then on nothing is claimed. A job ends the waiting messages in commits of a
bounded size. What is `sending` just then ends by its own result, and what its sender puts back is ended by that
sender (`dispatch.workflow`), or by the reconciler where that one failed.
"""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postern.errors import Refusal
from postern.model import BatchStatus, ErrorCode, IdKind, MessageStatus, new_id
from storage.database import Database
from storage.jobs import END_UNSENT, JobBoard
from storage.ledger import audit
from storage.ledger.batches import IS_SENDABLE, Batch, get_batch
from storage.ledger.moving import WAITING
from storage.lists import at_rows, these_rows
from storage.tables import attempts, batches, campaigns, messages

NOBODY = ""  # the provider of an attempt that was not handed over
_SPAN = 2_000  # rows of a commit; about 50 ms under SQLite's write lock
_CANCELLED = "Its batch was cancelled before this message was handed over. It was not sent."
_DELETED = "Its campaign was deleted before this message was handed over. It was not sent."


class Stopped(NamedTuple):
    """A batch of which nothing more is sent."""

    number: int
    first_row: int
    last_row: int
    why: str


def cancel_batch(database: Database, jobs: JobBoard, batch_id: str, *, actor: str, now: datetime) -> Batch:
    """Let nothing more of a batch be handed over; final.

    Returns:
        the batch.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it was cancelled before, or nothing of it was released yet.
    """
    batch = get_batch(database, batch_id)
    with database.write() as connection:
        changed = connection.execute(
            batches.update()
            .where(batches.c.id == batch_id, IS_SENDABLE)
            .values(status=BatchStatus.CANCELLED.value, updated_at=now)
        )
        if changed.rowcount == 0:
            raise _refusal(connection, batch_id)
        jobs.enqueue(connection, END_UNSENT, f"end:{batch_id}", batch_id)
        audit.record(
            connection,
            at=now,
            actor=actor,
            action="batch.cancelled",
            subject=batch_id,
            campaign_id=batch.campaign_id,
        )
    return get_batch(database, batch_id)


def batches_to_end(database: Database, subject_id: str) -> list[str]:
    """The batches that a job is about: the one with that id, or all of the campaign with that id."""
    query = sa.select(batches.c.id).where(sa.or_(batches.c.id == subject_id, batches.c.campaign_id == subject_id))
    with database.read() as connection:
        return list(connection.execute(query.order_by(batches.c.number)).scalars())


def find_stopped(database: Database, batch_id: str) -> Stopped | None:
    """What has to be known of a batch to end its messages; None where they may still be sent, or never were to be."""
    query = (
        sa.select(batches.c.number, batches.c.first_row, batches.c.last_row, batches.c.status, campaigns.c.deleted_at)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(batches.c.id == batch_id)
    )
    with database.read() as connection:
        batch = connection.execute(query).one()
    is_cancelled = batch.status == BatchStatus.CANCELLED.value
    if not is_cancelled and batch.deleted_at is None:
        return None
    return Stopped(batch.number, batch.first_row, batch.last_row, _CANCELLED if is_cancelled else _DELETED)


def end_unsent(database: Database, stopped: Stopped, first_row: int, last_row: int, *, now: datetime) -> int:
    """End what waits among the first rows of a range: created or enqueued → failure, with an attempt that says why.

    Returns:
        the last row that it has looked at.
    """
    until = min(first_row + _SPAN - 1, last_row)
    query = (
        sa.select(messages.c.row, messages.c.num_attempts)
        .where(
            messages.c.batch == stopped.number,
            messages.c.row.between(first_row, until),
            messages.c.latest_status.in_(WAITING),
        )
        .order_by(messages.c.row)
        .with_for_update()  # not skipped: whoever claims some of them just now is waited for
    )
    with database.write() as connection:
        found = connection.execute(query).all()
        if found:
            connection.execute(attempts.insert(), [_attempt(stopped, row, number + 1, now) for row, number in found])
            connection.execute(
                messages.update()
                .where(messages.c.batch == stopped.number, at_rows(connection.dialect.name, messages.c.row))
                .values(
                    latest_status=MessageStatus.FAILURE.value, num_attempts=messages.c.num_attempts + 1, updated_at=now
                ),
                these_rows(connection, [row for row, _number in found]),
            )
    return until


def end_rows(database: Database, batch_id: str, rows: tuple[int, int], *, now: datetime) -> None:
    """End what waits among a chunk's rows where nothing of its batch is sent any more; else do nothing."""
    stopped = find_stopped(database, batch_id)
    if stopped is not None:
        row = rows[0]
        while row <= rows[1]:
            row = 1 + end_unsent(database, stopped, row, rows[1], now=now)


def _attempt(stopped: Stopped, row: int, number: int, now: datetime) -> dict[str, object]:
    code = ErrorCode.SERVER_UNKNOWN_ERROR
    return {
        "id": new_id(IdKind.ATTEMPT),
        "batch": stopped.number,
        "row": row,
        "number": number,
        "status": MessageStatus.FAILURE.value,
        "claim": "",
        "provider": NOBODY,
        "external_id": "",
        "error_type": code.type.value,
        "error_code": code.value,
        "error_note": stopped.why,
        "inferred": False,
        "created_at": now,
        "updated_at": now,
    }


def _refusal(connection: sa.Connection, batch_id: str) -> Refusal:
    status = connection.execute(sa.select(batches.c.status).where(batches.c.id == batch_id)).scalar_one()
    if status == BatchStatus.CANCELLED.value:
        return Refusal("already_cancelled", f"{batch_id} was cancelled before.")
    return Refusal("not_enqueued", f"Nothing of {batch_id} is being sent: it is {status}.")
