"""How a message follows its latest attempt."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from postern.model import MessageStatus
from storage.lists import among, as_one, at_rows, each_of_these_rows, listed, rows_of
from storage.tables import attempts, messages

WAITING = [MessageStatus.CREATED.value, MessageStatus.ENQUEUED.value]  # to be handed over


class OpenAttempt(NamedTuple):
    """An attempt whose outcome nobody has written yet."""

    id: str
    claim: str
    batch: int
    row: int
    number: int


def still_open(connection: sa.Connection, claims: Mapping[str, str]) -> list[OpenAttempt]:
    """Those of some attempts of which nothing was heard, and locks them.

    Args:
        connection: the transaction.
        claims: tokens by attempts; one whose claim is another's by now is left out.
    """
    query = _still_sending(connection.dialect.name)
    found = map(OpenAttempt._make, rows_of(connection, query, {"ids": listed(connection, claims)}))
    return [attempt for attempt in found if attempt.claim == claims[attempt.id]]


@cache
def _still_sending(dialect: str) -> sa.Select[Any]:
    query = (
        sa.select(*(attempts.c[name] for name in OpenAttempt._fields))
        .where(
            among(dialect, attempts.c.id, "ids"),
            attempts.c.status == MessageStatus.SENDING.value,
            attempts.c.external_id == "",
        )
        .order_by(attempts.c.batch, attempts.c.row)
        .with_for_update()
    )
    return as_one(dialect, query)


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


def move_messages(
    connection: sa.Connection, moved: Iterable[OpenAttempt], status: MessageStatus, now: datetime
) -> None:
    """The same for many that move on to one status, which is not the last one: a statement for those close together."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for attempt in moved:
        rows[attempt.batch, attempt.number].append(attempt.row)
    move = _move_many(connection.dialect.name)
    for (batch, number), some in rows.items():
        place = {"of_batch": batch, "of_number": number, "to": status.value, "now": now}
        connection.execute(move, [{**place, **these} for these in each_of_these_rows(connection, some)])


@cache
def _move_many(dialect: str) -> sa.Update:
    return (
        messages.update()
        .where(
            messages.c.batch == sa.bindparam("of_batch"),
            at_rows(dialect, messages.c.row),
            messages.c.num_attempts == sa.bindparam("of_number"),
            *(messages.c.latest_status != status for status in WAITING),  # `not_in` is for one execution at a time
        )
        .values(latest_status=sa.bindparam("to"), updated_at=sa.bindparam("now"))
    )
