"""How a message follows its latest attempt."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postern.model import MessageStatus
from storage.tables import messages

WAITING = [MessageStatus.CREATED.value, MessageStatus.ENQUEUED.value]  # to be handed over


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
    connection: sa.Connection, attempts: Sequence[sa.Row[*tuple[Any, ...]]], status: MessageStatus, now: datetime
) -> None:
    """The same for many that move on to one status, which is not the last one, with a statement or two."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for attempt in attempts:
        rows[attempt.batch, attempt.number].append(attempt.row)
    for (batch, number), some in rows.items():
        connection.execute(
            messages.update()
            .where(
                messages.c.batch == batch,
                messages.c.row.in_(some),
                messages.c.num_attempts == number,
                messages.c.latest_status.not_in(WAITING),
            )
            .values(latest_status=status.value, updated_at=now)
        )
