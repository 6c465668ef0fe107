"""Claims: how a message leaves at most once per attempt, whatever dies when.

1. `claim` moves messages enqueued → sending and writes their attempts, in one commit, *before* anything is called.
2. What came of it is written under the claim's token (`storage.ledger.results`), so that a sender that woke up late
   and finds its attempt settled changes nothing. What was certainly not handed over goes back (`putting_back`).
3. Whoever runs a chunk again leaves to be settled what a dead sender left `sending` (`storage.ledger.doubts`). Those
   are never sent again: the provider is asked, and what it cannot tell becomes a failure that says so.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from postern.model import IdKind, MessageStatus, new_ids
from storage.bulk import as_driver_takes, insertion
from storage.database import Database
from storage.ledger.accounts import SendingAccount, begin_probe, end_probe, hold_circuit, leave_to_send
from storage.ledger.batches import IS_SENDABLE
from storage.ledger.message_ids import message_ids_of
from storage.ledger.paces import Pace, hold_paces, keep_pace
from storage.ledger.putting_back import put_back
from storage.lists import as_one, at_rows, rows_of, these_rows
from storage.tables import attempts, batches, campaigns, messages

_PAUSED = 0.5  # seconds until the next look at a campaign that is paused
_TAKEN = 0.05  # seconds until the next look at messages that another transaction has locked


class Claimed(NamedTuple):
    """A message that this claim, and nobody else, may hand to a provider, once.

    A tuple goes through a clerk's pipe in a third of a dataclass's time.
    """

    attempt_id: str
    message_id: str
    recipient: str
    language: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a call of `claim` got."""

    token: str
    messages: Sequence[Claimed]
    wait: float = 0.0  # seconds until the rates of campaign and account, and the account's circuit, allow more
    awaits_account: bool = False  # the account's rate holds this up, which others share
    last_row: int = 0  # of the messages
    is_probe: bool = False  # one message that goes ahead of the others, after its account took nothing
    is_done: bool = False  # nothing of these rows is left to be claimed


class _Waiting(NamedTuple):
    """A message that waits to be claimed."""

    row: int
    recipient: str
    language: str
    values: str
    num_attempts: int
    segments: int


# Statements are put together once: for a claim of some hundred messages that is a fifth of the interpreter's work.
_SENDABLE = (
    sa.select(batches.c.id, batches.c.number, batches.c.campaign_id, campaigns.c.paused_at)
    .join(campaigns, campaigns.c.id == batches.c.campaign_id)
    .where(batches.c.id == sa.bindparam("batch_id"), IS_SENDABLE, campaigns.c.deleted_at.is_(None))
)
_WAITS = sa.and_(
    messages.c.batch == sa.bindparam("batch"),
    messages.c.row.between(sa.bindparam("first_row"), sa.bindparam("last_row")),
    messages.c.latest_status == MessageStatus.ENQUEUED.value,
)
_ANY_LEFT = sa.select(messages.c.row).where(_WAITS).limit(1)


@cache
def _next(dialect: str) -> sa.Select[Any]:
    query = sa.select(*(messages.c[name] for name in _Waiting._fields)).where(_WAITS).order_by(messages.c.row)
    return as_one(dialect, query.limit(sa.bindparam("most")).with_for_update(skip_locked=True))


@cache
def _to_sending(dialect: str) -> sa.Update:
    return (
        messages.update()
        .where(messages.c.batch == sa.bindparam("of_batch"), at_rows(dialect, messages.c.row))
        .values(
            latest_status=MessageStatus.SENDING.value,
            num_attempts=messages.c.num_attempts + 1,
            updated_at=sa.bindparam("now"),
        )
    )


def claim(
    database: Database,
    *,
    batch_id: str,
    rows: tuple[int, int],
    rate: float,
    most: int,
    account: SendingAccount,
    now: datetime,
    borrow: float = 0.0,
    token: str = "",
    is_again: bool = False,
) -> Claim:
    """Claim up to `most` messages of a batch's rows, as many as the rates of campaign and account allow now.

    Both paces move, and the account's circuit is asked, in the same transaction; so several workers share them.

    Args:
        database: the database.
        batch_id: the batch.
        rows: the first and the last.
        rate: the campaign's, in messages a second.
        most: how many at once.
        account: who they are for.
        now: the time.
        borrow: seconds that something urgent may be ahead of its time.
        token: of this claim, as `new_token` makes it.
        is_again: it was tried before, and nobody knows whether that was committed: then that goes back first.
    """
    token = token or new_token("")
    with database.write() as connection:
        if is_again:
            _give_back(database, connection, token, batch_id, rows, rate, account, now)
        batch = _sendable_batch(connection, batch_id)
        found = _next_messages(connection, batch.number, rows, most) if batch else []
        if batch is None or not found:
            is_done = batch is None or not _is_any_left(connection, batch.number, rows)
            return Claim(token=token, messages=(), wait=_TAKEN, is_done=is_done)
        if batch.paused_at is not None:
            return Claim(token=token, messages=(), wait=_PAUSED)
        leave = leave_to_send(connection, account.circuit_id, now)
        if leave.wait > 0:
            return Claim(token=token, messages=(), wait=leave.wait)
        if leave.is_probe:
            found = found[:1]
        paces = _paces(batch.campaign_id, rate, account)
        segments = [row.segments for row in found]
        grant = keep_pace(database, connection, paces, segments, now.timestamp(), borrow=borrow)
        if not grant.count:
            return Claim(token=token, messages=(), wait=grant.wait, awaits_account=grant.held_by == account.id)
        if leave.is_probe:
            begin_probe(connection, account.circuit_id, now)
        taken = _take(connection, batch, found[: grant.count], token=token, account=account, now=now)
        last_row = found[grant.count - 1].row
        return Claim(token=token, messages=taken, wait=grant.wait, last_row=last_row, is_probe=leave.is_probe)


def give_back(
    database: Database,
    *,
    batch_id: str,
    rows: tuple[int, int],
    rate: float,
    account: SendingAccount,
    now: datetime,
    token: str,
) -> None:
    """Undo a claim of which nothing was handed over, whether it was made or not.

    Whoever makes it is gone, or has ended with it: one that begins only after this is not undone, and stays in doubt.

    Args:
        database: the database.
        batch_id: as the claim's.
        rows: as the claim's.
        rate: as the claim's.
        account: as the claim's.
        now: the time.
        token: the claim's.
    """
    with database.write() as connection:
        _give_back(database, connection, token, batch_id, rows, rate, account, now)


def new_token(worker: str) -> str:
    """What a claim is known by, and who makes it: a worker's executor id, or nothing where there is but one."""
    return f"{worker}.{uuid.uuid4().hex[:20]}" if worker else uuid.uuid4().hex


def worker_of(token: str) -> str:
    """Whose claim it is; nothing where that is not told."""
    return token.rpartition(".")[0]


def _campaign_of(connection: sa.Connection, batch_id: str) -> str:
    query = sa.select(batches.c.campaign_id).where(batches.c.id == batch_id)
    campaign_id: str = connection.execute(query).scalar_one()
    return campaign_id


def _give_back(
    database: Database,
    connection: sa.Connection,
    token: str,
    batch_id: str,
    rows: tuple[int, int],
    rate: float,
    account: SendingAccount,
    now: datetime,
) -> None:
    """Undo what was claimed under a token, once it is committed."""
    # The server may be at that still; it holds the circuit and the paces until then.
    hold_circuit(connection, account.circuit_id)
    hold_paces(database, connection, _paces(_campaign_of(connection, batch_id), rate, account))
    query = (
        sa.select(attempts.c.id)
        .join(batches, batches.c.number == attempts.c.batch)
        .where(batches.c.id == batch_id, attempts.c.row.between(*rows), attempts.c.claim == token)
    )
    claimed = [(token, attempt_id) for attempt_id in connection.execute(query).scalars()]
    if put_back(connection, claimed, now=now) == 1:  # it may have been a probe
        end_probe(connection, account.circuit_id)


def _paces(campaign_id: str, rate: float, account: SendingAccount) -> list[Pace]:
    own = Pace(id=campaign_id, rate=rate)
    if not account.rate:
        return [own]
    return [own, Pace(id=account.id, rate=account.rate, counts_segments=account.counts_segments)]


def _is_any_left(connection: sa.Connection, batch: int, rows: tuple[int, int]) -> bool:
    """Whether messages wait that another transaction has locked just now."""
    return connection.execute(_ANY_LEFT, _place(batch, rows)).first() is not None


def _sendable_batch(connection: sa.Connection, batch_id: str) -> sa.Row[str, int, str, datetime | None] | None:
    return connection.execute(_SENDABLE, {"batch_id": batch_id}).one_or_none()


def _next_messages(connection: sa.Connection, batch: int, rows: tuple[int, int], most: int) -> list[_Waiting]:
    query, parameters = _next(connection.dialect.name), {**_place(batch, rows), "most": most}
    return [_Waiting(*row) for row in rows_of(connection, query, parameters)]


def _place(batch: int, rows: tuple[int, int]) -> dict[str, int]:
    return {"batch": batch, "first_row": rows[0], "last_row": rows[1]}


def _take(
    connection: sa.Connection,
    batch: sa.Row[str, int, str, datetime | None],
    found: Sequence[_Waiting],
    *,
    token: str,
    account: SendingAccount,
    now: datetime,
) -> list[Claimed]:
    rows = [row.row for row in found]
    moved = {"of_batch": batch.number, **these_rows(connection, rows), "now": now}
    connection.execute(_to_sending(connection.dialect.name), moved)
    claimed = [
        Claimed(
            attempt_id=attempt_id,
            message_id=message_id,
            recipient=row.recipient,
            language=row.language,
            values=json.loads(row.values),
        )
        for row, attempt_id, message_id in zip(
            found, new_ids(IdKind.ATTEMPT, len(rows), now), message_ids_of(batch.id, rows), strict=True
        )
    ]
    at = as_driver_takes(connection.dialect, attempts.c.created_at, now)
    insert = insertion(
        connection.dialect,
        attempts,
        {
            "id": [message.attempt_id for message in claimed],
            "row": rows,
            "number": [row.num_attempts + 1 for row in found],
            "provider": [account.provider_of(message.recipient) for message in claimed],
        },
        {
            "batch": batch.number,
            "status": MessageStatus.SENDING.value,
            "claim": token,
            "external_id": "",
            "inferred": False,
            "created_at": at,
            "updated_at": at,
        },
    )
    insert(connection)
    return claimed
