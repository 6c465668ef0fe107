"""The engine with real workers: jobs exist with their transaction, run once, and survive whatever ends a worker."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from support.domain import job_states, jobs_of
from support.worker import Worker, journal, log_of

from postern.errors import TransientError
from storage.database import Database
from storage.engine import MAX_RECOVERIES, Jobs, patiently, pause, persistently
from storage.job_records import JobRecords
from storage.jobs import PROCESS_UPLOAD, SEND_CHUNK, SEND_NOTICE, JobKind

pytest_plugins = ["support.databases"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of workers, as yet without a line in its journal."""
    return tmp_path / "home"


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Iterator[tuple[Database, Jobs]]:
    """A SQLite database and its job board."""
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)
    yield database, jobs
    jobs.close()
    database.dispose()


def leave(database: Database, jobs: Jobs, name: str, command: str, kind: JobKind = SEND_NOTICE) -> None:
    """Leave a job that writes its name into the journal and does what the command says."""
    with database.write() as connection:
        if kind is SEND_CHUNK:
            jobs.enqueue(connection, kind, name, name, command, 0, partition="campaign")
        else:
            jobs.enqueue(connection, kind, name, name, command)


def leave_and_roll_back(database: Database, jobs: Jobs) -> None:
    """Leave a job in a transaction that does not commit."""
    with suppress(KeyError), database.write() as connection:
        jobs.enqueue(connection, SEND_NOTICE, "rolled back", "rolled back", "note")
        raise KeyError


def set_starts(database: Database, name: str, starts: int) -> None:
    """Let a job have been started so often already."""
    statement = "UPDATE workflow_status SET recovery_attempts = :starts WHERE workflow_uuid = :name"
    with database.write() as connection:
        connection.execute(sa.text(statement), {"starts": starts, "name": name})


def test_a_job_exists_with_its_transaction(database: Database, jobs: Jobs) -> None:
    """A rolled-back one leaves none; the same id twice, at once or later, is one job."""
    leave_and_roll_back(database, jobs)
    leave(database, jobs, "one", "note")
    with database.write() as connection:
        for _ in range(2):
            jobs.enqueue(connection, SEND_NOTICE, "one", "one", "note")
    assert jobs_of(database) == {"one": SEND_NOTICE.name}


def test_jobs_run_once(home: Path, database_url: str, database: Database, jobs: Jobs) -> None:
    """Of every queue; one that was rolled back does not run, and one enqueued again after it ran does not either."""
    leave_and_roll_back(database, jobs)
    kinds = {"file": PROCESS_UPLOAD, "chunk": SEND_CHUNK, "notice": SEND_NOTICE}
    for name, kind in kinds.items():
        leave(database, jobs, name, "note", kind)
        leave(database, jobs, name, "note", kind)
    with Worker(home, database_url) as worker:
        worker.until(lambda: {job_states(database)[name] for name in kinds} == {("SUCCESS", 1)}, "the jobs to succeed")
        for name, kind in kinds.items():
            leave(database, jobs, name, "note", kind)
        leave(database, jobs, "last", "note")
        worker.until(lambda: "last ends" in journal(home), "the last job")
    assert sorted(journal(home)) == sorted(f"{name} {what}" for name in (*kinds, "last") for what in ("starts", "ends"))


def test_a_job_that_leaves_its_work_undone_is_known_as_such(
    home: Path, database_url: str, database: Database, jobs: Jobs
) -> None:
    """It is over, as one that did its work; so it can be left again."""
    for name, command in {"done": "note", "undone": "later"}.items():
        leave(database, jobs, name, command, PROCESS_UPLOAD)
    with Worker(home, database_url) as worker:
        worker.until(
            lambda: {job_states(database)[name][0] for name in ("done", "undone")} == {"SUCCESS"}, "the jobs to end"
        )
    records = JobRecords(database_url)
    assert records.known(["done", "undone", "none"]) == {"done"}
    records.close()


def test_chunks_of_a_campaign_start_in_order(home: Path, on_sqlite: tuple[Database, Jobs]) -> None:
    """That in which they were left; the last messages of one may still be on their way."""
    database, jobs = on_sqlite
    names = [f"chunk {number}" for number in range(4)]
    for name in names:
        leave(database, jobs, name, "note", SEND_CHUNK)
    with Worker(home, database.url) as worker:
        worker.until(lambda: len(journal(home)) == 8, "the chunks")
    assert [line for line in journal(home) if line.endswith("starts")] == [f"{name} starts" for name in names]


def test_a_job_whose_process_was_killed_runs_again(home: Path, on_sqlite: tuple[Database, Jobs]) -> None:
    """At the next launch, from its beginning; what had ended does not."""
    database, jobs = on_sqlite
    leave(database, jobs, "done", "note")
    leave(database, jobs, "killed", "wait")
    with Worker(home, database.url) as worker:
        worker.until(lambda: {"done ends", "killed starts"} <= set(journal(home)), "the job to start")
        worker.until(lambda: job_states(database)["done"][0] == "SUCCESS", "the other job to be recorded")
        worker.process.send_signal(signal.SIGKILL)
        assert worker.ended() == -signal.SIGKILL
    assert job_states(database)["killed"][0] == "PENDING"
    (home / "go").touch()
    with Worker(home, database.url) as worker:
        worker.until(lambda: job_states(database)["killed"] == ("SUCCESS", 2), "the job to end")
    assert journal(home).count("done starts") == 1
    assert journal(home).count("killed starts") == 2


def test_a_job_that_kills_its_process_is_given_up(home: Path, on_sqlite: tuple[Database, Jobs]) -> None:
    """It starts once and is recovered as often as allowed; then a person has to look, and the others go on.

    The starts in between, each alike, are counted by hand.
    """
    database, jobs = on_sqlite
    leave(database, jobs, "poison", "die")
    for starts in (1, 2, 1 + MAX_RECOVERIES):
        set_starts(database, "poison", starts - 1)
        with Worker(home, database.url) as worker:
            assert worker.ended() == -signal.SIGKILL
        assert job_states(database)["poison"] == ("PENDING", starts)
    leave(database, jobs, "other", "note")
    with Worker(home, database.url) as worker:
        worker.until(lambda: "other ends" in journal(home), "the other job")
        worker.until(lambda: job_states(database)["poison"][0] != "PENDING", "the job to be given up")
        assert worker.process.poll() is None
    assert job_states(database)["poison"][0] == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    assert journal(home).count("poison starts") == 3


@pytest.mark.parametrize("command", ["hang", "spin", "work"])
def test_stopping_leaves_unfinished_jobs_pending(home: Path, on_sqlite: tuple[Database, Jobs], command: str) -> None:
    """Whoever pauses is told at once, whoever works on is left behind; the next worker runs the job again.

    Such a stop is no recovery: a mail that waits for its server outlives any number of upgrades.
    """
    database, jobs = on_sqlite
    leave(database, jobs, "job", command)
    with Worker(home, database.url) as worker:
        worker.until(lambda: journal(home), "the job to start")
        assert worker.stop() == 0, log_of(home)
    told = [] if command == "work" else ["job stops"]
    assert journal(home) == ["job starts", *told, "worker stopped"]
    assert job_states(database)["job"] == ("PENDING", 0)
    with Worker(home, database.url) as worker:
        worker.until(lambda: journal(home).count("job starts") == 2, "the job to start again")


def test_stopping_waits_for_jobs_that_end_in_time(home: Path, on_sqlite: tuple[Database, Jobs]) -> None:
    """A worker drains; what was enqueued meanwhile is left to the next one."""
    database, jobs = on_sqlite
    leave(database, jobs, "job", "wait")
    with Worker(home, database.url) as worker:
        worker.until(lambda: "job starts" in journal(home), "the job to start")
        worker.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(0.5)
        leave(database, jobs, "later", "note")
        (home / "go").touch()
        assert worker.ended() == 0, log_of(home)
    assert job_states(database)["job"] == ("SUCCESS", 1)
    assert job_states(database)["later"][0] == "ENQUEUED"


def test_a_job_with_a_bug_ends_and_takes_nobody_along(home: Path, on_sqlite: tuple[Database, Jobs]) -> None:
    """It is recorded as an error, and the next one runs."""
    database, jobs = on_sqlite
    leave(database, jobs, "bug", "raise")
    leave(database, jobs, "other", "note")
    with Worker(home, database.url) as worker:
        worker.until(lambda: "other ends" in journal(home), "the other job")
        worker.until(lambda: job_states(database)["bug"] == ("ERROR", 1), "the error to be recorded")


async def test_a_call_is_repeated_while_something_is_away() -> None:
    """With growing pauses, until it goes through; its answer is passed on."""
    answers = iter([TransientError("away"), "done"])

    def call(argument: str) -> str:
        answer = next(answers)
        if isinstance(answer, TransientError):
            raise answer
        return f"{argument} {answer}"

    assert await persistently(call, "it is") == "it is done"


async def test_patience_with_one_job_is_bounded() -> None:
    """After so much trouble it is left for later, with a line; what goes through in time is done."""
    answers = [TransientError("this blob"), TransientError("this blob"), None]

    def call() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    with capture_logs() as logs:
        assert not await patiently(call, patience=0.1)
    assert [(line["event"], line["log_level"], line["error"]) for line in logs] == [
        ("job.waits", "warning", "this blob"),
        ("job.left_for_later", "warning", "this blob"),
    ]
    assert await patiently(call, patience=0)
    assert answers == []


async def test_a_bug_is_not_repeated() -> None:
    """Only what is away comes back."""

    def call() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(persistently(call), 1)


async def test_a_pause_without_an_engine_is_a_sleep() -> None:
    """Nobody can tell it to stop."""
    await asyncio.wait_for(pause(0.01), 1)
