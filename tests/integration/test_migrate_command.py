"""`postern db migrate` and the rule for databases that are older or newer than the program, on both databases."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import add_campaign, count
from support.postgresql import Cluster

import storage.migrate
from postern.errors import TransientError
from storage.database import Database
from storage.migrate import HEAD, State, ensure_migrated, migrate, revision_of, state_of
from storage.tables import campaigns

pytest_plugins = ["support.databases"]

POSTERN = Path(sys.executable).with_name("postern")


def run(url: str, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "POSTERN_HOME": str(home), "POSTERN_DATABASE_URL": url}
    command = [str(POSTERN), "db", "migrate", *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def said(result: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(result.stdout)


def set_revision(database: Database, revision: str) -> None:
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database that nothing has touched yet."""
    database = Database(empty_url)
    yield database
    database.dispose()


def test_migrating_says_from_where_to_where(empty: Database, tmp_path: Path) -> None:
    """First what would be done, then what was; afterwards there is nothing left to do."""
    checked = run(empty.url, tmp_path, "--check", "--json")
    assert (checked.returncode, said(checked)["state"], revision_of(empty)) == (1, "empty", None)
    done = run(empty.url, tmp_path, "--json")
    assert (done.returncode, said(done)) == (
        0,
        {"before": None, "after": HEAD, "program": HEAD, "state": "current"},
    )
    again = run(empty.url, tmp_path, "--check")
    assert (again.returncode, f"up to date, revision {HEAD}" in again.stdout) == (0, True)


def test_revisions_are_numbers_in_order(sqlite_url: str) -> None:
    """An older program tells by them that a database is newer."""
    assert [state_of(revision) for revision in (None, "0001", HEAD, "9999")] == [
        State.EMPTY,
        State.OLDER,
        State.CURRENT,
        State.NEWER,
    ]
    names = [path.name for path in (Path(storage.migrate.__file__).parent / "migrations/versions").glob("0*.py")]
    assert sorted(name[:4] for name in names) == [f"{number:04}" for number in range(1, len(names) + 1)]


def test_a_newer_database_is_used_as_it_is(database: Database, tmp_path: Path) -> None:
    """An older role goes on beside newer ones; `postern db migrate` of an older program changes nothing."""
    set_revision(database, "9999")
    assert ensure_migrated(database) is State.NEWER
    result = run(database.url, tmp_path)
    assert (result.returncode, "newer than" in result.stdout) == (0, True)
    assert revision_of(database) == "9999"
    add_campaign(database)
    assert count(database, campaigns) == 1


def test_a_second_migration_waits_for_the_first(empty: Database) -> None:
    """It says so, and then finds nothing left to do."""
    told, other = threading.Event(), Database(empty.url)
    with storage.migrate._one_at_a_time(empty, lambda: None):
        second = threading.Thread(target=migrate, args=(other,), kwargs={"waits": told.set})
        second.start()
        assert told.wait(20)
        assert revision_of(empty) is None
    second.join(60)
    assert revision_of(empty) == HEAD
    other.dispose()


def test_a_table_in_use_is_not_waited_for_for_long(postgresql: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a lock makes all others wait behind it; so it gives up and says what to do."""
    name = postgresql.create()
    database, busy = Database(postgresql.url(name)), Database(postgresql.url(name))
    with monkeypatch.context() as patched:
        patched.setattr(storage.migrate, "HEAD", "0001")
        migrate(database)
    monkeypatch.setattr(storage.migrate, "LOCK_TIMEOUT", 1)
    try:
        with busy.read() as connection:
            connection.execute(sa.text("SELECT count(*) FROM messages"))  # as pg_dump does
            with pytest.raises(TransientError, match=r"was in use for 1 s.*Nothing was changed"):
                migrate(database)
            assert revision_of(database) == "0001"
        migrate(database)
        assert revision_of(database) == HEAD
    finally:
        database.dispose()
        busy.dispose()
        postgresql.drop(name)
