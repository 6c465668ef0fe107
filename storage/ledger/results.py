"""What came of hand-overs: written under the token of their claim, many at once."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple

import sqlalchemy as sa

from postern.model import ErrorCode, MessageStatus
from postern.sms.clocks import FIRST_LOOK
from storage.ledger.moving import move_message, move_messages, still_open
from storage.lists import pairs
from storage.tables import attempts

_USUAL = (MessageStatus.SENT, MessageStatus.SENDING)  # what the provider took; `sending` in a load test
_IS_CONCLUDED = sa.and_(attempts.c.status == MessageStatus.FAILURE.value, attempts.c.inferred)
_WITHOUT_FINAL_REPORT = frozenset({MessageStatus.SENT, MessageStatus.SENT_TO_TELCO})


class Result(NamedTuple):
    """What came of handing over one attempt. A tuple, as `storage.ledger.claiming.Claimed`."""

    attempt_id: str
    status: MessageStatus  # sent, or what a look-up found; sending where the provider took it and will say no more
    external_id: str = ""
    error_code: ErrorCode | None = None
    error_note: str | None = None
    inferred: bool = False


def write_results(
    connection: sa.Connection,
    results: Sequence[tuple[str, Result]],
    *,
    now: datetime,
    handed_over: datetime | None = None,
) -> None:
    """Write what came of hand-overs, each under the token of its claim.

    A receipt may have been faster; then only the provider's id is added, and the time of sending where it is missing.
    What the provider never took has no time of sending.

    Args:
        connection: the transaction.
        results: tokens, and what came of attempts.
        now: the time.
        handed_over: when they were handed over, where that was not now; the clocks of what was taken run from then.
    """
    sent_at = handed_over or now
    usual = [pair for pair in results if pair[1].status in _USUAL and pair[1].external_id]
    written = _write_usual(connection, usual, sent_at, now)
    for token, result in results:
        if result.attempt_id not in written:
            _write_result(connection, token, result, sent_at, now)


def _write_usual(
    connection: sa.Connection, results: Sequence[tuple[str, Result]], sent_at: datetime, now: datetime
) -> set[str]:
    """Write what most come to, taken by the provider, in a few statements for all; returns whose attempts they were."""
    written: set[str] = set()
    for status in _USUAL:
        of_this = {result.attempt_id: (token, result) for token, result in results if result.status is status}
        open_ones = still_open(connection, {one: token for one, (token, _result) in of_this.items()}) if of_this else []
        if not open_ones:
            continue
        changes = {
            "taken": json.dumps({row.id: of_this[row.id][1].external_id for row in open_ones}),
            "to": status.value,
            "sent": sent_at,
            "due": sent_at + FIRST_LOOK if status in _WITHOUT_FINAL_REPORT else None,
            "now": now,
        }
        connection.execute(_taken(connection.dialect.name), changes)
        move_messages(connection, open_ones, status, now)
        written.update(row.id for row in open_ones)
    return written


@cache
def _taken(dialect: str) -> sa.Update:
    taken = pairs(dialect, "taken")
    return (
        attempts.update()
        .where(attempts.c.id == taken.c.key)
        .values(
            external_id=taken.c.value,
            status=sa.bindparam("to"),
            sent_at=sa.bindparam("sent"),
            due_at=sa.bindparam("due"),
            updated_at=sa.bindparam("now"),
        )
    )


def _write_result(connection: sa.Connection, token: str, result: Result, sent_at: datetime, now: datetime) -> None:
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
    elif result.status is MessageStatus.FAILURE and not result.inferred:
        _correct(connection, token, result, now)
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
        _ask_in_time(connection, token, result, sent_at)


def _correct(connection: sa.Connection, token: str, result: Result, now: datetime) -> None:
    """The provider's own refusal replaces a failure that was only concluded."""
    connection.execute(
        attempts.update()
        .where(attempts.c.id == result.attempt_id, attempts.c.claim == token, _IS_CONCLUDED)
        .values(
            error_type=result.error_code.type.value if result.error_code else None,
            error_code=result.error_code.value if result.error_code else None,
            error_note=result.error_note,
            external_id=result.external_id or attempts.c.external_id,
            inferred=False,
            updated_at=now,
        )
    )


def _ask_in_time(connection: sa.Connection, token: str, result: Result, sent_at: datetime) -> None:
    """Of an attempt that was given up too soon the provider is asked; its final word overrides that."""
    connection.execute(
        attempts.update()
        .where(
            attempts.c.id == result.attempt_id, attempts.c.claim == token, _IS_CONCLUDED, attempts.c.due_at.is_(None)
        )
        .values(due_at=sent_at + FIRST_LOOK)
    )
