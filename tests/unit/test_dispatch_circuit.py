"""When an account rests, and for how long."""

from collections.abc import Iterator

import pytest
from support.domain import SimulatedClock

from dispatch.circuit import RESTS, heed, rest_of
from dispatch.provider import Accepted, Busy, Outcome, Refused, Trouble, Unknown
from postern.model import ErrorCode
from storage.database import Database
from storage.ledger.accounts import begin_probe, leave_to_send, list_circuits

pytest_plugins = ["support.databases"]

OK = Accepted(external_id="SM1")
NO = Refused(code=ErrorCode.RECIPIENT_INVALID)
LATER = Busy(trouble=Trouble.THROTTLED)
AWAY = Busy(trouble=Trouble.UNREACHABLE)
BARRED = Busy(trouble=Trouble.ACCOUNT)


@pytest.mark.parametrize(
    ("outcomes", "trouble"),
    [
        ([], None),
        ([OK, NO], None),
        ([OK, Unknown(), Unknown()], None),
        ([NO, Unknown()], None),
        ([Unknown()], Trouble.UNANSWERED),
        ([Unknown()] * 3, Trouble.UNANSWERED),
        ([OK, LATER], Trouble.THROTTLED),
        ([Unknown(), AWAY], Trouble.UNREACHABLE),
        ([LATER, BARRED, AWAY], Trouble.ACCOUNT),
    ],
)
def test_why_an_account_rests(outcomes: list[Outcome], trouble: Trouble | None) -> None:
    """A request for a pause always counts; silence only where nothing at all was answered."""
    busy = rest_of(outcomes)
    assert (busy.trouble if busy else None) is trouble


def test_the_longest_pause_counts() -> None:
    """Of several that were asked for."""
    pauses = [Busy(trouble=Trouble.THROTTLED, seconds=seconds) for seconds in (3, 9, None, 1)]
    assert rest_of(pauses) == pauses[1]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A ledger on SQLite."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [
        (Trouble.THROTTLED, [1, 2, 4, 8, 16, 32, 60, 60]),
        (Trouble.UNREACHABLE, [1, 2, 4, 8, 16, 32, 60, 60]),
        (Trouble.UNANSWERED, [5, 10, 20, 40, 80, 160, 300, 300]),
        (Trouble.ACCOUNT, [30, 60, 120, 240, 480, 600, 600, 600]),
    ],
)
def test_rests_double_up_to_a_limit(database: Database, trouble: Trouble, seconds: list[int]) -> None:
    """From probe to probe; what the provider asks for is kept to."""
    clock, rested = SimulatedClock(), []
    for _ in seconds:
        heed(database, "twilio:1", [Busy(trouble=trouble)], is_probe=True, rests=RESTS, now=clock)
        (circuit,) = list_circuits(database, now=clock())
        rested.append((circuit.open_until - clock()).total_seconds())
        clock.advance(rested[-1])
    assert rested == seconds
    asked = Busy(trouble=trouble, seconds=7)
    heed(database, "twilio:1", [asked], is_probe=True, rests=RESTS, now=clock)
    (circuit,) = list_circuits(database, now=clock())
    assert (circuit.open_until - clock()).total_seconds() == 7


def test_an_answer_to_a_probe_ends_the_rest(database: Database) -> None:
    """A refusal of the message is an answer; what was on its way before says nothing."""
    clock = SimulatedClock()
    heed(database, "twilio:1", [LATER], is_probe=False, rests=RESTS, now=clock)
    heed(database, "twilio:1", [OK], is_probe=False, rests=RESTS, now=clock)
    assert len(list_circuits(database, now=clock())) == 1
    heed(database, "twilio:1", [NO], is_probe=True, rests=RESTS, now=clock)
    assert list_circuits(database, now=clock()) == []


def test_a_probe_that_asked_nobody_lets_another_one_go(database: Database) -> None:
    """The one message that went ahead was the simulator's: that tells nothing of the account."""
    clock = SimulatedClock()
    heed(database, "twilio:1", [LATER], is_probe=False, rests=RESTS, now=clock)
    clock.advance(1)
    with database.write() as connection:
        begin_probe(connection, "twilio:1", clock())
    with database.read() as connection:
        assert not leave_to_send(connection, "twilio:1", clock()).is_probe
    heed(database, "twilio:1", [], is_probe=True, rests=RESTS, now=clock)
    with database.read() as connection:
        assert leave_to_send(connection, "twilio:1", clock()).is_probe
