"""Random kills under load, on PostgreSQL: three workers and intake die again and again while files and messages go out.

`make soak` takes 20 files of 50,000 messages in all, at a campaign rate of 2,000 a second; `make test` fewer.
Afterwards the ledger is held against what the simulator's journal and the mail server have. `-s` shows the counts.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import add_campaign, enrol
from support.fleet import PATIENCE, WORKERS, Fleet, accept, all_final, assert_all_is_well, count
from support.outside import Outside
from support.waiting import until

from storage.database import Database
from storage.spool import Spool
from storage.tables import simulator_journal
from storage.takeover import LOST_LOCK_STATUS

pytest_plugins = ["support.databases"]

FILES, MESSAGES, SECONDS = {
    "full": (20, 50_000, 3.0),
    "part": (4, 3_000, 2.0),
}[os.environ.get("POSTERN_STORM", "part")]
KILLS = 20 if FILES == 20 else 4
RATE = 2_000.0
END_LOCK_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
AND (query LIKE '%DISTINCT executor_id%' OR query LIKE 'SELECT pg_try_advisory_lock%')
"""


@pytest.fixture
def fleet(postgresql_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """On a PostgreSQL of its own, with a mail server."""
    home = tmp_path / "home"
    home.mkdir()
    database = Database(postgresql_url)
    with Outside() as outside:
        fleet = Fleet(home, database, outside)
        yield fleet
        fleet.stop()
    database.dispose()


def test_nothing_is_lost_or_repeated_in_a_storm_of_kills(fleet: Fleet) -> None:
    """Zero uploads lost, none twice, no message handed over twice; how many are in doubt is bounded and said."""
    campaign = add_campaign(fleet.database, rate=RATE)
    key = enrol(fleet.database, campaign)
    spool = Spool(fleet.home / "spool")
    spool.prepare()
    fleet.start()
    put = [accept(spool, key, number, MESSAGES // FILES) for number in range(FILES)]
    dice = random.Random(20)
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(SECONDS * dice.uniform(0.5, 1.5))
        name = dice.choice([*WORKERS, *WORKERS, "intake"])
        if fleet.processes[name].poll() is None:
            fleet.processes[name].send_signal(signal.SIGKILL)
            fleet.processes[name].wait()
            killed[name.split()[0]] += 1
        fleet.start()
    until(lambda: all_final(fleet.database), f"everything to be final\n{fleet.log()}", PATIENCE)
    doubtful = assert_all_is_well(fleet, put)
    kills = killed["worker"]
    print(f"\n{FILES} files, {MESSAGES} messages, killed {dict(killed)}")
    print(f"{doubtful} messages in doubt, {doubtful / kills:.0f} a killed worker")
    assert doubtful <= kills * RATE * 0.25 * 2, "more in doubt than two slices a kill"


def test_a_worker_that_was_frozen_and_taken_over_repeats_nothing(fleet: Fleet) -> None:
    """Its lock session is gone when it thaws: it must leave at once, and not as if nothing had happened."""
    campaign = add_campaign(fleet.database, rate=100.0)
    key = enrol(fleet.database, campaign)
    spool = Spool(fleet.home / "spool")
    spool.prepare()
    fleet.start()
    put = [accept(spool, key, 0, 600)]
    until(lambda: count(fleet.database, simulator_journal) > 50, f"hand-overs\n{fleet.log()}", PATIENCE)
    frozen = sender(fleet)
    frozen.send_signal(signal.SIGSTOP)
    before = count(fleet.database, simulator_journal)
    with fleet.database.write() as connection:
        connection.execute(sa.text(END_LOCK_SESSIONS))
    for process in fleet.processes.values():
        if process is not frozen and process.args[1] == "worker":  # type: ignore[index]
            assert process.wait(30) == LOST_LOCK_STATUS
    fleet.start()
    until(lambda: count(fleet.database, simulator_journal) > before + 100, f"the take-over\n{fleet.log()}", PATIENCE)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(30) == LOST_LOCK_STATUS
    fleet.start()
    until(lambda: all_final(fleet.database), f"everything to be final\n{fleet.log()}", PATIENCE)
    assert_all_is_well(fleet, put, is_strict=False)


def sender(fleet: Fleet) -> "subprocess.Popen[bytes]":
    """The process that sends now: the one that has used most of its time lately."""

    def used(process: subprocess.Popen[bytes]) -> int:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = {name: used(fleet.processes[name]) for name in WORKERS}
    time.sleep(1)
    busiest = max(WORKERS, key=lambda name: used(fleet.processes[name]) - before[name])
    return fleet.processes[busiest]
