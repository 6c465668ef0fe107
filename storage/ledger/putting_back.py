"""What becomes of attempts whose hand-over did not happen, or of which nobody knows whether it did."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from postern.model import MessageStatus
from storage.database import Database
from storage.tables import attempts, messages


def put_back(database: Database, token: str, attempt_ids: Collection[str], *, now: datetime) -> int:
    """sending → enqueued, for attempts that were certainly not handed over: as if nobody had claimed them.

    Their attempts are used up by nothing and go. One that a receipt moved on, or whose claim is another's by now,
    stays.

    Returns:
        how many messages wait again.
    """
    if not attempt_ids:
        return 0
    with database.write() as connection:
        gone = connection.execute(
            attempts.delete()
            .where(
                attempts.c.id.in_(attempt_ids),
                attempts.c.claim == token,
                attempts.c.status == MessageStatus.SENDING.value,
                attempts.c.external_id == "",
            )
            .returning(attempts.c.batch, attempts.c.row, attempts.c.number)
        ).all()
        for attempt in gone:
            connection.execute(
                messages.update()
                .where(
                    messages.c.batch == attempt.batch,
                    messages.c.row == attempt.row,
                    messages.c.num_attempts == attempt.number,
                    messages.c.latest_status == MessageStatus.SENDING.value,
                )
                .values(
                    latest_status=MessageStatus.ENQUEUED.value, num_attempts=messages.c.num_attempts - 1, updated_at=now
                )
            )
    return len(gone)


def is_open(database: Database, attempt_id: str) -> bool:
    """Whether nothing has been heard of an attempt since it was claimed."""
    query = sa.select(attempts.c.id).where(
        attempts.c.id == attempt_id,
        attempts.c.status == MessageStatus.SENDING.value,
        attempts.c.external_id == "",
    )
    with database.read() as connection:
        return connection.execute(query).first() is not None


def owned(database: Database, external_ids: Collection[str], *, but_by: str) -> set[str]:
    """Those of a provider's ids that belong to an attempt other than `but_by`."""
    query = sa.select(attempts.c.external_id).where(attempts.c.external_id.in_(external_ids), attempts.c.id != but_by)
    with database.read() as connection:
        return set(connection.execute(query).scalars())
