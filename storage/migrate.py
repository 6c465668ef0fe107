"""Bring the database to the shape that this version needs: our tables by alembic, the engine's by DBOS.

On SQLite every role does it at its start, under a file lock, so that the embedded default needs no step of
its own. On PostgreSQL `postern db migrate` does it once, and roles refuse to start before that.

A database that is newer than the program is used as it is: a release only adds what the one before it can do without
(see docs/operations.md), so an older worker goes on beside newer ones, and a release can be taken back.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa

from postern.errors import PosternError, TransientError
from storage.database import Database

HEAD = "0008"  # the newest migration; known here so that a role that starts need not read them all
LOCK_TIMEOUT = 10  # seconds that a migration waits for somebody else's query; all others queue up behind it meanwhile
_LOCK = "hashtext('postern migrate')"
_LOOK = 0.2  # seconds


class State(StrEnum):
    """How a database stands to this program."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


def migrate(database: Database, *, waits: Callable[[], None] = lambda: None) -> str | None:
    """Run what is missing; harmless when nothing is.

    Args:
        database: the database.
        waits: called once where somebody else migrates it right now, before waiting for them.

    Returns:
        the revision that it had before; None for an empty database.

    Raises:
        TransientError: it did not answer, or a table that has to change was in use all the time; nothing has changed.
    """
    before = revision_of(database)
    if state_of(before) in {State.CURRENT, State.NEWER}:
        return before
    with _one_at_a_time(database, waits):
        before = revision_of(database)
        if state_of(before) in {State.EMPTY, State.OLDER}:  # nobody else was faster
            from storage.engine import migrate_engine  # noqa: PLC0415 - DBOS takes 0.3 s to load; seldom needed here

            migrate_engine(database.url)
            _run_ours(database)
    return before


def ensure_migrated(database: Database) -> State:
    """Make sure that the database has the shape that this version needs, or a newer one.

    Returns:
        which of the two.

    Raises:
        PosternError: a PostgreSQL database was not migrated; the message names the command.
    """
    revision = revision_of(database)
    state = state_of(revision)
    if state in {State.CURRENT, State.NEWER}:
        return state
    if not database.is_sqlite:
        found = f"has revision {revision}" if revision else "is empty"
        raise PosternError(f"The database {found}; this version needs revision {HEAD}. Run: postern db migrate")
    migrate(database)
    return State.CURRENT


def revision_of(database: Database) -> str | None:
    """The revision that the database has, or None where there is none yet."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def state_of(revision: str | None) -> State:
    """How a database of that revision stands to this program. Revisions are numbers of four digits."""
    if revision is None:
        return State.EMPTY
    if revision == HEAD:
        return State.CURRENT
    return State.OLDER if revision < HEAD else State.NEWER


def is_current(database: Database) -> bool:
    """Whether all migrations of ours have run. The engine's run before ours are recorded as done."""
    return state_of(revision_of(database)) is State.CURRENT


def _run_ours(database: Database) -> None:
    from alembic import command  # noqa: PLC0415 - takes 0.1 s to load; seldom needed here
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("storage") / "migrations"))
    config.set_main_option("path_separator", "os")
    with _nobody_waits_long(), database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


@contextmanager
def _nobody_waits_long() -> Iterator[None]:
    try:
        yield
    except TransientError as error:
        reason = error.__cause__
        if isinstance(reason, sa.exc.OperationalError) and getattr(reason.orig, "sqlstate", None) == "55P03":
            raise TransientError(
                f"A table that has to change was in use for {LOCK_TIMEOUT} s, by a long query or a backup. Nothing was "
                "changed. Run postern db migrate again when it has ended."
            ) from None
        raise


@contextmanager
def _one_at_a_time(database: Database, waits: Callable[[], None]) -> Iterator[None]:
    if database.is_sqlite:
        path = Path(f"{sa.make_url(database.url).database}.migrating")
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Asked for again and again: whoever waits inside a statement holds a snapshot, for which the holder's
        # CREATE INDEX CONCURRENTLY would wait in turn. Given back by name, because the pool keeps the session.
        lock = sa.text(f"SELECT pg_try_advisory_lock({_LOCK})")
        if not connection.execute(lock).scalar_one():
            waits()
            while not connection.execute(lock).scalar_one():
                time.sleep(_LOOK)
        try:
            yield
        finally:
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({_LOCK})"))
