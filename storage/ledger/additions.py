"""Rows of one batch for one commit, added where they are not there yet.

Each commit first asks which of its rows are there already: a try that follows a crash goes on where the last one
stopped, and of two workers that write the same batch each finds what the other has committed. The batch's own row is
locked meanwhile (on SQLite the database is), so a row is never written twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from postern.model import BatchStatus
from storage.bulk import Insertion, insertion
from storage.database import Database
from storage.tables import batches

Columns = Mapping[str, Sequence[Any]]  # values by the name of the column


class Addition(NamedTuple):
    """Rows of one batch and table for one commit, made ready before it begins."""

    batch: int  # its number
    key: sa.Column[Any]  # orders the rows
    columns: Columns  # `row` and `key` among them
    insert: Insertion


def addition(database: Database, batch: int, key: sa.Column[Any], columns: Columns) -> Addition:
    """Make rows ready. It takes as long as inserting them, so it is done before the transaction begins.

    Args:
        database: where they go.
        batch: the number of their batch.
        key: the column that orders the rows, of the table that they go to.
        columns: all that they have but the batch; `row` and the key among them.
    """
    assert isinstance(key.table, sa.Table)
    return Addition(batch, key, columns, insertion(database.engine.dialect, key.table, columns, {"batch": batch}))


def add(database: Database, new: Addition, *, only_while: BatchStatus | None = None) -> None:
    """Insert those rows that are not there yet, in one commit; none if the batch has another status."""
    table = new.key.table
    between = new.key.between(new.columns[new.key.name][0], new.columns[new.key.name][-1])
    with database.write() as connection:
        query = sa.select(batches.c.status).where(batches.c.number == new.batch).with_for_update()
        status = connection.execute(query).scalar_one()
        if only_while is not None and status != only_while.value:
            return
        there = set(connection.execute(sa.select(table.c.row).where(table.c.batch == new.batch, between)).scalars())
        if not there:
            new.insert(connection)
        elif missing := [place for place, row in enumerate(new.columns["row"]) if row not in there]:
            rest = {name: [values[place] for place in missing] for name, values in new.columns.items()}
            addition(database, new.batch, new.key, rest).insert(connection)
