"""How much work waits, and since when: for an operator, who asks why something has not happened yet."""

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from postern.model import UploadStatus
from storage.database import Database
from storage.ledger.notices import PENDING
from storage.ledger.uploads import OPEN, is_one_of
from storage.tables import notices, uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Things of a kind that wait."""

    what: str
    count: int
    since: datetime | None  # the oldest one; None where there are none


def waiting_in_ledger(database: Database) -> list[Waiting]:
    """Uploads without an outcome, uploads that a person has to decide on, and mails that are not sent."""
    held = uploads.c.status == UploadStatus.HELD.value
    queries = {
        "uploads": (uploads.c.received_at, is_one_of(OPEN)),
        "held uploads": (uploads.c.received_at, held),
        "mails": (notices.c.created_at, notices.c.status == PENDING),
    }
    with database.read() as connection:
        return [
            Waiting(what=what, count=row[0], since=row[1])
            for what, (since, condition) in queries.items()
            for row in connection.execute(sa.select(sa.func.count(), sa.func.min(since)).where(condition))
        ]


def waiting_jobs(database: Database) -> list[Waiting]:
    """The jobs of each queue that wait or run; queues where there are none are left out."""
    jobs = sa.table(
        "workflow_status",
        sa.column("queue_name"),
        sa.column("status"),
        sa.column("created_at"),
        schema=None if database.is_sqlite else "dbos",
    )
    query = (
        sa.select(jobs.c.queue_name, sa.func.count(), sa.func.min(jobs.c.created_at))
        .where(jobs.c.status.in_(["ENQUEUED", "PENDING", "DELAYED"]), jobs.c.queue_name.is_not(None))
        .group_by(jobs.c.queue_name)
        .order_by(jobs.c.queue_name)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Waiting(what=row[0], count=row[1], since=datetime.fromtimestamp(row[2] / 1000, UTC)) for row in rows]
