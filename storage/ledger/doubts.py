"""Attempts of which nobody knows whether they were handed over: each gets a job that asks, and is settled once.

They are never sent again. What a provider has of the same text to the same recipient is theirs only where it can be
nobody else's: another row of the batch may be on its way to the same number.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postern.model import MessageStatus
from storage.database import Database
from storage.jobs import SETTLE_DOUBTS, JobBoard
from storage.ledger.claiming import Claimed
from storage.ledger.message_ids import message_id_of
from storage.ledger.moving import still_open
from storage.ledger.results import Result, write_results
from storage.tables import attempts, batches, messages

_AT_ONCE = 50  # attempts of a job
_IS_OPEN = sa.and_(
    attempts.c.status == MessageStatus.SENDING.value,
    attempts.c.external_id == "",  # one that the provider named is with the provider
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt of which nobody recorded whether it was handed over; its message, so that it can be asked about."""

    claimed: Claimed
    claim: str
    provider: str
    created_at: datetime


def leave_doubts(
    connection: sa.Connection, jobs: JobBoard, batch_id: str, attempt_ids: Sequence[str], *, is_told: bool
) -> None:
    """Leave jobs that settle these attempts of a batch. The same ones twice are one job.

    Args:
        connection: the transaction that makes them necessary.
        jobs: where to.
        batch_id: the batch.
        attempt_ids: its attempts.
        is_told: their senders are done with them and say that they do not know; else a sender may be at them still.
    """
    for start in range(0, len(attempt_ids), _AT_ONCE):
        some = sorted(attempt_ids[start : start + _AT_ONCE])
        digest = hashlib.sha256("".join([*some, str(is_told)]).encode()).hexdigest()[:16]
        job_id = f"doubts:{batch_id}:{digest}"
        # Those that are told need not wait behind others, which may wait for them.
        partition = f"{batch_id}:told" if is_told else batch_id
        jobs.enqueue(connection, SETTLE_DOUBTS, job_id, batch_id, some, is_told, partition=partition)


def doubt_what_is_open(database: Database, jobs: JobBoard, batch_id: str, rows: tuple[int, int]) -> int:
    """Leave jobs for what is `sending` of these rows, as a dead sender leaves it; returns how many attempts."""
    query = (
        sa.select(attempts.c.id)
        .join(batches, batches.c.number == attempts.c.batch)
        .where(batches.c.id == batch_id, attempts.c.row.between(*rows), _IS_OPEN)
        .order_by(attempts.c.row)
    )
    with database.read() as connection:
        found = connection.execute(query).scalars().all()
    if found:
        with database.write() as connection:
            leave_doubts(connection, jobs, batch_id, found, is_told=False)
    return len(found)


def open_attempts(database: Database, batch_id: str, attempt_ids: Collection[str]) -> list[OpenAttempt]:
    """Those of these attempts that are in doubt still."""
    query = (
        sa.select(
            attempts.c.id,
            attempts.c.row,
            attempts.c.claim,
            attempts.c.provider,
            attempts.c.created_at,
            messages.c.recipient,
            messages.c.language,
            messages.c["values"].label("parameters"),  # a row has a method `values`
        )
        .join(messages, sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row))
        .where(attempts.c.id.in_(attempt_ids), _IS_OPEN)
        .order_by(messages.c.row)
    )
    with database.read() as connection:
        return [
            OpenAttempt(
                claimed=Claimed(
                    attempt_id=row.id,
                    message_id=message_id_of(batch_id, row.row),
                    recipient=row.recipient,
                    language=row.language,
                    values=json.loads(row.parameters),
                ),
                claim=row.claim,
                provider=row.provider,
                created_at=row.created_at,
            )
            for row in connection.execute(query)
        ]


def is_open(database: Database, attempt_id: str) -> bool:
    """Whether nothing has been heard of an attempt since it was claimed."""
    query = sa.select(attempts.c.id).where(attempts.c.id == attempt_id, _IS_OPEN)
    with database.read() as connection:
        return connection.execute(query).first() is not None


def settle(
    database: Database,
    attempt: OpenAttempt,
    candidates: Sequence[Result],
    *,
    is_certain: bool = False,
    otherwise: Result | None,
    now: datetime,
) -> Result | None:
    """Record what became of an attempt in doubt, where that is clear.

    Args:
        database: the database.
        attempt: the attempt.
        candidates: what the provider has that may be it, the likeliest first.
        is_certain: the provider knows attempts by their ids, so it is it.
        otherwise: what to record where it is none of them; None: nothing yet.
        now: the time.

    Returns:
        what is recorded; None where the attempt stays open, or was open no more.
    """
    with database.write() as connection:
        if not database.is_sqlite:  # one settles at a time; what it took is seen by the next one
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('settling doubts', 2))"))
        if not still_open(connection, {attempt.claimed.attempt_id: attempt.claim}):
            otherwise = None  # something was heard meanwhile, or concluded; only what the provider has counts now
        free = _free(connection, attempt.claimed.attempt_id, candidates)
        is_clear = is_certain or len(free) > (_open_rivals(connection, attempt) if free else 0)
        result = free[0] if free and is_clear else otherwise
        if result is not None:
            write_results(connection, [(attempt.claim, result)], now=now, handed_over=attempt.created_at)
        return result


def _free(connection: sa.Connection, attempt_id: str, candidates: Sequence[Result]) -> list[Result]:
    """Those that are no other attempt's already."""
    ids = [one.external_id for one in candidates if one.external_id]
    is_named = attempts.c.external_id != sa.literal("", literal_execute=True)  # as its partial index wants it
    query = sa.select(attempts.c.external_id).where(
        is_named, attempts.c.external_id.in_(ids), attempts.c.id != attempt_id
    )
    taken = set(connection.execute(query).scalars())
    return [one for one in candidates if one.external_id not in taken]


def _open_rivals(connection: sa.Connection, attempt: OpenAttempt) -> int:
    """How many other attempts of its batch, of which nothing was heard either, go to the same recipient."""
    its_batch = sa.select(attempts.c.batch).where(attempts.c.id == attempt.claimed.attempt_id).scalar_subquery()
    query = (
        sa.select(sa.func.count())
        .select_from(messages)
        .join(attempts, sa.and_(attempts.c.batch == messages.c.batch, attempts.c.row == messages.c.row))
        .where(
            messages.c.batch == its_batch,
            messages.c.recipient == attempt.claimed.recipient,
            messages.c.latest_status == MessageStatus.SENDING.value,
            attempts.c.id != attempt.claimed.attempt_id,
            _IS_OPEN,
        )
    )
    return connection.execute(query).scalar_one()
