"""The messages of a batch, written in commits of a bounded size, so that nobody waits long for SQLite's write lock.

A row says only what differs from row to row: its id follows from batch and row, and what all have in common is what
the table says of a new row. A batch that has left `messages_enqueuing` gets no more rows, whoever still writes them.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa

from postern.model import BatchStatus
from postern.overlap import ahead
from storage.database import Database
from storage.ledger.additions import Addition, add, addition
from storage.tables import batches, messages

ROWS_A_COMMIT = 10_000  # about 30 ms under SQLite's write lock


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


def write_messages(database: Database, *, batch_id: str, parts: Iterable[NewMessages]) -> Written:
    """Write a batch's messages, a commit for each part.

    They are written `enqueued` at once: nobody looks at them before the batch is, and a second status would
    double the writing.

    Args:
        database: the database.
        batch_id: a batch that is there.
        parts: all of its rows, at most `ROWS_A_COMMIT` in each part; those that are there already stay as they are.

    Returns:
        what it took.
    """
    with database.read() as connection:
        batch = connection.execute(sa.select(batches.c.number).where(batches.c.id == batch_id)).scalar_one()
    commits, longest = 0, 0.0
    with ThreadPoolExecutor(1) as pool:
        for new in ahead(pool, _prepared(database, batch, parts)):
            start = time.perf_counter()
            add(database, new, only_while=BatchStatus.MESSAGES_ENQUEUING)
            commits, longest = commits + 1, max(longest, time.perf_counter() - start)
    return Written(commits=commits, longest=longest)


def _prepared(database: Database, batch: int, parts: Iterable[NewMessages]) -> Iterator[Addition]:
    for part in parts:
        yield addition(database, batch, messages.c.row, part._asdict())
