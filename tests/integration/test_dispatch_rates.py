"""Whose turn it is: rates kept by several workers, small campaigns beside huge ones, single sends before batches.

What is sent is counted where it arrives, at a stand-in for Twilio; when, is read from the claims, which all workers
time by the database's clock. `POSTERN_RATES=full` holds the figures that are meant; otherwise only what a busy
machine can hold as well.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import OWNER, enqueued_batch, new_campaign
from support.sender import sender
from support.twilio import TwilioStandIn
from support.waiting import until

from postern.model import Campaign, Language, MessageStatus
from postern.times import utc_now
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import count_messages
from storage.ledger.campaigns import create_campaign
from storage.ledger.messages import get_message
from storage.ledger.singles import Single, enqueue_single
from storage.tables import attempts, batches

pytest_plugins = ["support.databases"]

IS_FULL = os.environ.get("POSTERN_RATES") == "full"
RATE = 50.0
SECONDS = 20.0 if IS_FULL else 8.0
SENT = MessageStatus.SENT


@dataclass
class Service:
    """A database, Twilio's place, and a home for workers."""

    database: Database
    jobs: Jobs
    server: TwilioStandIn
    home: Path

    def campaign(self, rate: float = RATE) -> Campaign:
        campaign = new_campaign(rate=rate)
        create_campaign(self.database, campaign, actor=OWNER)
        return campaign

    def batch(self, campaign: Campaign, count: int) -> str:
        return enqueued_batch(self.database, self.jobs, campaign, [f"659{number:07}" for number in range(count)])

    def single(self, campaign: Campaign, *, is_otp: bool) -> str:
        return enqueue_single(
            self.database,
            self.jobs,
            Single(
                campaign_id=campaign.id,
                recipient="6581234567",
                language=Language.ENGLISH,
                values={"name": "Emily"},
                segments=1,
                is_otp=is_otp,
            ),
            now=utc_now(),
        )

    def claims(self, batch_id: str) -> list[datetime]:
        """When the messages of a batch were claimed, in order."""
        query = sa.select(attempts.c.created_at).join(batches, batches.c.number == attempts.c.batch)
        query = query.where(batches.c.id == batch_id).order_by(attempts.c.created_at)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def worker(self, stack: ExitStack, name: str = "home") -> "object":
        environment = {**self.server.environment(), "POSTERN_TWILIO_RATE": "10000"}
        return stack.enter_context(sender(self.home / name, self.database.url, environment))

    def log(self, name: str = "home") -> str:
        return (self.home / name / "log").read_text()


@pytest.fixture
def service(database: Database, jobs: Jobs, tmp_path: Path) -> Iterator[Service]:
    """On either database."""
    with TwilioStandIn() as server:
        yield Service(database, jobs, server, tmp_path)


def busiest_second(times: list[datetime]) -> int:
    second = timedelta(seconds=1)
    return max(sum(start <= time < start + second for time in times) for start in times)


def test_three_campaigns_keep_their_rates_when_a_worker_dies(postgresql_url: str, tmp_path: Path) -> None:
    """Two workers share them, one is killed: none falls behind, none hurries to catch up, nothing goes twice."""
    database, jobs = Database(postgresql_url), Jobs(postgresql_url)
    with TwilioStandIn() as server, ExitStack() as stack:
        service = Service(database, jobs, server, tmp_path)
        total = int(RATE * (SECONDS + 10))
        sent = {service.batch(service.campaign(), total): [] for _ in range(3)}
        first = service.worker(stack, "first")
        service.worker(stack, "second")
        until(lambda: all(len(service.claims(batch)) > RATE for batch in sent), "all to be sending", 60)
        start = max(service.claims(batch)[0] for batch in sent) + timedelta(seconds=1)
        until(lambda: utc_now() > start + timedelta(seconds=SECONDS / 3), "a third of the time", 60)
        first.kill()  # type: ignore[attr-defined]
        until(lambda: utc_now() > start + timedelta(seconds=SECONDS + 1), "the time to pass", 60)
        for batch in sent:
            times = [at for at in service.claims(batch) if start <= at < start + timedelta(seconds=SECONDS)]
            rate = len(times) / SECONDS
            print(f"{rate:.1f} a second of {RATE:.0f}, {busiest_second(times)} in the busiest second")
            assert (0.95 if IS_FULL else 0.8) * RATE <= rate <= 1.05 * RATE
            assert busiest_second(times) <= 1.4 * RATE
        until(lambda: all(count_messages(database, batch).get(SENT, 0) > total / 2 for batch in sent), "more", 60)
    assert max(Counter(one.fields["StatusCallback"] for one in server.taken).values()) == 1
    jobs.close()
    database.dispose()


def test_a_small_campaign_is_not_behind_a_huge_one(service: Service) -> None:
    """Ten messages that come when a hundred thousand are being sent are done long before those."""
    with ExitStack() as stack:
        huge = service.batch(service.campaign(rate=200), 100_000)
        service.worker(stack)
        until(lambda: len(service.claims(huge)) > 100, "the huge one to be sending", 60)
        small = service.batch(service.campaign(), 10)
        until(lambda: count_messages(service.database, small) == {SENT: 10}, f"the small one\n{service.log()}", 30)
        assert len(service.claims(huge)) < 20_000


def test_a_shared_account_is_shared(service: Service) -> None:
    """Where the account is slower than its campaigns, each has its turn, however fast it might be by itself."""
    with ExitStack() as stack:
        fast, slow = (service.batch(service.campaign(rate), 5_000) for rate in (1000.0, 20.0))
        environment = {**service.server.environment(), "POSTERN_TWILIO_RATE": "20"}
        stack.enter_context(sender(service.home / "home", service.database.url, environment))
        until(lambda: len(service.claims(fast)) + len(service.claims(slow)) > 100, service.log, 60)
        assert min(len(service.claims(fast)), len(service.claims(slow))) > 25


@pytest.mark.parametrize("is_otp", [True, False], ids=["otp", "single"])
def test_a_single_send_goes_before_a_batch(service: Service, is_otp: bool) -> None:
    """On a campaign that sends as fast as it may; the batch pays for it."""
    campaign = service.campaign()
    took = []
    with ExitStack() as stack:
        batch = service.batch(campaign, 10_000)
        service.worker(stack)
        until(lambda: len(service.claims(batch)) > 2 * RATE, "the batch to be sending", 60)
        for _ in range(21 if IS_FULL else 5):
            began, before = time.monotonic(), len(service.server.taken)
            message = service.single(campaign, is_otp=is_otp)
            until(lambda: _arrived(service.server, before), f"the message\n{service.log()}", 20)  # noqa: B023
            took.append(time.monotonic() - began)
            until(lambda: get_message(service.database, message).latest_status is SENT, "the record", 20)  # noqa: B023
        assert count_messages(service.database, batch)[MessageStatus.ENQUEUED] > 1_000
    print(f"{statistics.median(took) * 1000:.0f} ms to the provider, at the median of {len(took)}")
    assert statistics.median(took) < (0.25 if IS_FULL and is_otp else 2.0)


def _arrived(server: TwilioStandIn, after: int) -> bool:
    return any(one.to == "+6581234567" for one in server.taken[after:])
