"""Claims, results and receipts: how a message leaves at most once per attempt, whatever dies when.

1. `claim` moves messages enqueued → sending and writes their attempts, in one commit, *before* anything is called.
2. `record_results` writes what came of it, under the claim's token, so that a sender that woke up late and finds
   its attempt settled changes nothing.
3. Whoever runs a chunk again asks `open_attempts` for what a dead sender left `sending`. Those are never sent
   again: the provider is asked, and what it cannot tell becomes a failure that says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.model import ErrorCode, IdKind, MessageStatus, new_id
from postern.sms.clocks import FIRST_LOOK
from postern.sms.statuses import FINAL, accepts
from storage.database import Database
from storage.ledger.accounts import SendingAccount, begin_probe, keep_pace, leave_to_send
from storage.ledger.batches import IS_SENDABLE
from storage.ledger.message_ids import message_id_of
from storage.tables import attempts, batches, campaigns, messages

_PAUSED = 0.5  # seconds until the next look at a campaign that is paused
WAITING = [MessageStatus.CREATED.value, MessageStatus.ENQUEUED.value]  # to be handed over
_WITHOUT_FINAL_REPORT = frozenset({MessageStatus.SENT, MessageStatus.SENT_TO_TELCO})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A message that this claim, and nobody else, may hand to a provider, once."""

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
    is_probe: bool = False  # one message that goes ahead of the others, after its account took nothing
    is_done: bool = False  # nothing of these rows is left to be claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of handing over one attempt."""

    attempt_id: str
    status: MessageStatus  # sent, or what a look-up found; sending where the provider took it and will say no more
    external_id: str = ""
    error_code: ErrorCode | None = None
    error_note: str | None = None
    inferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a provider says later about an attempt."""

    attempt_id: str
    status: MessageStatus
    external_id: str = ""
    error_code: ErrorCode | None = None
    error_note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt of which nobody recorded whether it was handed over; its message, so that it can be asked about."""

    claimed: Claimed
    claim: str
    provider: str
    created_at: datetime


def claim(
    database: Database,
    *,
    batch_id: str,
    rows: tuple[int, int],
    rate: float,
    most: int,
    account: SendingAccount,
    now: datetime,
) -> Claim:
    """Claim up to `most` messages of a batch's rows, as many as the rates of campaign and account allow now.

    Both paces move, and the account's circuit is asked, in the same transaction; so several workers share them.
    """
    token = new_id(IdKind.USER).removeprefix(f"{IdKind.USER}_")
    with database.write() as connection:
        batch = _sendable_batch(connection, batch_id)
        found = _next_messages(connection, batch.number, rows, most) if batch else []
        if batch is None or not found:
            return Claim(token=token, messages=(), is_done=True)
        if batch.paused_at is not None:
            return Claim(token=token, messages=(), wait=_PAUSED)
        leave = leave_to_send(connection, account.circuit_id, now)
        if leave.is_probe:
            found = found[:1]
        paces = {batch.campaign_id: rate} | ({account.id: account.rate} if account.rate else {})
        wait = leave.wait or keep_pace(database, connection, paces, len(found), now)
        if wait > 0:
            return Claim(token=token, messages=(), wait=wait)
        if leave.is_probe:
            begin_probe(connection, account.circuit_id, now)
        taken = _take(connection, batch, found, token=token, account=account, now=now)
        return Claim(token=token, messages=taken, is_probe=leave.is_probe)


def _sendable_batch(connection: sa.Connection, batch_id: str) -> sa.Row[str, int, str, datetime | None] | None:
    query = (
        sa.select(batches.c.id, batches.c.number, batches.c.campaign_id, campaigns.c.paused_at)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(
            batches.c.id == batch_id,
            IS_SENDABLE,
            campaigns.c.deleted_at.is_(None),
        )
    )
    return connection.execute(query).one_or_none()


def _next_messages(connection: sa.Connection, batch: int, rows: tuple[int, int], most: int) -> Sequence[sa.RowMapping]:
    query = (
        sa.select(
            messages.c.row,
            messages.c.recipient,
            messages.c.language,
            messages.c["values"],
            messages.c.num_attempts,
        )
        .where(
            messages.c.batch == batch,
            messages.c.row.between(*rows),
            messages.c.latest_status == MessageStatus.ENQUEUED.value,
        )
        .order_by(messages.c.row)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).mappings().all()


def _take(
    connection: sa.Connection,
    batch: sa.Row[str, int, str, datetime | None],
    found: Sequence[sa.RowMapping],
    *,
    token: str,
    account: SendingAccount,
    now: datetime,
) -> list[Claimed]:
    connection.execute(
        messages.update()
        .where(messages.c.batch == batch.number, messages.c.row.in_([row["row"] for row in found]))
        .values(latest_status=MessageStatus.SENDING.value, num_attempts=messages.c.num_attempts + 1, updated_at=now)
    )
    claimed = [
        Claimed(
            attempt_id=new_id(IdKind.ATTEMPT),
            message_id=message_id_of(batch.id, row["row"]),
            recipient=row["recipient"],
            language=row["language"],
            values=json.loads(row["values"]),
        )
        for row in found
    ]
    connection.execute(
        attempts.insert(),
        [
            {
                "id": message.attempt_id,
                "batch": batch.number,
                "row": row["row"],
                "number": row["num_attempts"] + 1,
                "status": MessageStatus.SENDING.value,
                "claim": token,
                "provider": account.provider_of(message.recipient),
                "external_id": "",
                "inferred": False,
                "created_at": now,
                "updated_at": now,
            }
            for row, message in zip(found, claimed, strict=True)
        ],
    )
    return claimed


def record_results(
    database: Database, token: str, results: Sequence[Result], *, now: datetime, handed_over: datetime | None = None
) -> None:
    """Write what came of the hand-overs of one claim.

    A receipt may have been faster; then only the provider's id is added, and the time of sending where it is missing.
    What the provider never took has no time of sending.

    Args:
        database: the database.
        token: the claim's.
        results: what came of its attempts.
        now: the time.
        handed_over: when they were handed over, where that was not now; the clocks of what was taken run from then.
    """
    sent_at = handed_over or now
    with database.write() as connection:
        for result in results:
            is_taken = result.status is not MessageStatus.FAILURE or bool(result.external_id)
            settled = connection.execute(
                attempts.update()
                .where(
                    attempts.c.id == result.attempt_id,
                    attempts.c.claim == token,
                    attempts.c.status == MessageStatus.SENDING.value,
                )
                .values(
                    status=result.status.value,
                    external_id=result.external_id,
                    error_type=result.error_code.type.value if result.error_code else None,
                    error_code=result.error_code.value if result.error_code else None,
                    error_note=result.error_note,
                    inferred=result.inferred,
                    sent_at=sent_at if is_taken else None,
                    delivered_at=now if result.status is MessageStatus.SUCCESS else None,
                    due_at=sent_at + FIRST_LOOK if result.status in _WITHOUT_FINAL_REPORT else None,
                    updated_at=now,
                )
                .returning(attempts.c.batch, attempts.c.row, attempts.c.number)
            ).first()
            if settled is not None:
                move_message(connection, settled, result.status, now)
            elif result.external_id:
                connection.execute(
                    attempts.update()
                    .where(
                        attempts.c.id == result.attempt_id,
                        attempts.c.claim == token,
                        sa.or_(attempts.c.external_id == "", attempts.c.sent_at.is_(None)),
                    )
                    .values(
                        external_id=result.external_id,
                        sent_at=sa.func.coalesce(attempts.c.sent_at, sa.literal(sent_at, attempts.c.sent_at.type)),
                    )
                )


def open_attempts(database: Database, *, batch_id: str, rows: tuple[int, int]) -> list[OpenAttempt]:
    """The attempts of these rows that are `sending`; where nobody sends them now, a dead sender left them so."""
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
        .join(batches, batches.c.number == messages.c.batch)
        .where(
            batches.c.id == batch_id,
            messages.c.row.between(*rows),
            messages.c.latest_status == MessageStatus.SENDING.value,
            attempts.c.status == MessageStatus.SENDING.value,
            attempts.c.external_id == "",  # one that the provider named is with the provider
        )
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


def apply_receipts(database: Database, receipts: Sequence[Receipt], *, now: datetime) -> int:
    """Move attempts on by what the provider reports; late, repeated and out-of-order receipts change nothing.

    Returns:
        how many attempts moved.
    """
    moved = 0
    with database.write() as connection:
        for receipt in receipts:
            moved += _apply(connection, receipt, now)
    return moved


def _apply(connection: sa.Connection, receipt: Receipt, now: datetime) -> bool:
    current = connection.execute(
        sa.select(attempts.c.status, attempts.c.inferred, attempts.c.batch, attempts.c.row, attempts.c.number)
        .where(attempts.c.id == receipt.attempt_id)
        .with_for_update()
    ).first()
    if current is None or not accepts(MessageStatus(current.status), receipt.status, inferred=current.inferred):
        return False
    values: dict[str, object] = {
        "status": receipt.status.value,
        "error_type": receipt.error_code.type.value if receipt.error_code else None,
        "error_code": receipt.error_code.value if receipt.error_code else None,
        "error_note": receipt.error_note,
        "inferred": False,
        "sent_at": sa.func.coalesce(attempts.c.sent_at, attempts.c.created_at),  # a doubt that a receipt settles
        "due_at": None if receipt.status in FINAL else _due_at(now),
        "updated_at": now,
    }
    if receipt.external_id:
        values["external_id"] = receipt.external_id
    if receipt.status is MessageStatus.SUCCESS:
        values["delivered_at"] = now
    connection.execute(attempts.update().where(attempts.c.id == receipt.attempt_id).values(**values))
    move_message(connection, current, receipt.status, now)
    return True


def _due_at(now: datetime) -> sa.ColumnElement[datetime | None]:
    """When somebody looks for the final report, which is not this one, where that was not set before."""
    return sa.func.coalesce(attempts.c.due_at, sa.literal(now + FIRST_LOOK, attempts.c.due_at.type))


def move_message(
    connection: sa.Connection, attempt: sa.Row[*tuple[Any, ...]], status: MessageStatus, now: datetime
) -> None:
    """A message shows the status of its latest attempt; an older attempt's does not touch it.

    One that waits to be retried shows that, unless it is heard that it was delivered after all: then it is not sent
    a second time.
    """
    waits_to_be_retried = messages.c.latest_status.in_(WAITING)
    connection.execute(
        messages.update()
        .where(
            messages.c.batch == attempt.batch,
            messages.c.row == attempt.row,
            messages.c.num_attempts == attempt.number,
            sa.true() if status is MessageStatus.SUCCESS else ~waits_to_be_retried,
        )
        .values(latest_status=status.value, updated_at=now)
    )
