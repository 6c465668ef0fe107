"""Bring the database to the shape that this version needs: our tables by alembic, the engine's by DBOS.

On SQLite every role does it at its start, under a file lock, so that the embedded default needs no step of
its own. On PostgreSQL `postern db migrate` does it once, and roles refuse to start before that.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa

from postern.errors import PosternError
from storage.database import Database

HEAD = "0002"  # the newest migration; known here so that a role that starts need not read them all
_LOCK = "hashtext('postern migrate')"
_LOOK = 0.2  # seconds


def migrate(database: Database) -> None:
    """Run what is missing; harmless when nothing is."""
    if is_current(database):
        return
    with _one_at_a_time(database):
        if not is_current(database):  # somebody else may have been faster
            from storage.engine import migrate_engine  # noqa: PLC0415 - DBOS takes 0.3 s to load; seldom needed here

            migrate_engine(database.url)
            _run_ours(database)


def ensure_migrated(database: Database) -> None:
    """Make sure that the database has the shape that this version needs.

    Raises:
        PosternError: a PostgreSQL database was not migrated; the message names the command.
    """
    if is_current(database):
        return
    if not database.is_sqlite:
        raise PosternError("The database is not in the shape that this version needs. Run: postern db migrate")
    migrate(database)


def is_current(database: Database) -> bool:
    """Whether all migrations of ours have run. The engine's run before ours are recorded as done."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]


def _run_ours(database: Database) -> None:
    from alembic import command  # noqa: PLC0415 - takes 0.1 s to load; seldom needed here
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("storage") / "migrations"))
    config.set_main_option("path_separator", "os")
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    if database.is_sqlite:
        path = Path(f"{sa.make_url(database.url).database}.migrating")
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Asked for again and again: whoever waits inside a statement holds a snapshot, for which the holder's
        # CREATE INDEX CONCURRENTLY would wait in turn. Given back by name, because the pool keeps the session.
        while not connection.execute(sa.text(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar_one():
            time.sleep(_LOOK)
        try:
            yield
        finally:
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({_LOCK})"))
