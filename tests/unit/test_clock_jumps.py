"""A clock that is set back or forward while messages leave: nobody waits for the old time to come round again."""

import pytest
from support.domain import RECIPIENT, SimulatedClock, add_campaign, enqueued_batch

from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import SendingAccount
from storage.ledger.claiming import Claim, claim

pytest_plugins = ["support.databases"]

RATE = 20.0
HOUR = 3600.0
ACCOUNT = SendingAccount(id="simulator", provider="simulator")


def take(database: Database, batch_id: str, clock: SimulatedClock) -> Claim:
    return claim(
        database, batch_id=batch_id, rows=(1, 1_000_000), rate=RATE, most=5, account=ACCOUNT, now=clock()
    )  # fmt: skip


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -24 * HOUR])
def test_the_pace_goes_on_after_a_jump(database: Database, jobs: Jobs, jump: float) -> None:
    """At the campaign's rate, no faster and no slower, from the next claim on."""
    clock = SimulatedClock()
    batch_id = enqueued_batch(database, jobs, add_campaign(database, rate=RATE), [RECIPIENT] * 100)
    assert len(take(database, batch_id, clock).messages) == 5
    clock.advance(jump)
    claimed = 0
    for _ in range(20):
        found = take(database, batch_id, clock)
        claimed += len(found.messages)
        assert found.wait < 1
        clock.advance(0.1)
    assert 30 <= claimed <= 2 * RATE + 10


def test_a_slow_campaign_is_not_taken_for_a_jump(database: Database, jobs: Jobs) -> None:
    """A claim may move its pace far ahead; that is waited for."""
    clock = SimulatedClock()
    batch_id = enqueued_batch(database, jobs, add_campaign(database, rate=0.01), [RECIPIENT] * 3)

    def slowly() -> Claim:
        return claim(database, batch_id=batch_id, rows=(1, 9), rate=0.01, most=1, account=ACCOUNT, now=clock())

    assert len(slowly().messages) == 1
    assert 90 < slowly().wait <= 100
    clock.advance(100)
    assert len(slowly().messages) == 1
