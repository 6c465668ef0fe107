"""Many values as one parameter of a statement, so that it is the same statement however many they are.

With a parameter for each, SQLAlchemy and the driver put the statement together anew every time. And many rows as one
value, on SQLite: its driver lets go of the interpreter for each row, a busy event loop takes it, and a thread waits for
it hundreds of times.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

_NEAR = 200  # rows; to go through so many takes about as long as another statement


def among(dialect: str, column: sa.Column[Any], parameter: str) -> sa.ColumnElement[bool]:
    """Whether a column has one of the values that a parameter will hold, as `listed` makes it of them."""
    if dialect == "sqlite":
        each = sa.func.json_each(sa.bindparam(parameter, type_=sa.Text)).table_valued("value")
        return column.in_(sa.select(each.c.value))
    return column == sa.any_(sa.bindparam(parameter, type_=ARRAY(column.type)))


def listed(connection: sa.Connection, values: Collection[int] | Collection[str]) -> Any:
    """Numbers or texts as the parameter of `among`."""
    return json.dumps(list(values)) if connection.dialect.name == "sqlite" else list(values)


def at_rows(dialect: str, column: sa.Column[int]) -> sa.ColumnElement[bool]:
    """Whether a row of a batch is one of those that `these_rows` names.

    On PostgreSQL their bounds stand beside them: while its statistics do not know a batch yet, it takes it for small,
    and would go through all its rows for a few of them. SQLite looks up each, and with bounds it would not.
    """
    one_of_them = among(dialect, column, "rows")
    if dialect == "sqlite":
        return one_of_them
    return sa.and_(column.between(sa.bindparam("first_row"), sa.bindparam("last_row")), one_of_them)


def these_rows(connection: sa.Connection, rows: Collection[int]) -> dict[str, Any]:
    """Rows, one at least, as the parameters of `at_rows`."""
    bounds = {} if connection.dialect.name == "sqlite" else {"first_row": min(rows), "last_row": max(rows)}
    return {"rows": listed(connection, rows), **bounds}


def each_of_these_rows(connection: sa.Connection, rows: Collection[int]) -> Iterator[dict[str, Any]]:
    """The same for rows that may lie far apart, for one statement after another.

    On PostgreSQL rows that lie close together have one: it may go through all between their bounds, and compare each
    with all that are named.
    """
    if connection.dialect.name == "sqlite":
        yield these_rows(connection, rows)
        return
    near: list[int] = []
    for row in sorted(rows):
        if near and row - near[-1] > _NEAR:
            yield these_rows(connection, near)
            near = []
        near.append(row)
    yield these_rows(connection, near)


def pairs(dialect: str, parameter: str) -> sa.TableValuedAlias:
    """Texts by texts as a table with the columns `key` and `value`, of a parameter that holds a JSON object."""
    whole = sa.bindparam(parameter, type_=sa.Text)
    each = sa.func.json_each(whole) if dialect == "sqlite" else sa.func.json_each_text(sa.cast(whole, sa.JSON))
    return each.table_valued("key", "value")


def as_one(dialect: str, query: sa.Select[Any]) -> sa.Select[Any]:
    """A query of numbers and texts, for `rows_of`."""
    if dialect != "sqlite":
        return query
    found = query.subquery()
    return sa.select(sa.func.json_group_array(sa.func.json_array(*found.c)))


def rows_of(connection: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any]) -> list[Sequence[Any]]:
    """All rows of what `as_one` made of a query."""
    found = connection.execute(query, parameters)
    if connection.dialect.name != "sqlite":
        return [*found]
    rows: list[Sequence[Any]] = json.loads(found.scalar_one())
    return rows
