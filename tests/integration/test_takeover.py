"""Who runs jobs when workers die: one worker on SQLite, several that watch each other on PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import job_states
from support.worker import ROOT, Worker, journal, log_of

from postern.errors import PosternError, TransientError
from storage.database import Database, server_url
from storage.engine import Jobs
from storage.jobs import SEND_NOTICE
from storage.takeover import LOST_LOCK_STATUS, SQLITE_EXECUTOR, Membership, alone, sqlite_worker_lock

pytest_plugins = ["support.databases"]

_WATCHERS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'SELECT DISTINCT executor_id FROM dbos.workflow_status%'
"""


BROKEN_WATCH = """
import sys, time
from storage.database import Database, server_url
from storage.takeover import Membership

def recover(executor_id):
    raise RuntimeError("a bug")

database = Database(sys.argv[1])
dead = Membership(database)
with database.write() as connection:
    connection.exec_driver_sql(
        "INSERT INTO dbos.workflow_status (workflow_uuid, status, executor_id, created_at, updated_at) "
        f"VALUES ('job', 'PENDING', '{dead.executor_id}', 0, 0)"
    )
Membership(database).watch(recover)
dead.leave()
time.sleep(15)
"""

ENGINE_SETTINGS = """
import sys
from dbos._dbos import DBOS, _get_dbos_instance
from storage.engine import Engine

Engine(sys.argv[1], executor_id="engine")
DBOS.listen_queues([])
DBOS.launch()
with _get_dbos_instance()._sys_db.engine.connect() as connection:
    print(*(connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in sys.argv[2:]))
DBOS.destroy()
"""

_TCP = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
_TOLD = ["5", "2", "3", "10000"]


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[tuple[Database, Jobs]]:
    """A PostgreSQL database and its job board."""
    database, jobs = Database(postgresql_url), Jobs(postgresql_url)
    yield database, jobs
    jobs.close()
    database.dispose()


def leave(database: Database, jobs: Jobs, name: str, command: str) -> None:
    with database.write() as connection:
        jobs.enqueue(connection, SEND_NOTICE, name, name, command)


def lock_sessions(database: Database) -> list[int]:
    """The server's processes of the sessions that hold a worker's lock and watch over the others."""
    with database.read() as connection:
        return list(connection.execute(sa.text(_WATCHERS)).scalars())


def holders(database: Database) -> list[int]:
    """The server's processes of the sessions that hold a lock of ours."""
    query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = "
    own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    with database.read() as connection:
        return list(connection.execute(sa.text(query + own)).scalars())


def terminate_holder(database: Database) -> None:
    (session,) = holders(database)
    terminate(database, session)


def terminate(database: Database, session: int) -> None:
    with database.write() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": session})


def test_a_second_worker_on_sqlite_is_refused(tmp_path: Path, sqlite_url: str) -> None:
    """It ends at once, says why and names the way out; the first one works on, and its seat is free afterwards."""
    home = tmp_path / "home"
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)
    leave(database, jobs, "first", "note")
    with Worker(home, sqlite_url) as first:
        first.until(lambda: "first ends" in journal(home), "the first worker")
        with Worker(home, sqlite_url) as second:
            assert second.ended() == 1
        assert "Another worker runs on this database already" in log_of(home)
        assert "POSTERN_DATABASE_URL" in log_of(home)
        leave(database, jobs, "second", "note")
        first.until(lambda: "second ends" in journal(home), "the first worker to go on")
        first.process.kill()
    with sqlite_worker_lock(Path(f"{database.path}.worker")) as executor_id:
        assert executor_id == SQLITE_EXECUTOR
    jobs.close()
    database.dispose()


def test_the_seat_on_sqlite_is_for_one(tmp_path: Path) -> None:
    """Until it is given up; the folder is made."""
    path = tmp_path / "run" / "worker.lock"
    with sqlite_worker_lock(path), pytest.raises(PosternError, match="is locked"), sqlite_worker_lock(path):
        raise AssertionError("two workers have the same seat")
    with sqlite_worker_lock(path) as executor_id:
        assert executor_id == SQLITE_EXECUTOR


def test_another_worker_takes_over_from_a_killed_one(tmp_path: Path, on_postgresql: tuple[Database, Jobs]) -> None:
    """Within seconds, every job that it ran, and nothing of what the living run."""
    database, jobs = on_postgresql
    home = tmp_path / "home"
    leave(database, jobs, "one", "wait")
    with Worker(home, database.url) as first:
        first.until(lambda: "one starts" in journal(home), "the first worker's job")
        with Worker(home, database.url) as second:
            second.until_ready()
            first.process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            second.until(lambda: journal(home).count("one starts") == 2, "the take-over", patience=5)
            assert time.monotonic() - killed < 5
            assert "worker.taken_over" in log_of(home)
            leave(database, jobs, "two", "wait")
            second.until(lambda: "two starts" in journal(home), "another job")
            (home / "go").touch()
            second.until(lambda: {job_states(database)[name][0] for name in ("one", "two")} == {"SUCCESS"}, "the end")
            assert second.process.poll() is None
    assert job_states(database) == {"one": ("SUCCESS", 2), "two": ("SUCCESS", 1)}
    assert journal(home).count("two starts") == 1


def test_what_a_worker_left_behind_is_taken_over_by_the_next(
    tmp_path: Path, on_postgresql: tuple[Database, Jobs]
) -> None:
    """One that stopped in order and alone leaves its jobs to whoever starts later, under another id."""
    database, jobs = on_postgresql
    home = tmp_path / "home"
    leave(database, jobs, "job", "hang")
    with Worker(home, database.url) as first:
        first.until(lambda: journal(home), "the job to start")
        assert first.stop() == 0, log_of(home)
    assert job_states(database)["job"] == ("PENDING", 0)
    assert lock_sessions(database) == []
    with Worker(home, database.url) as second:
        second.until(lambda: journal(home).count("job starts") == 2, "the job to start again")


def test_a_worker_that_loses_its_lock_session_exits(tmp_path: Path, on_postgresql: tuple[Database, Jobs]) -> None:
    """It may have been taken over already; its supervisor starts a fresh one, which takes the job over."""
    database, jobs = on_postgresql
    home = tmp_path / "home"
    leave(database, jobs, "job", "hang")
    with Worker(home, database.url) as worker:
        worker.until(lambda: journal(home), "the job to start")
        worker.until(lambda: lock_sessions(database), "the worker to watch")
        (session,) = lock_sessions(database)
        terminate(database, session)
        assert worker.ended() == LOST_LOCK_STATUS
        assert "worker.lock_session_lost" in log_of(home)
    with Worker(home, database.url) as fresh:
        fresh.until(lambda: journal(home).count("job starts") == 2, "the job to start again")


def test_a_worker_that_cannot_take_over_exits(tmp_path: Path, postgresql_url: str) -> None:
    """Without its watch it would not notice the loss of its seat."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", BROKEN_WATCH, postgresql_url], env=environ, timeout=20, check=False)
    assert ended.returncode == LOST_LOCK_STATUS


def test_only_the_dead_are_taken_over(on_postgresql: tuple[Database, Jobs]) -> None:
    """A worker neither takes from itself nor from those that live; a dead one's seat is free again afterwards."""
    database, _jobs = on_postgresql
    first, second = Membership(database), Membership(database)
    for number, executor_id in enumerate((first.executor_id, second.executor_id, "worker-dead")):
        pending_job(database, f"job {number}", executor_id)
    recovered: list[str] = []
    looked = threading.Event()

    def recover(executor_id: str) -> int:
        recovered.append(executor_id)
        finish_jobs(database, executor_id)
        looked.set()
        return 1

    first.watch(recover)
    assert looked.wait(10)
    second.leave()
    looked.clear()
    assert looked.wait(10)
    assert recovered == ["worker-dead", second.executor_id]
    first.leave()
    assert lock_sessions(database) == []


def test_a_restart_of_postgresql_is_no_death_of_a_job(on_postgresql: tuple[Database, Jobs]) -> None:
    """It takes every worker along, however often it comes; what died while it was up counts."""
    database, _jobs = on_postgresql
    membership = Membership(database)
    for name in ("before", "since", "unknown"):
        pending_job(database, name, "worker-dead")
    with database.write() as connection:
        connection.execute(sa.text("UPDATE dbos.workflow_status SET recovery_attempts = 3"))
        for name, started in (("before", "pg_postmaster_start_time() - interval '1s'"), ("since", "now()")):
            connection.execute(
                sa.text(
                    f"UPDATE dbos.workflow_status SET started_at_epoch_ms = 1000 * extract(epoch FROM {started}) "
                    "WHERE workflow_uuid = :name"
                ),
                {"name": name},
            )
    looked = threading.Event()

    def recover(executor_id: str) -> int:
        finish_jobs(database, executor_id)
        looked.set()
        return 3

    membership.watch(recover)
    assert looked.wait(10)
    membership.leave()
    assert {name: starts for name, (_state, starts) in job_states(database).items()} == {
        "before": 2, "since": 3, "unknown": 3
    }  # fmt: skip


def pending_job(database: Database, name: str, executor_id: str) -> None:
    """A job that an executor was running."""
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, application_version, "
                "created_at, updated_at) VALUES (:id, 'PENDING', 'send_notice', :executor, 'postern-1', 0, 0)"
            ),
            {"id": name, "executor": executor_id},
        )


def finish_jobs(database: Database, executor_id: str) -> None:
    with database.write() as connection:
        connection.execute(
            sa.text("UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE executor_id = :id"), {"id": executor_id}
        )


def told(connection: sa.Connection) -> list[str]:
    """What the server does to notice that this client has vanished."""
    return [str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in _TCP]


def test_the_server_notices_a_client_that_vanished(on_postgresql: tuple[Database, Jobs]) -> None:
    """On every connection: of the pool, of a worker's seat, of a task, and of the engine's clients."""
    database, jobs = on_postgresql
    with database.read() as pooled, database.session() as session:
        assert told(pooled) == told(session) == _TOLD
    membership = Membership(database)
    assert told(membership._session) == _TOLD
    membership.leave()
    with jobs._client._sys_db.engine.connect() as connection:
        assert told(connection) == _TOLD


def test_the_engine_asks_for_the_same(on_postgresql: tuple[Database, Jobs]) -> None:
    """In a worker's process of its own."""
    database, _jobs = on_postgresql
    command = [sys.executable, "-c", ENGINE_SETTINGS, database.url, *_TCP]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert ran.stdout.split() == _TOLD, ran.stderr


def test_options_behind_the_url_are_kept(postgresql_url: str) -> None:
    """And go before ours; what is said twice is as the URL says."""
    url = f"{postgresql_url}?options=-c%20search_path%3Dpublic%20-c%20tcp_keepalives_idle%3D7&keepalives_idle=9"
    database, jobs = Database(url), Jobs(url)
    with database.read() as pooled, jobs._client._sys_db.engine.connect() as connection:
        for each in (pooled, connection):
            assert told(each) == ["7", *_TOLD[1:]]
            assert each.exec_driver_sql("SHOW search_path").scalar_one() == "public"
            parameters = each.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
            assert (parameters["keepalives_idle"], parameters["tcp_user_timeout"]) == ("9", "10000")
    jobs.close()
    database.dispose()
    assert server_url("sqlite:////srv/postern.db") == "sqlite:////srv/postern.db"


def test_a_task_alone_holds_no_transaction(on_postgresql: tuple[Database, Jobs]) -> None:
    """Its session is at rest, however long it takes; however it ends, the next one can begin at once."""
    database, _jobs = on_postgresql
    resting = sa.text("SELECT state FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'")
    with alone(database, "task") as is_ours:
        assert is_ours
        with database.read() as connection:
            assert connection.execute(resting).scalars().all() == ["idle"]
        with alone(database, "task") as is_ours_too, alone(database, "another") as is_another_ours:
            assert (is_ours_too, is_another_ours) == (False, True)
        with alone(database, "task") as is_ours_too:
            assert not is_ours_too  # whoever was refused has freed nothing
    with pytest.raises(ValueError, match="a bug"), alone(database, "task"):
        raise ValueError("a bug")
    with pytest.raises(TransientError), alone(database, "task"):
        terminate_holder(database)
    with alone(database, "task") as is_ours:
        assert is_ours
    assert holders(database) == []
