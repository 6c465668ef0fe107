"""Paces, on both databases: messages and segments, borrowing, credit."""

import pytest

from storage.database import Database
from storage.ledger.paces import CREDIT, SLICE, Grant, Pace, keep_pace

pytest_plugins = ["support.databases"]

NOW = 1_000_000.0
OWN = Pace(id="campaign", rate=100)
ACCOUNT = Pace(id="account", rate=10, counts_segments=True)
AT_FIRST = CREDIT + SLICE  # seconds of a rate


def ask(database: Database, paces: list[Pace], segments: list[int], moment: float = NOW, **options: float) -> Grant:
    with database.write() as connection:
        return keep_pace(database, connection, paces, segments, moment, **options)


def test_what_is_granted_is_what_the_rate_allows(database: Database) -> None:
    """The credit of a pause and a slice; then a slice at a time; the wait is until then."""
    first = ask(database, [OWN], [1] * 200)
    assert (first.count, first.wait) == (35, pytest.approx(SLICE))
    assert ask(database, [OWN], [1] * 200) == Grant(wait=pytest.approx(SLICE), held_by="campaign")
    assert ask(database, [OWN], [1] * 200, NOW + SLICE).count == 10
    assert ask(database, [OWN], [1] * 200, NOW + 3600).count == 35


def test_the_slower_pace_decides(database: Database) -> None:
    """Nothing is taken from one that the other does not allow; who waits for what is told."""
    assert ask(database, [OWN, ACCOUNT], [1] * 200).count == 3
    held = ask(database, [OWN, ACCOUNT], [1] * 200)
    assert (held.count, held.held_by) == (0, "account")
    assert ask(database, [OWN], [1] * 200).count == 32


def test_an_account_counts_segments(database: Database) -> None:
    """A long message is several; one that is longer than all that is allowed goes by itself, and is waited for."""
    assert ask(database, [ACCOUNT], [1, 1, 2, 1]).count == 2
    assert ask(database, [Pace(id="other", rate=10, counts_segments=True)], [9, 1]).count == 1
    assert ask(database, [Pace(id="other", rate=10, counts_segments=True)], [1]).wait == pytest.approx(0.9 - CREDIT)


def test_what_is_urgent_borrows(database: Database) -> None:
    """It goes at once, the others wait for it, and there is an end to it."""
    assert ask(database, [OWN], [1] * 200).count == 35
    assert [ask(database, [OWN], [1], borrow=1.0).count for _ in range(3)] == [1, 1, 1]
    assert ask(database, [OWN], [1]).wait == pytest.approx(SLICE + 0.03)
    slow = Pace(id="slow", rate=1)
    assert [ask(database, [slow], [1], borrow=2.0).count for _ in range(4)] == [1, 1, 1, 0]
    assert ask(database, [slow], [1], borrow=2.0).wait == pytest.approx(3 - CREDIT - 2)


def test_a_clock_that_was_set_back_stops_nothing(database: Database) -> None:
    """A pace that is further ahead than any claim moves it is of another time."""
    assert ask(database, [OWN], [1], NOW + 86_400).count == 1
    assert ask(database, [OWN], [1]).count == 1
