"""The messages of a batch, written in commits of a bounded size, so that nobody waits long for SQLite's write lock.

Each commit first asks which of its rows are there already: a try that follows a crash goes on where the last one
stopped, and of two workers that write the same batch each finds what the other has committed. The batch's own row is
locked meanwhile (on SQLite the database is), so a row is never written twice.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from postern.model import MessageStatus
from postern.overlap import ahead
from storage.bulk import Insertion, insertion, stored
from storage.database import Database
from storage.ledger.message_ids import Uuids, heads_of, uuids_of
from storage.tables import batches, message_ids, messages

ROWS_A_COMMIT = 10_000  # of messages; about 30 ms under SQLite's write lock
_IDS_A_COMMIT = 40_000  # about 20 ms

Columns = Mapping[str, Sequence[Any]]  # values by the name of the column


class NewMessages(NamedTuple):
    """Rows of a valid file, ready to be messages: columns of one length, rows in order."""

    row: Sequence[int]
    recipient: Sequence[str]
    language: Sequence[str]
    values: Sequence[str]  # JSON objects
    segments: Sequence[int]


class Written(NamedTuple):
    """What it took to write the messages of a batch."""

    commits: int
    longest: float  # seconds of the longest of them, with the wait for its turn


def write_messages(database: Database, *, batch_id: str, parts: Iterable[NewMessages], now: datetime) -> Written:
    """Write a batch's messages, a commit for each part, and then where each of them stands by its id.

    They are written `enqueued` at once: nobody looks at them before the batch is, and a second status would
    double the writing.

    Args:
        database: the database.
        batch_id: a batch that is there.
        parts: all of its rows, at most `ROWS_A_COMMIT` in each part; those that are there already stay as they are.
        now: the time.

    Returns:
        what it took.
    """
    with database.read() as connection:
        batch = connection.execute(sa.select(batches.c.number).where(batches.c.id == batch_id)).scalar_one()
    at = stored(database.engine.dialect, messages.c.created_at, now)
    constants = {
        "batch": batch,
        "latest_status": MessageStatus.ENQUEUED.value,
        "num_attempts": 0,
        "created_at": at,
        "updated_at": at,
    }
    commits, longest = 0, 0.0
    with ThreadPoolExecutor(1) as pool:
        for addition in ahead(pool, _prepared(database, batch_id, parts, constants)):
            start = time.perf_counter()
            _add(database, addition)
            commits, longest = commits + 1, max(longest, time.perf_counter() - start)
    return Written(commits=commits, longest=longest)


def _prepared(
    database: Database, batch_id: str, parts: Iterable[NewMessages], constants: Mapping[str, Any]
) -> Iterator["_Addition"]:
    rows: list[npt.NDArray[np.int64]] = []
    heads: list[npt.NDArray[np.int64]] = []
    for part in parts:
        uuids = uuids_of(batch_id, part.row)
        with_ids = {**part._asdict(), "id": _stored(database, uuids)}
        yield _Addition.of(database, messages.c.row, with_ids, constants)
        rows.append(np.array(part.row, np.int64))
        heads.append(heads_of(uuids))
    for columns in _sorted_ids(rows, heads) if rows else ():
        yield _Addition.of(database, message_ids.c.head, columns, {"batch": constants["batch"]})


def _stored(database: Database, uuids: Uuids) -> list[bytes] | list[str]:
    """Ids as the driver stores them."""
    raw = uuids.tobytes()
    if database.is_sqlite:
        return [raw[start : start + 16] for start in range(0, len(raw), 16)]
    text = raw.hex()
    return [text[start : start + 32] for start in range(0, len(text), 32)]


def _sorted_ids(rows: list[npt.NDArray[np.int64]], heads: list[npt.NDArray[np.int64]]) -> Iterator[Columns]:
    """The rows of the table `message_ids` in the order of its key."""
    all_rows, all_heads = np.concatenate(rows), np.concatenate(heads)
    order = np.argsort(all_heads, kind="stable")
    for start in range(0, len(order), _IDS_A_COMMIT):
        here = order[start : start + _IDS_A_COMMIT]
        yield {"row": all_rows[here].tolist(), "head": all_heads[here].tolist()}


class _Addition(NamedTuple):
    """Rows of one batch and table for one commit, made ready before it begins."""

    key: sa.Column[Any]  # orders the rows
    columns: Columns  # `row` and `key` among them
    constants: Mapping[str, Any]  # `batch` among them
    insert: Insertion

    @classmethod
    def of(cls, database: Database, key: sa.Column[Any], columns: Columns, constants: Mapping[str, Any]) -> "_Addition":
        assert isinstance(key.table, sa.Table)
        return cls(key, columns, constants, insertion(database.engine.dialect, key.table, columns, constants))


def _add(database: Database, addition: _Addition) -> None:
    """Insert those rows that are not there yet, in one commit."""
    key, columns, constants, insert = addition
    batch, table = constants["batch"], key.table
    between = key.between(columns[key.name][0], columns[key.name][-1])
    with database.write() as connection:
        connection.execute(sa.select(batches.c.id).where(batches.c.number == batch).with_for_update())
        there = set(connection.execute(sa.select(table.c.row).where(table.c.batch == batch, between)).scalars())
        if not there:
            insert(connection)
        elif missing := [place for place, row in enumerate(columns["row"]) if row not in there]:
            rest = {name: [values[place] for place in missing] for name, values in columns.items()}
            _Addition.of(database, key, rest, constants).insert(connection)
