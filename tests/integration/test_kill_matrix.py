"""SIGKILL at every step of an upload's way, on SQLite and on PostgreSQL: nothing is lost, nothing happens twice.

The steps are those that a run without a kill comes to (`support.mortal`). Then, for each of them, a file of its own is
put and the process is killed there; a fresh process finishes it. Outside, a mail server and a provider count what
reaches them. `make test` takes a part of the steps, `make soak` all of them; `-s` shows the table.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import add_campaign, enrol
from support.outside import Outside
from support.waiting import until
from support.worker import ROOT

from postern.model import Campaign
from storage.database import Database
from storage.engine import MAX_RECOVERIES
from storage.ledger.enrolments import EnrolledKey
from storage.tables import attempts, batches, messages, notices, uploads

pytest_plugins = ["support.databases"]

PART = int(os.environ.get("POSTERN_KILL_STEPS", "2"))  # steps of each kind of file; 0 for all
ROWS = 45  # three commits, three chunks
PATIENCE = 240.0  # over the time limit of a validation
FINAL = ("success", "failure")


@dataclass
class Kill:
    """A file that was put, and the step that its process was killed at."""

    number: int
    kind: str  # good or bad
    step: str
    occurrence: int
    was_reached: bool = False
    was_answered: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.kind}-{self.number}.csv"


@dataclass
class Place:
    """One Postern that dies and comes back, and all that it was told."""

    home: Path
    database: Database
    outside: Outside
    campaign: Campaign
    key: EnrolledKey
    process: subprocess.Popen[bytes] | None = None
    kills: list[Kill] = field(default_factory=list)
    steps: set[str] = field(default_factory=set)
    extra: dict[str, str] = field(default_factory=dict)  # to the process's environment

    def __post_init__(self) -> None:
        (self.home / "orders").mkdir(parents=True)

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
        environ = {
            **plain,
            **self.outside.settings,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "POSTERN_HOME": str(self.home),
            "POSTERN_DATABASE_URL": self.database.url,
            "POSTERN_HTTP_PORT": str(self.port),
            "POSTERN_PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "POSTERN_RECONCILE_INTERVAL": "5",
            **self.extra,
        }
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.mortal", str(self.home)], stdout=log, stderr=log, env=environ, cwd=ROOT
            )

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def put(self, kill: Kill) -> None:
        """Order a file to be accepted, and the process to die at a step of what follows."""
        self.kills.append(kill)
        order = {
            "name": kill.name,
            "content": self.content(kill),
            "last": [kill.step, kill.occurrence] if kill.step else None,
            "key": {
                "campaign_id": self.campaign.id,
                "enrolment_id": self.key.enrolment_id,
                "key_fingerprint": self.key.fingerprint,
            },
        }
        path = self.home / "orders" / f"{kill.number:05}"
        path.write_text(json.dumps(order))
        path.rename(path.with_suffix(".json"))

    def content(self, kill: Kill) -> str:
        """Numbers that no other file has."""
        name = "Emily" if kill.kind == "good" else " Emily"
        first = 90_000_000 + kill.number * 1_000
        return "recipient,language,name\n" + "".join(f"65{first + row},english,{name}\n" for row in range(ROWS))

    def is_done(self, kill: Kill) -> bool:
        """Whether the file has come to its end, or never got in."""
        with self.database.read() as connection:
            found = connection.execute(sa.select(uploads).where(uploads.c.file_name == kill.name)).mappings().all()
            if not found:
                return not self._is_on_its_way() and kill.name not in self.answered()
            return all(self._is_finished(connection, upload) for upload in found)

    def ends(self, kill: Kill) -> bool:
        """As `is_done`; a process that came to its step late, when all seemed over, is started again."""
        self.start()
        return self.is_done(kill)

    def answered(self) -> set[str]:
        """The names of the files that were accepted with an answer."""
        path = self.home / "answered"
        return set(path.read_text().split()) if path.exists() else set()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; where it does not come true, tell what the processes said."""
        try:
            until(condition, what, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self) -> str:
        """The end of what the processes said."""
        return (self.home / "log").read_text(errors="replace")[-6_000:]

    @property
    def port(self) -> int:
        """Where the web role listens."""
        return 20_000 + os.getpid() % 10_000

    def _is_on_its_way(self) -> bool:
        orders = any((self.home / "orders").iterdir())
        accepted = self.home / "spool" / "accepted"
        return orders or (accepted.is_dir() and any(accepted.iterdir()))

    def _is_finished(self, connection: sa.Connection, upload: sa.RowMapping) -> bool:
        if upload["finished_at"] is None:
            return False
        mails = sa.select(notices.c.status).where(notices.c.upload_id == upload["id"])
        if set(connection.execute(mails).scalars()) != {"sent"}:
            return False
        if upload["status"] == "rejected":
            return (self.home / "blobs" / f"{upload['report_key'].removesuffix('.csv')}.xlsx").exists()
        of_batch = sa.and_(messages.c.batch == batches.c.number, batches.c.upload_id == upload["id"])
        open_ones = sa.select(sa.func.count()).where(of_batch, messages.c.latest_status.not_in(FINAL))
        unindexed = sa.select(sa.func.count()).where(batches.c.upload_id == upload["id"], ~batches.c.is_indexed)
        return connection.execute(open_ones).scalar_one() + connection.execute(unindexed).scalar_one() == 0


@pytest.fixture
def place(database_url: str, database: Database, tmp_path: Path) -> Iterator[Place]:
    """On each kind of database in turn."""
    campaign = add_campaign(database, rate=500.0)
    with Outside() as outside:
        place = Place(tmp_path / "place", database, outside, campaign, enrol(database, campaign))
        yield place
        place.stop()


def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(place: Place) -> None:
    """Zero uploads lost, zero processed twice, zero messages handed over twice; every mail at least once."""
    plan = [(kind, *step) for kind in ("good", "bad") for step in _part(_steps_of(place, kind))]
    for number, (kind, step, occurrence) in enumerate(plan, start=10):
        kill = Kill(number=number, kind=kind, step=step, occurrence=occurrence)
        place.start()
        place.put(kill)
        kill.was_reached = _dies(place, kill)
        place.until(lambda kill=kill: place.ends(kill), f"the end of {kill}")
        kill.was_answered = kill.name in place.answered()
        print(f"{len(place.kills)} of {len(plan)}: {kill}", flush=True)
    _show(place)
    _assert_all_is_well(place)
    assert sum(kill.was_reached for kill in place.kills) >= len(plan) * 0.7, "too few kills hit their step"


def test_a_file_that_kills_its_workers_is_given_up(place: Place) -> None:
    """After five of them; its owner hears of it with a support id, and the next worker lives and does other things."""
    if PART and not place.database.is_sqlite:
        pytest.skip("the same for both engines; on PostgreSQL in `make soak`")
    place.extra = {"MORTAL_ALWAYS": "before the verdict is made", "POSTERN_RECONCILE_INTERVAL": "1"}
    place.put(Kill(number=1, kind="bad", step="", occurrence=0))
    failed = sa.select(uploads.c.support_id).where(uploads.c.status == "failed")
    deaths = 0
    while _dies_before(place, failed):
        deaths += 1
        assert deaths <= MAX_RECOVERIES + 1, f"it goes on killing\n{place.log()}"
    assert deaths == MAX_RECOVERIES + 1
    with place.database.read() as connection:
        (support_id,) = connection.execute(failed).scalars()
    assert support_id
    place.until(lambda: place.outside.mailbox.mails, "the mail")
    assert '"event": "job.dead"' in place.log()
    assert place.process is not None
    assert place.process.poll() is None


def _dies_before(place: Place, outcome: sa.Select[Any]) -> bool:
    """Start the process, and see whether it is killed before there is an outcome."""
    place.start()
    process = place.process
    assert process is not None

    def is_over() -> bool:
        with place.database.read() as connection:
            return process.poll() is not None or connection.execute(outcome).first() is not None

    place.until(is_over, "a death or an outcome")
    assert process.poll() in {None, -signal.SIGKILL}, place.log()
    return process.poll() is not None


def _steps_of(place: Place, kind: str) -> list[tuple[str, int]]:
    """The steps that a file without a kill comes to, each the first and the last time; the engine's own oftener.

    Of a bad file those that a good one comes to as well are left out.
    """
    journal = place.home / "steps"
    place.start()
    before = len(journal.read_text().splitlines()) if journal.exists() else 0
    kill = Kill(number=1 if kind == "good" else 2, kind=kind, step="", occurrence=0)
    place.put(kill)
    place.until(lambda: kill.name in place.answered() and place.is_done(kill), f"a {kind} file")
    time.sleep(1)  # what the engine notes afterwards
    seen = Counter(journal.read_text().splitlines()[before:])
    steps = []
    for name, count in seen.items():
        if name not in place.steps:
            between = {2, 3, count // 2} if name.endswith("commit of workflow_status~") else set()
            steps += [(name, number) for number in sorted({1, count} | {number for number in between if number > 0})]
    place.steps.update(seen)
    return steps


def _part(steps: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """All, or so many, spread over the way."""
    if not PART or len(steps) <= PART:
        return steps
    return [steps[(2 * number + 1) * len(steps) // (2 * PART)] for number in range(PART)]


def _dies(place: Place, kill: Kill) -> bool:
    """Wait for the kill; a step that does not come this time leaves the file to its end."""
    process = place.process
    assert process is not None

    def is_over() -> bool:
        return process.poll() is not None or (kill.name in place.answered() and place.is_done(kill))

    place.until(is_over, f"the kill {kill}")
    if process.poll() is None:
        return False
    assert process.wait() == -signal.SIGKILL, place.log()
    return True


def _assert_all_is_well(place: Place) -> None:
    with place.database.read() as connection:
        found = connection.execute(sa.select(uploads)).mappings().all()
        numbers = connection.execute(sa.select(batches.c.upload_id, batches.c.total)).all()
        rows = connection.execute(sa.select(messages.c.recipient, messages.c.latest_status)).all()
        doubts = sa.select(messages.c.recipient).join(
            attempts, sa.and_(attempts.c.batch == messages.c.batch, attempts.c.row == messages.c.row)
        )
        doubtful = set(connection.execute(doubts.where(attempts.c.inferred)).scalars())
    names = Counter(upload["file_name"] for upload in found)
    assert place.answered() <= set(names), "an upload was lost"
    assert set(names.values()) == {1}, "an upload was taken in twice"
    outcomes = {upload["id"]: upload["status"] for upload in found}
    for upload in found:
        assert upload["status"] == ("accepted" if upload["file_name"].startswith("good") else "rejected")
    accepted = {upload_id for upload_id, status in outcomes.items() if status == "accepted"}
    assert {upload_id for upload_id, _total in numbers} == accepted
    assert len(rows) == len({row.recipient for row in rows}) == ROWS * len(accepted)
    handed = place.outside.telco.handed
    assert max(handed.values()) == 1, "a message was handed over twice"
    assert not {f"+{number}" for number in doubtful} & set(handed), "a hand-over that was to be found was not"
    lost = {f"+{row.recipient}" for row in rows} - set(handed) - {f"+{number}" for number in doubtful}
    assert not lost, "a message was lost"
    mails = place.outside.mailbox.mails
    assert len(mails) == len(found), "a mail is missing, or one has two Message-IDs"
    assert all(any(upload["id"] in mail for mail in mails) for upload in found)


def _show(place: Place) -> None:
    kind = "SQLite" if place.database.is_sqlite else "PostgreSQL"
    print(f"\n{kind}: {len(place.kills)} files, {sum(kill.was_reached for kill in place.kills)} kills")
    print("| file | killed | answered before |\n|---|---|---|")
    for kill in place.kills:
        if kill.was_reached:
            print(f"| {kill.kind} | {kill.step} ({kill.occurrence}) | {'yes' if kill.was_answered else 'no'} |")
    not_reached = [f"{kill.step} ({kill.occurrence})" for kill in place.kills if kill.step and not kill.was_reached]
    print(f"not reached: {not_reached}")
    with place.database.read() as connection:
        unknown = connection.execute(sa.select(sa.func.count()).where(attempts.c.inferred)).scalar_one()
    repeated: Any = Counter(place.outside.mailbox.mails.values())
    print(
        f"mails by how often they came: {dict(repeated)}; look-ups: {place.outside.telco.looked_up}; unknown: {unknown}"
    )
