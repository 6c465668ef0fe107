"""How a message follows its latest attempt."""

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
