"""Workers, and their clerks, that are killed while they send by the Twilio stand-in, on either database.

`POSTERN_KILLED_MESSAGES=20000` makes the first of these as long as it should be now and then.
"""

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import OWNER, enqueued_batch, job_states, new_campaign
from support.sender import sender
from support.twilio import Answer, TwilioStandIn
from support.waiting import until

from postern.model import ErrorCode, MessageStatus
from storage.database import Database
from storage.engine import MAX_RECOVERIES, Jobs
from storage.ledger.batches import count_messages
from storage.ledger.campaigns import create_campaign
from storage.ledger.messages import Message, list_messages

pytest_plugins = ["support.databases"]

MANY = int(os.environ.get("POSTERN_KILLED_MESSAGES", "300"))
KILLS = max(2, MANY // 1000)
SENT, FAILURE = MessageStatus.SENT, MessageStatus.FAILURE
TAKEN, UNKNOWN = (SENT, None), (FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR)


class Service:
    """A database, Twilio's place, and workers of their own process."""

    def __init__(self, database: Database, jobs: Jobs, server: TwilioStandIn, home: Path) -> None:
        self.database, self.jobs, self.server, self.home = database, jobs, server, home

    def batch(self, count: int, *, rate: float) -> str:
        """A batch of so many messages, of a campaign of its own."""
        campaign = new_campaign(rate=rate)
        create_campaign(self.database, campaign, actor=OWNER)
        recipients = [str(6590000000 + number) for number in range(count)]
        return enqueued_batch(self.database, self.jobs, campaign, recipients)

    def worker(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A worker that sends while the block runs; then it is killed."""
        environment = {**self.server.environment(), "POSTERN_TWILIO_RATE": "10000"}
        return sender(self.home, self.database.url, environment)

    def log(self) -> str:
        log = self.home / "log"
        return log.read_text() if log.exists() else ""

    def is_final(self, batch_id: str) -> bool:
        return set(count_messages(self.database, batch_id)) <= {SENT, FAILURE}

    def messages(self, batch_id: str) -> list[Message]:
        return list_messages(self.database, batch_id=batch_id, limit=1_000_000)


@pytest.fixture
def service(database: Database, jobs: Jobs, tmp_path: Path) -> Iterator[Service]:
    """Shows the workers' log where a test fails."""
    with TwilioStandIn() as server:
        service = Service(database, jobs, server, tmp_path / "home")
        yield service
    print(service.log())


def outcome_of(message: Message) -> tuple[MessageStatus, ErrorCode | None]:
    return message.latest_status, message.attempts[-1].error_code


def test_workers_killed_between_call_and_record(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL in the midst of hand-overs: nothing goes twice, nothing is lost, and the ledger says what is so."""
    server, chance, rate = service.server, random.Random(7), max(200, MANY / 40)
    batch_id = service.batch(MANY, rate=rate)
    server.answer = lambda _fields: Answer(after=0.15)  # taken at once, told later
    for _ in range(KILLS):
        with service.worker():
            before = len(server.taken)
            enough = before + min(60, MANY // KILLS // 2)
            until(lambda: len(server.taken) > enough or len(server.taken) == MANY, "hand-overs", 60)  # noqa: B023
            threading.Event().wait(chance.uniform(0, min(MANY / KILLS / rate, 2.0)))
    with service.worker() as running:
        until(lambda: service.is_final(batch_id), "the end of all messages", 90 + MANY / 50)
        running.terminate()
        assert running.wait(30) == 0
    assert max(server.by_recipient().values()) == 1
    assert len(server.asked) == len(server.taken)
    found = service.messages(batch_id)
    sids = {taken.to.removeprefix("+"): taken.sid for taken in server.taken}
    for message in found:
        (attempt,) = message.attempts
        told = sids.get(message.recipient)
        assert outcome_of(message) == (TAKEN if told else UNKNOWN)
        assert attempt.external_id == (told or "")
    assert len(found) == MANY
    assert len(server.looked_up) > 0
    unknown = sum(outcome_of(message) == UNKNOWN for message in found)
    with capsys.disabled():
        print(f"\n{MANY} messages, {KILLS} kills: 0 twice, 0 lost, {unknown} never reached the provider and say so")


def test_a_clerk_killed_amid_claims_and_records(service: Service) -> None:
    """What it was at is asked for again: nothing goes twice, and nothing is in doubt, as the sender lives."""
    server, batch_id, clerks = service.server, service.batch(900, rate=150), set()
    with service.worker() as running:
        for enough in (50, 250, 450):
            until(lambda: len(server.taken) > enough, "hand-overs")  # noqa: B023
            clerk = _clerk_of(running.pid)
            clerks.add(clerk)
            os.kill(clerk, signal.SIGSTOP)  # what it is asked from now on it is at, when it dies
            threading.Event().wait(0.5)
            os.kill(clerk, signal.SIGKILL)
        until(lambda: service.is_final(batch_id), "the end of all messages", 60)
    assert len(clerks) == 3
    ends = [json.loads(line) for line in service.log().splitlines() if "clerk.ended" in line]
    assert [end["calls"] > 0 for end in ends] == [True] * 3
    assert max(server.by_recipient().values()) == 1
    assert {outcome_of(message) for message in service.messages(batch_id)} == {TAKEN}


def _clerk_of(pid: int) -> int:
    """The process that a sender has for its ledger."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (clerk,) = [one for one in children if b"storage.clerk_process" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return int(clerk)


def test_a_worker_that_breaks_down_ends_as_one_that_is_stopped(service: Service) -> None:
    """What is on its way is recorded, nothing more is claimed, and nothing is in doubt."""
    server, batch_id = service.server, service.batch(300, rate=100)
    server.answer = lambda _fields: Answer(after=0.5)
    with service.worker() as running:
        until(lambda: len(server.taken) > 50, "hand-overs")
        running.send_signal(signal.SIGUSR1)
        assert running.wait(60) == 1
    assert "told to break down" in service.log()
    assert set(count_messages(service.database, batch_id)) == {SENT, MessageStatus.ENQUEUED}
    with service.worker():
        until(lambda: service.is_final(batch_id), "the end of all messages", 60)
    assert {outcome_of(message) for message in service.messages(batch_id)} == {TAKEN}
    assert max(server.by_recipient().values()) == 1


def test_jobs_that_get_on_are_not_given_up(service: Service) -> None:
    """Whoever kills their workers: a chunk is forgiven with its first records, doubts may see many die."""
    database, server, batch_id = service.database, service.server, service.batch(300, rate=100)
    server.answer = lambda _fields: Answer(after=0.15)
    server.list_answer = lambda: Answer(status=503)
    _set_starts(database, "chunk", MAX_RECOVERIES)
    with service.worker():
        until(lambda: _recorded_and_starts(database)[0] > 0, "the first records")
        assert _recorded_and_starts(database)[1] == 0
    _set_starts(database, "chunk", MAX_RECOVERIES)
    with service.worker():
        until(lambda: len(server.looked_up) > 0, "the first look-up")
        until(lambda: _recorded_and_starts(database)[1] == 0, "records of this worker, too")
    assert _set_starts(database, "doubts", 10 * MAX_RECOVERIES) > 0
    server.list_answer = lambda: Answer(status=200)
    with service.worker():
        until(lambda: service.is_final(batch_id), "the end of all messages", 60)
        until(lambda: not _open_jobs(database, "doubts"), "the end of doubts", 30)
    assert len(server.by_recipient()) == len(server.asked)


def _set_starts(database: Database, kind: str, starts: int) -> int:
    """Let the open jobs of a kind have been started so often; returns how many there are."""
    table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
    statement = f"UPDATE {table} SET recovery_attempts = :starts WHERE workflow_uuid LIKE :ids AND status <> 'SUCCESS'"
    with database.write() as connection:
        return connection.execute(sa.text(statement), {"starts": starts, "ids": f"{kind}:%"}).rowcount


def _open_jobs(database: Database, kind: str) -> list[str]:
    states = job_states(database)
    return [job_id for job_id, (state, _starts) in states.items() if job_id.startswith(kind) and state != "SUCCESS"]


def _recorded_and_starts(database: Database) -> tuple[int, int]:
    """How many messages are recorded, and how often the chunk was started, at one moment."""
    table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
    query = sa.text(
        "SELECT (SELECT count(*) FROM messages WHERE latest_status = 'sent'), "
        f"(SELECT recovery_attempts FROM {table} WHERE workflow_uuid LIKE 'chunk:%')"
    )
    with database.read() as connection:
        recorded, starts = connection.execute(query).one()
    return recorded, starts
