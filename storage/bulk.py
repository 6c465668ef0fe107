"""Many rows at the database's own speed: statements of many rows on SQLite, COPY on PostgreSQL.

What can be prepared is prepared before the transaction begins, so that it is short.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Any

import sqlalchemy as sa

from postern.errors import PosternError, TransientError

_ROWS_A_STATEMENT = 50  # on SQLite; one at a time takes half as long again
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}  # the backslash first

Insertion = Callable[[sa.Connection], None]


def insertion(
    dialect: sa.Dialect, table: sa.Table, columns: Mapping[str, Sequence[Any]], constants: Mapping[str, Any]
) -> Insertion:
    """What inserts rows in the transaction of the connection that it is called with.

    Args:
        dialect: the database's.
        table: the table. What it has besides these columns is null, or what the table says of a new row.
        columns: values by the name of the column, one for each row, as the driver takes them.
        constants: values that all rows have, as the driver takes them.
    """
    quote = dialect.identifier_preparer.quote
    names = ", ".join(quote(name) for name in (*constants, *columns))
    target = f"{quote(table.name)} ({names})"
    if dialect.name == "sqlite":
        return _statements(target, columns, list(constants.values()))
    return _copy(dialect, target, columns, list(constants.values()))


def as_driver_takes(dialect: sa.Dialect, column: sa.Column[Any], value: Any) -> Any:
    """A value of a column as its driver takes it."""
    process = column.type.dialect_impl(dialect).bind_processor(dialect)
    return value if process is None else process(value)


def _statements(target: str, columns: Mapping[str, Sequence[Any]], constants: list[Any]) -> Insertion:
    values = chain.from_iterable(zip(*columns.values(), strict=True))
    size = _ROWS_A_STATEMENT * len(columns)
    statements = []
    while found := tuple(islice(values, size)):
        statements.append((*constants, *found))
    rest = [statements.pop()] if statements and len(statements[-1]) < size + len(constants) else []

    def insert(connection: sa.Connection) -> None:
        for parameters in (statements, rest):
            if parameters:
                rows = (len(parameters[0]) - len(constants)) // len(columns)
                marks = _marks(rows, len(columns), len(constants))
                sql = f"INSERT INTO {target} VALUES {marks}"  # noqa: S608 - names and marks of ours
                connection.exec_driver_sql(sql, parameters)

    return insert


def _marks(rows: int, columns: int, constants: int) -> str:
    """Parameters by number: constants are bound once a statement."""
    shared = [f"?{number}" for number in range(1, constants + 1)]
    starts = range(constants + 1, constants + 1 + rows * columns, columns)
    return ", ".join(
        f"({', '.join([*shared, *(f'?{number}' for number in range(start, start + columns))])})" for start in starts
    )


def _copy(dialect: sa.Dialect, target: str, columns: Mapping[str, Sequence[Any]], constants: list[Any]) -> Insertion:
    shared = [repeat(_fields([value])[0]) for value in constants]
    lines = map("\t".join, zip(*shared, *map(_fields, columns.values())))  # noqa: B905 - constants have no end
    text = "\n".join(lines)

    def insert(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        try:
            with driver.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
                copy.write(text)
        except dialect.loaded_dbapi.OperationalError as error:
            raise TransientError(f"The database did not answer: {type(error).__name__}") from None
        except dialect.loaded_dbapi.Error as error:  # its text may hold values
            raise PosternError(f"The database refused rows: {type(error).__name__}") from None

    return insert


def _fields(values: Sequence[Any]) -> Sequence[str]:
    """Values in COPY's text format (PostgreSQL, COPY, "Text Format"); escaped all at once, three times as fast."""
    if not isinstance(values[0], str):
        return list(map(str, values))
    whole = "\0".join(values)  # which stands in no text: PostgreSQL has none
    if not any(character in whole for character in _ESCAPES):
        return values
    for character, escape in _ESCAPES.items():
        whole = whole.replace(character, escape)
    return whole.split("\0")
