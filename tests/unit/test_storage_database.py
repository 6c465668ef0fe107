"""What transactions promise, on SQLite and on PostgreSQL."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from support.domain import NOW, add_campaign, count

from postern.errors import TransientError
from storage.database import Database
from storage.tables import campaigns, rates

pytest_plugins = ["support.databases"]


def put(database: Database, name: str, tat: float = 1.0) -> None:
    with database.write() as connection:
        connection.execute(rates.insert().values(id=name, tat=tat))


def test_a_write_commits_at_its_end(database: Database) -> None:
    """Others see it then, and not before."""
    with database.write() as connection:
        connection.execute(rates.insert().values(id="one", tat=1.0))
        assert count(database, rates) == 0
    assert count(database, rates) == 1


def test_a_write_rolls_back_on_an_exception(database: Database) -> None:
    """Whatever the exception is, it is passed on."""

    def write_and_raise(error: type[BaseException]) -> None:
        with database.write() as connection:
            connection.execute(rates.insert().values(id="one", tat=1.0))
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            write_and_raise(error)
    assert count(database, rates) == 0


def test_a_read_sees_one_moment(database: Database) -> None:
    """What is committed meanwhile is not seen, so that two queries fit together."""
    put(database, "one")
    query = sa.select(sa.func.count()).select_from(rates)
    with database.read() as connection:
        assert connection.execute(query).scalar_one() == 1
        put(database, "two")
        assert connection.execute(query).scalar_one() == 1
    assert count(database, rates) == 2


def test_rows_that_are_there_are_left_alone(database: Database) -> None:
    """An ignored insert changes nothing, and says so by returning nothing."""
    put(database, "one")
    with database.write() as connection:
        insert = database.insert_ignore(rates).returning(rates.c.id)
        assert connection.execute(insert.values(id="one", tat=9.0)).all() == []
        assert connection.execute(insert.values(id="two", tat=9.0)).all() == [("two",)]
    with database.read() as connection:
        assert dict(connection.execute(sa.select(rates.c.id, rates.c.tat)).all()) == {"one": 1.0, "two": 9.0}


def test_references_are_checked(database: Database) -> None:
    """A broken rule is a bug, and no reason to try again."""
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(sa.text("INSERT INTO enrolments VALUES ('e', 'no campaign', 'x', '[]', '2026-01-01')"))


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    """Whatever zone they were given in, to the microsecond."""
    campaign = add_campaign(database)
    moment = datetime(2026, 11, 20, 16, 30, 0, 123456, tzinfo=ZoneInfo("Asia/Singapore"))
    with database.write() as connection:
        connection.execute(campaigns.update().values(deleted_at=moment))
    with database.read() as connection:
        created, deleted = connection.execute(sa.select(campaigns.c.created_at, campaigns.c.deleted_at)).one()
    assert (created, deleted) == (campaign.created_at, moment)
    assert (created.utcoffset(), deleted.utcoffset()) == (NOW.utcoffset(), NOW.utcoffset())


def test_no_update_is_lost_on_sqlite(sqlite_url: str) -> None:
    """A write transaction holds the lock from its beginning, so what it read is true when it writes."""
    database = Database(sqlite_url)
    put(database, "one", 0.0)

    def add(_number: int) -> None:
        with database.write() as connection:
            tat = connection.execute(sa.select(rates.c.tat)).scalar_one()
            connection.execute(rates.update().values(tat=tat + 1))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(40)))
    with database.read() as connection:
        assert connection.execute(sa.select(rates.c.tat)).scalar_one() == 40
    database.dispose()


def test_readers_do_not_wait_for_a_writer_on_sqlite(sqlite_url: str) -> None:
    """They see what was there before."""
    database = Database(sqlite_url)
    with database.write() as connection:
        connection.execute(rates.insert().values(id="one", tat=1.0))
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(count, database, rates).result(timeout=5) == 0
    database.dispose()


def test_a_writer_waits_for_another_one_on_sqlite(sqlite_url: str) -> None:
    """The second one goes on when the first has finished."""
    database = Database(sqlite_url)
    began = threading.Event()

    def write_second() -> None:
        began.set()
        put(database, "second")

    with ThreadPoolExecutor(1) as thread:
        with database.write() as connection:
            connection.execute(rates.insert().values(id="first", tat=1.0))
            second = thread.submit(write_second)
            began.wait(5)
            assert not second.done()
        second.result(timeout=5)
    assert count(database, rates) == 2
    database.dispose()


def test_commits_are_synced_on_sqlite(sqlite_url: str) -> None:
    """The write-ahead log, synced at each commit, on every connection; references are checked."""
    database = Database(sqlite_url)
    with database.read() as first, database.read() as second:
        for connection in (first, second):
            settings = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert settings == ["wal", 2, 1, 30_000]
    database.dispose()


def test_a_new_sqlite_file_is_private(tmp_path: Path) -> None:
    """The folder is made, for its owner only."""
    folder = tmp_path / "new" / "home"
    database = Database(f"sqlite:///{folder}/postern.db")
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    database.dispose()


def test_a_database_that_is_not_there_is_transient(tmp_path: Path) -> None:
    """The same work can be done when it is back, whoever asks."""
    path = tmp_path / "postern.db"
    path.mkdir()
    for url in (f"sqlite:///{path}", "postgresql://postern@127.0.0.1:1/none"):
        database = Database(url)
        for transaction in (database.read, database.write):
            with pytest.raises(TransientError, match="The database did not answer"), transaction():
                raise AssertionError("there is no transaction")
        database.dispose()


def test_a_locked_sqlite_file_is_transient(sqlite_url: str) -> None:
    """Somebody else holds the lock for longer than anybody waits."""
    database = Database(sqlite_url)
    path = sa.make_url(sqlite_url).database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=10")  # on the connection that the pool hands out next
        with pytest.raises(TransientError, match="database is locked"):
            put(database, "one")
    put(database, "one")
    database.dispose()


def test_connections_that_postgresql_closed_are_replaced(postgresql_url: str) -> None:
    """After a restart of the server the next transaction works."""
    database = Database(postgresql_url)
    with database.read() as connection:
        first = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    other = Database(postgresql_url)
    with other.write() as connection:
        assert connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first}).scalar_one()
    put(database, "one")
    assert count(database, rates) == 1
    other.dispose()
    database.dispose()


def test_a_connection_that_breaks_in_a_transaction_is_transient(postgresql_url: str) -> None:
    """The server ends it halfway: nothing was written, and it may be tried again."""
    database, other = Database(postgresql_url), Database(postgresql_url)

    def write_cut_off() -> None:
        with database.write() as connection:
            connection.execute(rates.insert().values(id="one", tat=1.0))
            pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
            with other.write() as killer:
                killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            connection.execute(rates.insert().values(id="two", tat=1.0))

    with pytest.raises(TransientError):
        write_cut_off()
    assert count(database, rates) == 0
    other.dispose()
    database.dispose()


def test_a_read_on_postgresql_only_reads(postgresql_url: str) -> None:
    """Writing by mistake is refused."""
    database = Database(postgresql_url)
    with pytest.raises(sa.exc.InternalError, match="read-only transaction"), database.read() as connection:
        connection.execute(rates.insert().values(id="one", tat=1.0))
    put(database, "one")
    assert count(database, rates) == 1
    database.dispose()
