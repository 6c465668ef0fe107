"""How much work waits, and since when: for an operator, who asks why something has not happened yet."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import sqlalchemy as sa

from postern.model import IdKind, MessageStatus, UploadStatus
from storage.database import Database
from storage.ledger.batches import IS_SENDABLE
from storage.ledger.notices import PENDING
from storage.ledger.uploads import OPEN, is_one_of
from storage.tables import batches, messages, notices, uploads

_LIVE = ("ENQUEUED", "PENDING", "DELAYED")
_BATCH = f"{IdKind.BATCH}_"
_AT_ONCE = 500  # batches whose messages are counted by one query


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
    jobs = _jobs(database)
    query = (
        sa.select(jobs.c.queue_name, sa.func.count(), sa.func.min(jobs.c.created_at))
        .where(jobs.c.status.in_(_LIVE), jobs.c.queue_name.is_not(None))
        .group_by(jobs.c.queue_name)
        .order_by(jobs.c.queue_name)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Waiting(what=row[0], count=row[1], since=datetime.fromtimestamp(row[2] / 1000, UTC)) for row in rows]


def waiting_messages(database: Database, *, at_once: int = _AT_ONCE) -> Counter[str]:
    """How many messages wait to be handed over to a provider, by campaign.

    They are counted in the batches that jobs are about, for no index knows which of all messages wait.
    """
    jobs = _jobs(database)
    found: Counter[str] = Counter()
    with database.read() as connection:
        job_ids = connection.execute(sa.select(jobs.c.workflow_uuid).where(jobs.c.status.in_(_LIVE))).scalars()
        batch_ids = iter({part for job_id in job_ids for part in job_id.split(":") if part.startswith(_BATCH)})
        while some := list(islice(batch_ids, at_once)):
            for campaign_id, count in connection.execute(_waiting_in(some)):
                found[campaign_id] += count
    return found


def _waiting_in(batch_ids: list[str]) -> sa.Select[str, int]:
    waiting = [MessageStatus.CREATED.value, MessageStatus.ENQUEUED.value]
    return (
        sa.select(batches.c.campaign_id, sa.func.count())
        .join(messages, messages.c.batch == batches.c.number)
        .where(batches.c.id.in_(batch_ids), IS_SENDABLE, messages.c.latest_status.in_(waiting))
        .group_by(batches.c.campaign_id)
    )


def _jobs(database: Database) -> sa.TableClause:
    names = ("workflow_uuid", "queue_name", "status", "created_at")
    return sa.table("workflow_status", *map(sa.column, names), schema=None if database.is_sqlite else "dbos")
