"""What becomes of attempts whose hand-over certainly did not happen: they wait again, as if nobody had claimed them."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from postern.model import MessageStatus
from storage.ledger.moving import still_open
from storage.tables import attempts, messages


def put_back(connection: sa.Connection, attempt_ids: Collection[tuple[str, str]], *, now: datetime) -> int:
    """sending → enqueued, for attempts that were certainly not handed over.

    They are used up by nothing and go. One that a receipt moved on, or whose claim is another's by now, stays.

    Args:
        connection: the transaction.
        attempt_ids: tokens of claims, and attempts.
        now: the time.

    Returns:
        how many messages wait again.
    """
    claims = {attempt_id: token for token, attempt_id in attempt_ids}
    if not claims:
        return 0
    gone = still_open(connection, claims)
    if gone:
        connection.execute(attempts.delete().where(attempts.c.id.in_([row.id for row in gone])))
        connection.execute(
            messages.update()
            .where(
                messages.c.batch == sa.bindparam("of_batch"),
                messages.c.row == sa.bindparam("of_row"),
                messages.c.num_attempts == sa.bindparam("of_number"),
                messages.c.latest_status == MessageStatus.SENDING.value,
            )
            .values(
                latest_status=MessageStatus.ENQUEUED.value, num_attempts=messages.c.num_attempts - 1, updated_at=now
            ),
            [{"of_batch": row.batch, "of_row": row.row, "of_number": row.number} for row in gone],
        )
    return len(gone)
