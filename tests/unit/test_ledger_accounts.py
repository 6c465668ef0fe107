"""Accounts at providers, on both databases: their pace, and whether they take anything now."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.domain import NOW, RECIPIENT, SimulatedClock, add_campaign, enqueued_batch

from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import (
    CircuitState,
    SendingAccount,
    close_circuit,
    list_circuits,
    open_circuit,
)
from storage.ledger.claiming import Claim, claim
from storage.ledger.messages import list_messages

pytest_plugins = ["support.databases"]

FAST = 1e6
ACCOUNT = SendingAccount(id="twilio:1", provider="twilio")


@pytest.fixture
def clock() -> SimulatedClock:
    """The time."""
    return SimulatedClock()


@pytest.fixture
def batch_id(database: Database, jobs: Jobs) -> str:
    """A batch of ten messages."""
    return enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 10)


def take(
    database: Database,
    batch_id: str,
    clock: Callable[[], object],
    *,
    account: SendingAccount = ACCOUNT,
    most: int = 4,
    again: str = "",
) -> Claim:
    return claim(
        database,
        batch_id=batch_id,
        rows=(1, 1_000_000),
        rate=FAST,
        most=most,
        account=account,
        now=clock(),  # type: ignore[arg-type]
        token=again,
        is_again=bool(again),
    )


def fail(database: Database, clock: SimulatedClock, *, seconds: float = 10, trouble: str = "throttled") -> int:
    circuit = open_circuit(
        database,
        ACCOUNT.id,
        trouble=trouble,
        detail="429",
        pause=lambda failures: seconds * failures,
        now=clock(),
    )
    return circuit.failures


# The circuit


def test_a_circuit_that_was_never_opened_is_closed(database: Database, batch_id: str, clock: SimulatedClock) -> None:
    """The usual case."""
    assert len(take(database, batch_id, clock).messages) == 4
    assert list_circuits(database, now=clock()) == []


def test_nothing_is_claimed_for_an_account_that_rests(database: Database, batch_id: str, clock: SimulatedClock) -> None:
    """No attempt is used up; other accounts are not concerned."""
    fail(database, clock)
    clock.advance(4)
    claimed = take(database, batch_id, clock)
    assert (claimed.messages, claimed.wait, claimed.is_done) == ((), 6.0, False)
    assert {message.num_attempts for message in list_messages(database, batch_id=batch_id)} == {0}
    other = SendingAccount(id="twilio:2", provider="twilio")
    assert len(take(database, batch_id, clock, account=other).messages) == 4


def test_bad_credentials_stop_nobody_else_of_the_account(
    database: Database, batch_id: str, clock: SimulatedClock
) -> None:
    """Each key has a circuit of its own; the pace is the account's."""
    fail(database, clock)
    mine = replace(ACCOUNT, circuit=ACCOUNT.id, rate=1.0)
    other = replace(ACCOUNT, circuit="twilio:another key", rate=1.0)
    assert take(database, batch_id, clock, account=mine).wait == 10
    assert len(take(database, batch_id, clock, account=other, most=1).messages) == 1
    clock.advance(10)
    assert len(take(database, batch_id, clock, account=other, most=1).messages) == 1
    assert 0 < take(database, batch_id, clock, account=mine, most=1).wait <= 1


def test_one_message_goes_ahead(database: Database, batch_id: str, clock: SimulatedClock) -> None:
    """After the rest one worker gets one message, the others wait for what comes of it; then all flow again."""
    fail(database, clock)
    (open_,) = list_circuits(database, now=clock())
    assert (open_.state, open_.failures, open_.trouble, open_.detail) == (CircuitState.OPEN, 1, "throttled", "429")
    clock.advance(10)
    (half_open,) = list_circuits(database, now=clock())
    assert half_open.state is CircuitState.HALF_OPEN
    probe, waits = take(database, batch_id, clock), take(database, batch_id, clock)
    assert (len(probe.messages), probe.is_probe) == (1, True)
    assert (len(waits.messages), waits.is_probe, waits.wait) == (0, False, 1.0)
    close_circuit(database, ACCOUNT.id)
    flows = take(database, batch_id, clock)
    assert (len(flows.messages), flows.is_probe) == (4, False)
    assert list_circuits(database, now=clock()) == []


def test_a_probe_of_a_dead_worker_lapses(database: Database, batch_id: str, clock: SimulatedClock) -> None:
    """Otherwise its account would rest for ever."""
    fail(database, clock)
    clock.advance(10)
    assert take(database, batch_id, clock).is_probe
    clock.advance(91)
    assert take(database, batch_id, clock).is_probe


def test_a_probe_whose_claim_is_made_again_goes_ahead_again(
    database: Database, batch_id: str, clock: SimulatedClock
) -> None:
    """It never left; its account does not rest because of that."""
    fail(database, clock)
    clock.advance(10)
    probe = take(database, batch_id, clock)
    again = take(database, batch_id, clock, again=probe.token)
    assert (again.is_probe, [one.message_id for one in again.messages]) == (True, [probe.messages[0].message_id])


def test_rests_grow(database: Database, batch_id: str, clock: SimulatedClock) -> None:
    """Each failed probe makes the next rest longer; what fails together counts once; success begins anew."""
    assert [fail(database, clock), fail(database, clock)] == [1, 1]
    clock.advance(10)
    assert take(database, batch_id, clock).is_probe
    assert fail(database, clock, trouble="account") == 2
    (circuit,) = list_circuits(database, now=clock())
    assert (circuit.opened_at, (circuit.open_until - clock()).total_seconds()) == (NOW, 20)
    assert circuit.trouble == "account"
    close_circuit(database, ACCOUNT.id)
    clock.advance(60)
    assert fail(database, clock) == 1
    (circuit,) = list_circuits(database, now=clock())
    assert circuit.opened_at == clock()


def test_a_rest_that_ended_early_is_over(database: Database, clock: SimulatedClock) -> None:
    """An account that was mended before its time does not rest for the remainder when it fails again."""
    fail(database, clock, seconds=600)
    close_circuit(database, ACCOUNT.id)
    clock.advance(10)
    assert fail(database, clock, seconds=5) == 1
    (circuit,) = list_circuits(database, now=clock())
    assert (circuit.open_until - clock()).total_seconds() == 5


def test_a_longer_rest_counts(database: Database, clock: SimulatedClock) -> None:
    """Of several answers that ask for a pause the longest one, whichever came last."""
    for seconds in (5, 30, 2):
        fail(database, clock, seconds=seconds)
    (circuit,) = list_circuits(database, now=clock())
    assert (circuit.open_until - clock()).total_seconds() == 30


def test_an_account_that_nobody_uses_is_of_no_concern(database: Database, clock: SimulatedClock) -> None:
    """An hour after its rest it is named no more; a message would still go ahead of the others."""
    fail(database, clock, seconds=10)
    clock.advance(3600)
    assert len(list_circuits(database, now=clock())) == 1
    clock.advance(11)
    assert list_circuits(database, now=clock()) == []


def test_only_one_of_many_workers_goes_ahead(postgresql_url: str) -> None:
    """They all come at the moment that the rest ends."""
    database, jobs, clock = Database(postgresql_url), Jobs(postgresql_url), SimulatedClock()
    batch_ids = [enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 3) for _ in range(8)]
    fail(database, clock)
    clock.advance(10)
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda one: take(database, one, clock), batch_ids))
    assert sorted(len(claimed.messages) for claimed in claims) == [0] * 7 + [1]
    jobs.close()
    database.dispose()


# The pace


def test_campaigns_share_the_pace_of_their_account(database: Database, jobs: Jobs, clock: SimulatedClock) -> None:
    """What one sends the other waits for; neither pace moves where nothing is claimed."""
    account = SendingAccount(id="twilio:1", provider="twilio", rate=10)
    first, second = (
        enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 40) for _ in range(2)
    )
    sent = 0
    for _ in range(40):
        sent += sum(len(take(database, one, clock, account=account, most=2).messages) for one in (first, second))
        clock.advance(0.1)
    assert 38 <= sent <= 44
    waits = [take(database, one, clock, account=account).wait for one in (first, second) * 3]
    assert all(0 <= wait < 1 for wait in waits)


def test_the_simulator_gets_its_numbers(database: Database, jobs: Jobs, clock: SimulatedClock) -> None:
    """Attempts are marked with who gets them."""
    account = SendingAccount(id="twilio:1", provider="twilio", simulated=frozenset({"6511111111"}))
    batch_id = enqueued_batch(database, jobs, add_campaign(database), ["6511111111", RECIPIENT])
    take(database, batch_id, clock, account=account)
    found = list_messages(database, batch_id=batch_id)
    assert [message.attempts[0].provider for message in found] == ["simulator", "twilio"]
