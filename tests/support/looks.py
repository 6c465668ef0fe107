"""A look straight into a database, beside whatever runs on it: far cheaper than a command, so fit for polling."""

import sqlite3
from contextlib import closing
from typing import Any

SQLITE = "sqlite:///"


def look_into(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows that a statement gives; it can write nothing on SQLite."""
    if database_url.startswith(SQLITE):
        path = database_url.removeprefix(SQLITE)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(statement).fetchall()
    import psycopg  # noqa: PLC0415 - not where there is no PostgreSQL

    with psycopg.connect(database_url, autocommit=True) as server:
        return server.execute(statement).fetchall()  # type: ignore[call-overload,no-any-return]
