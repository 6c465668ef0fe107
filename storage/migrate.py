"""Bring the database to the shape that this version needs: our tables by alembic, the engine's by DBOS.

On SQLite every role does it at its start, under a file lock, so that the embedded default needs no step of
its own. On PostgreSQL `postern db migrate` does it once, and roles refuse to start before that.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from postern.errors import PosternError
from storage.database import Database


def migrate(database: Database) -> None:
    """Run what is missing; harmless when nothing is."""
    with _one_at_a_time(database):
        if not is_current(database):
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
    with database.engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == set(_scripts().get_heads())


def _run_ours(database: Database) -> None:
    config = _config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("storage") / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    if database.is_sqlite:
        path = Path(f"{sa.make_url(database.url).database}.migrating")
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with database.engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(hashtext('postern migrate'))"))
        yield
