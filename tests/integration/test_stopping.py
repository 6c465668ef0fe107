"""Cancelling, pausing and retrying while messages are sent: mid-chunk, by commands, and when the worker is killed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support import mortal
from support.domain import RECIPIENT, SIMULATOR, add_campaign, enqueued_batch, message_id, record_results
from support.waiting import until, until_async
from support.worker import ROOT
from typer.testing import CliRunner

from dispatch.accounts import simulated
from dispatch.context import Dispatch
from dispatch.provider import Accepted, Busy, Found, Handover, Outcome, Trouble
from dispatch.workflow import send_rows
from postern.cli.app import app
from postern.model import ErrorCode, MessageStatus
from postern.settings import WorkerSettings
from postern.times import utc_now
from storage.clerk import InThread
from storage.database import Database
from storage.engine import Jobs
from storage.ledger import retry_slices
from storage.ledger.batches import count_messages
from storage.ledger.cancelling import cancel_batch
from storage.ledger.claiming import claim
from storage.ledger.messages import Message, list_messages
from storage.ledger.pausing import pause_campaign, resume_campaign
from storage.ledger.results import Result
from storage.ledger.retries import retry_batch
from storage.tables import simulator_journal

pytest_plugins = ["support.databases"]

ENQUEUED, SENDING, SENT, SUCCESS, FAILURE = (
    MessageStatus.ENQUEUED,
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)
ROWS = 60  # three commits of the process that dies
CANCELS, RETRIES = "after commit of attempts+ messages~", "after commit of messages~ workflow_input+ workflow_status+"


@dataclass
class Gated:
    """A provider that answers when it is let."""

    answer: Outcome = field(default_factory=lambda: Accepted(external_id="external_1"))
    name: str = "gated"
    looks: tuple[float, ...] = (0.0,)
    handed: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, handover: Handover) -> Outcome:
        self.handed.append(handover.message_id)
        await self.gate.wait()
        return self.answer

    async def find(self, _handover: Handover, _since: datetime) -> Found:
        return Found()


@dataclass
class Chunk:
    """A batch of three messages whose first one is being handed over; the next one is due in 1.75 s."""

    database: Database
    jobs: Jobs
    provider: Gated = field(default_factory=Gated)

    def __post_init__(self) -> None:
        self.campaign = add_campaign(self.database, rate=0.5)
        self.batch_id = enqueued_batch(self.database, self.jobs, self.campaign, [RECIPIENT] * 3)
        self.dispatch = Dispatch(
            settings=WorkerSettings(),
            database=self.database,
            ledger=InThread(self.database),
            jobs=self.jobs,
            senders=simulated(self.provider),
            now=utc_now,
        )

    @property
    def counts(self) -> dict[MessageStatus, int]:
        return count_messages(self.database, self.batch_id)

    async def begin(self) -> "asyncio.Task[None]":
        sending = asyncio.create_task(send_rows(self.dispatch, self.campaign, self.batch_id, (2, 4)))
        await until_async(lambda: len(self.provider.handed) == 1, "the first message")
        return sending


@pytest.fixture
async def chunk(database: Database, jobs: Jobs) -> Chunk:
    """A chunk that is being sent."""
    return Chunk(database, jobs)


async def test_a_batch_is_cancelled_in_the_middle_of_a_chunk(chunk: Chunk) -> None:
    """What is being handed over ends by its own result; the rest of the chunk is not sent."""
    sending = await chunk.begin()
    cancel_batch(chunk.database, chunk.jobs, chunk.batch_id, actor="operator", now=utc_now())
    chunk.provider.gate.set()
    await asyncio.wait_for(sending, 20)
    assert chunk.counts == {SENT: 1, FAILURE: 2}
    assert len(chunk.provider.handed) == 1


async def test_what_was_not_taken_of_a_cancelled_batch_ends(chunk: Chunk) -> None:
    """The provider is busy: the message goes back, and is not left waiting for ever."""
    chunk.provider.answer = Busy(trouble=Trouble.UNREACHABLE)
    sending = await chunk.begin()
    cancel_batch(chunk.database, chunk.jobs, chunk.batch_id, actor="operator", now=utc_now())
    chunk.provider.gate.set()
    await asyncio.wait_for(sending, 20)
    assert chunk.counts == {FAILURE: 3}
    assert {message.num_attempts for message in list_messages(chunk.database, batch_id=chunk.batch_id)} == {1}


async def test_a_campaign_is_paused_in_the_middle_of_a_chunk(chunk: Chunk) -> None:
    """Nothing more is handed over, nothing fails; resumed, the chunk goes on where it stopped."""
    sending = await chunk.begin()
    pause_campaign(chunk.database, chunk.campaign.id, actor="operator", now=utc_now())
    chunk.provider.gate.set()
    await until_async(lambda: chunk.counts == {SENT: 1, ENQUEUED: 2}, "the message to be sent")
    await asyncio.sleep(2.2)  # the next one would have gone
    assert (chunk.counts, sending.done()) == ({SENT: 1, ENQUEUED: 2}, False)
    resume_campaign(chunk.database, chunk.campaign.id, actor="operator", now=utc_now())
    await asyncio.wait_for(sending, 20)
    assert chunk.counts == {SENT: 3}
    assert chunk.provider.handed == [message_id(chunk.batch_id, row) for row in range(2, 5)]


@dataclass
class Place:
    """A home with a batch, its worker, and its command line."""

    home: Path
    database: Database
    jobs: Jobs

    def __post_init__(self) -> None:
        (self.home / "orders").mkdir(parents=True)
        self.campaign = add_campaign(self.database, rate=1e6)
        self.batch_id = enqueued_batch(self.database, self.jobs, self.campaign, [RECIPIENT] * ROWS)

    @property
    def counts(self) -> dict[MessageStatus, int]:
        return count_messages(self.database, self.batch_id)

    @property
    def are_all_final(self) -> bool:
        return self.counts.keys() <= {SUCCESS, FAILURE}

    def messages(self) -> list[Message]:
        return list_messages(self.database, batch_id=self.batch_id, limit=1000)

    def fail_all(self) -> None:
        """As a provider that refuses every message."""
        claimed = claim(
            self.database,
            batch_id=self.batch_id,
            rows=(1, 1000),
            rate=1e6,
            most=1000,
            account=SIMULATOR,
            now=utc_now(),
        )
        code = ErrorCode.RECIPIENT_UNAVAILABLE
        results = [Result(attempt_id=one.attempt_id, status=FAILURE, error_code=code) for one in claimed.messages]
        record_results(self.database, claimed.token, results, now=utc_now())

    @contextmanager
    def worker(self, dies_at: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """All roles in one process, which dies whenever it comes to a step."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "POSTERN_HOME": str(self.home),
            "POSTERN_DATABASE_URL": self.database.url,
            "POSTERN_HTTP_PORT": str(port),
            "MORTAL_ALWAYS": dies_at,
        }
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "support.mortal", str(self.home)], stdout=log, stderr=log, env=environ, cwd=ROOT
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def until_dead(self, dies_at: str) -> None:
        """Let a worker come to that step and die there."""
        with self.worker(dies_at) as process:
            assert process.wait(60) == -signal.SIGKILL, (self.home / "log").read_text()

    def until_all(self, status: MessageStatus) -> None:
        """Let another worker go on until every message is so."""
        with self.worker():
            until(lambda: self.counts == {status: ROWS}, f"all to be {status}, not {self.counts}", 60)


@pytest.fixture
def place(database: Database, jobs: Jobs, tmp_path: Path) -> Place:
    """A home."""
    return Place(tmp_path / "place", database, jobs)


def test_a_worker_that_is_killed_while_it_cancels(place: Place) -> None:
    """The next one ends the rest, each message once."""
    cancel_batch(place.database, place.jobs, place.batch_id, actor="operator", now=utc_now())
    place.until_dead(CANCELS)
    assert 0 < place.counts[FAILURE] < ROWS
    place.until_all(FAILURE)
    found = list_messages(place.database, batch_id=place.batch_id, limit=1000)
    assert {(one.num_attempts, len(one.attempts)) for one in found} == {(1, 1)}
    assert handed_over(place.database) == Counter()


def test_a_worker_that_is_killed_while_it_retries(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one retries the rest; nobody gets two of them."""
    monkeypatch.setattr(retry_slices, "_SLICE", mortal.SMALL)
    place.fail_all()
    retry_batch(place.database, place.jobs, place.batch_id, may_repeat=False, actor="operator", now=utc_now())
    place.until_dead(RETRIES)
    assert place.counts[FAILURE] == ROWS - 2 * mortal.SMALL
    # What was claimed, and not yet handed over, when it died is in doubt, and may end so.
    claimed = {one.id for one in place.messages() if one.latest_status is SENDING}
    with place.worker():
        until(lambda: place.are_all_final and place.counts.get(FAILURE, 0) <= len(claimed), "all to end", 60)
    found = place.messages()
    failed = {one.id for one in found if one.latest_status is FAILURE}
    assert failed <= claimed
    assert {(one.num_attempts, len(one.attempts)) for one in found} == {(2, 2)}
    assert handed_over(place.database) == Counter({one.id: 1 for one in found if one.id not in failed})


def handed_over(database: Database) -> Counter[str]:
    with database.read() as connection:
        return Counter(connection.execute(sa.select(simulator_journal.c.message_id)).scalars())


def command(url: str, home: Path, *arguments: str, status: int = 0) -> Any:
    """What a command prints: a document, or what it refuses."""
    environ = {"POSTERN_HOME": str(home), "POSTERN_DATABASE_URL": url}
    result = CliRunner().invoke(app, [*arguments, "--json"], env=environ)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout if status == 0 else result.stderr)


def test_commands(place: Place) -> None:
    """Each says what it did as JSON, or refuses with a code and status 1; pages tell it in words."""
    url, home = place.database.url, place.home
    assert command(url, home, "campaign", "pause", place.campaign.id)["pausedAt"]
    assert command(url, home, "campaign", "pause", place.campaign.id, status=1)["error"]["code"] == "already_paused"
    assert command(url, home, "batch", "show", place.batch_id)["isPaused"] is True
    said = CliRunner().invoke(
        app, ["batch", "show", place.batch_id], env={"POSTERN_HOME": str(home), "POSTERN_DATABASE_URL": url}
    )
    assert f"{ROWS} messages wait" in said.output
    assert command(url, home, "campaign", "resume", place.campaign.id)["pausedAt"] is None
    place.fail_all()
    failures = command(url, home, "batch", "show", place.batch_id)["failures"]
    assert failures["byCode"] == [
        {
            "errorCode": "recipient_unavailable",
            "errorType": "delivery_error",
            "count": ROWS,
            "worthRetrying": "yes",
        }
    ]
    first = message_id(place.batch_id, 2)
    assert command(url, home, "message", "retry", first)["latestStatus"] == "created"
    assert command(url, home, "message", "retry", first, status=1)["error"]["code"] == "not_failure"
    assert command(url, home, "batch", "retry", place.batch_id, status=1)["error"]["code"] == "retry_under_way"
    assert command(url, home, "batch", "show", place.batch_id)["status"] == "messages_enqueuing_failed"
    assert command(url, home, "batch", "cancel", place.batch_id)["status"] == "cancelled"
    assert command(url, home, "batch", "cancel", place.batch_id, status=1)["error"]["code"] == "already_cancelled"
    said = CliRunner().invoke(
        app, ["message", "show", first], env={"POSTERN_HOME": str(home), "POSTERN_DATABASE_URL": url}
    )
    assert said.exit_code == 0
