"""The database: one engine, read transactions and write transactions, on SQLite or PostgreSQL.

On SQLite a write transaction takes the write lock when it begins (BEGIN IMMEDIATE), so that what it read is
still true when it writes; commits are synced to disk before they return (`synchronous=FULL`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from postern.errors import TransientError

_BUSY_TIMEOUT = 30_000  # ms; how long a writer waits for another one on SQLite
_CONNECT_TIMEOUT = 10  # s; a server that does not answer at all
# A host that vanishes says nothing. Both ends notice within about ten seconds: ours, so that nobody waits for a server
# that is gone; the server's, so that it ends the session and frees the locks of a worker that is gone. Keepalives are
# for a connection at rest, the user timeout for one with bytes under way (tcp(7)). libpq's are in s, but for the last.
_CLIENT_TCP = {
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",  # ms
}
_SERVER_TCP = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
)
_CHECKPOINT = (
    4_000  # pages of SQLite's log (16 MB) before a commit also moves them into the database; 1,000 by default,
)
# which a batch being written would reach with every other commit. Nobody else waits for it: the lock is free again.
_WRITE = "postern_write"
_ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class Database:
    """Connections to the database of Postern; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.path = sa.make_url(url).database or ""  # of SQLite's file; the name of a PostgreSQL database
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgresql_engine(url)
        # SQLite's transactions see one moment anyway; PostgreSQL's do so from REPEATABLE READ on.
        self._reading = self.engine if self.is_sqlite else self.engine.execution_options(**_ONE_MOMENT)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, of one moment."""
        with _translated(), self._reading.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that commits at the end of the block, or rolls back on an exception."""
        with (
            _translated(),
            self.engine.connect().execution_options(**{_WRITE: True}) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def session(self) -> Iterator[sa.Connection]:
        """A connection of PostgreSQL outside of any transaction, closed after the block with all locks that it has."""
        with _translated(), self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                yield connection
            finally:
                connection.invalidate()  # else the pool would keep it, and what it has locked

    def insert_ignore(self, table: sa.Table) -> Any:
        """An INSERT that leaves rows alone that are there already (same primary key or unique columns)."""
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415 - one dialect is loaded

            return sqlite_insert(table).on_conflict_do_nothing()
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415

        return postgresql_insert(table).on_conflict_do_nothing()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def server_url(url: str) -> str:
    """A database's URL with what makes a connection notice that the other end has vanished; what it has itself goes.

    It may hold a password. SQLite's is as it was.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return url
    options = " ".join([_SERVER_TCP, *parsed.normalized_query.get("options", ())])  # the last one counts
    query = {"connect_timeout": str(_CONNECT_TIMEOUT), **_CLIENT_TCP, **parsed.query, "options": options}
    return parsed.set(query=query).render_as_string(hide_password=False)


@contextmanager
def _translated() -> Iterator[None]:
    """Trouble with the database's server is transient: the same work can be done when it is back."""
    try:
        yield
    except sa.exc.OperationalError as error:
        raise TransientError(f"The database did not answer: {error.orig}") from error


def _sqlite_engine(url: str) -> sa.Engine:
    path = sa.make_url(url).database
    if path:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = sa.create_engine(url, pool_size=10, max_overflow=20, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # no transactions of the driver's own; `begin` below opens ours
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: str) -> sa.Engine:
    return sa.create_engine(
        sa.make_url(server_url(url)).set(drivername="postgresql+psycopg"),
        pool_size=10,
        max_overflow=20,
        pool_pre_ping=True,
        hide_parameters=True,  # phone numbers and values stay out of exceptions and so out of logs
    )
