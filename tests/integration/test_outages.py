"""Everything behind the gate goes away and comes back: what was accepted meanwhile is processed, once."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import add_campaign, enrol, job_states
from support.fleet import PATIENCE, Fleet, accept, all_final, assert_all_is_well
from support.outside import Outside
from support.postgresql import Cluster, find_binaries
from support.waiting import until

from postern.errors import TransientError
from storage.database import Database
from storage.migrate import migrate
from storage.spool import Spool
from storage.tables import simulator_journal


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that this test alone may stop."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    cluster = Cluster(binaries, synchronous_commit="on")  # what it has committed outlives its crash
    cluster.start()
    yield cluster
    cluster.stop()


def test_an_outage_of_everything_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """PostgreSQL crashes twice, the blob store is away, the mail server refuses; uploads go on being accepted."""
    home = tmp_path / "home"
    home.mkdir()
    database = Database(cluster.url(cluster.create()))
    migrate(database)
    key = enrol(database, add_campaign(database, rate=200.0))
    spool = Spool(home / "spool")
    spool.prepare()
    with Outside() as outside:
        fleet = Fleet(home, database, outside)
        try:
            outside.mailbox.is_refusing = True
            fleet.start()
            put = [accept(spool, key, number, 300) for number in range(2)]
            until(lambda: len(handed(database)) > 50, f"hand-overs\n{fleet.log()}", PATIENCE)
            for number in (2, 3):
                cluster.halt()
                put.append(accept(spool, key, number, 300))
                time.sleep(2)
                cluster.resume()
                until(lambda: is_back(fleet), f"workers to be back\n{fleet.log()}", PATIENCE)
            (home / "blobs").rename(home / "away")
            (home / "blobs").write_text("no folder")
            put.append(accept(spool, key, 4, 300))
            time.sleep(2)
            (home / "blobs").unlink()
            (home / "away").rename(home / "blobs")
            assert outside.mailbox.mails.total() == 0
            outside.mailbox.is_refusing = False
            until(lambda: supervised(fleet) and is_over(fleet, len(put)), f"the end\n{fleet.log()}", PATIENCE)
            assert_all_is_well(fleet, put)
            assert {state for state, _starts in job_states(database).values()} <= {"SUCCESS", "PENDING"}
            assert "upload.failed" not in (home / "log").read_text()
        finally:
            fleet.stop()
            database.dispose()


def supervised(fleet: Fleet) -> bool:
    """Start what has ended, as a supervisor does."""
    fleet.start()
    return True


def is_back(fleet: Fleet) -> bool:
    """Whether all processes run, and have for a while."""
    fleet.start()
    time.sleep(1)
    return all(process.poll() is None for process in fleet.processes.values())


def is_over(fleet: Fleet, uploads: int) -> bool:
    """Whether everything is final."""
    try:
        return len(handed(fleet.database)) >= uploads and all_final(fleet.database)
    except TransientError:
        return False


def handed(database: Database) -> list[str]:
    """The numbers that the provider has."""
    try:
        with database.read() as connection:
            return list(connection.execute(sa.select(simulator_journal.c.recipient)).scalars())
    except TransientError:
        return []
