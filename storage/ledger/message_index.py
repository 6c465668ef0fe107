"""The index of a batch's messages by their ids, written behind the batch: nobody waits for it.

Until it is complete `storage.ledger.messages` finds a message without it, so that a caller sees no difference. It is
written in the order of its key and in commits of a bounded size; what is there already stays (see
`storage.ledger.additions`), so it can be written twice, also by two workers at once.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from postern.model import BatchStatus
from storage.database import Database
from storage.ledger.additions import Columns, add, addition
from storage.ledger.message_ids import heads_of, uuids_of
from storage.tables import batches, message_ids, messages

_IDS_A_COMMIT = 40_000  # about 20 ms under SQLite's write lock
_IS_OPEN = batches.c.status == BatchStatus.MESSAGES_ENQUEUING.value  # it may get more messages

Rows = npt.NDArray[np.int64]


def index_messages(database: Database, batch_id: str) -> int:
    """Write the index of a batch, unless the batch may get more messages.

    Returns:
        how many messages were indexed; 0 where the index was complete before.
    """
    while (found := _unindexed(database, batch_id)) is not None:
        batch, rows = found
        for columns in _sorted_ids(batch_id, rows):
            add(database, addition(database, batch, message_ids.c.head, columns))
        if _complete(database, batch, len(rows)):
            return len(rows)
    return 0


def _unindexed(database: Database, batch_id: str) -> tuple[int, Rows] | None:
    """The number of a batch and the rows of its messages, or None where there is nothing to be done."""
    number = sa.select(batches.c.number).where(batches.c.id == batch_id, batches.c.is_indexed.is_(False), ~_IS_OPEN)
    with database.read() as connection:
        batch = connection.execute(number).scalar_one_or_none()
        if batch is None:
            return None
        rows = sa.select(messages.c.row).where(messages.c.batch == batch).order_by(messages.c.row)
        return batch, np.fromiter(connection.execute(rows).scalars(), np.int64)


def _sorted_ids(batch_id: str, rows: Rows) -> Iterator[Columns]:
    """The rows of the table `message_ids` in the order of its key."""
    heads = heads_of(uuids_of(batch_id, rows.tolist()))
    order = np.argsort(heads, kind="stable")
    for start in range(0, len(order), _IDS_A_COMMIT):
        here = order[start : start + _IDS_A_COMMIT]
        yield {"row": rows[here].tolist(), "head": heads[here].tolist()}


def _complete(database: Database, batch: int, count: int) -> bool:
    """Mark a batch as indexed; False where it has got messages since, as one does whose upload is tried again."""
    with database.write() as connection:
        connection.execute(sa.select(batches.c.id).where(batches.c.number == batch).with_for_update())
        messages_now = sa.select(sa.func.count()).select_from(messages).where(messages.c.batch == batch)
        is_same = connection.execute(messages_now).scalar_one() == count
        if is_same:
            connection.execute(batches.update().where(batches.c.number == batch, ~_IS_OPEN).values(is_indexed=True))
    return is_same
