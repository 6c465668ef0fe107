"""Attempts whose hand-over did not happen, and those of which nobody knows, on both databases."""

import pytest
from support.domain import NOW, RECIPIENT, SIMULATOR, add_campaign, count, enqueued_batch

from postern.model import MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.messages import list_messages
from storage.ledger.sending import Claim, Receipt, Result, apply_receipts, claim, record_results
from storage.ledger.settling import is_open, owned, put_back
from storage.tables import attempts

pytest_plugins = ["support.databases"]

FAST = 1e6


@pytest.fixture
def batch_id(database: Database, jobs: Jobs) -> str:
    """A batch of three messages."""
    return enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 3)


def take(database: Database, batch_id: str) -> Claim:
    return claim(database, batch_id=batch_id, rows=(1, 9), rate=FAST, most=9, account=SIMULATOR, now=NOW)


def ids(claimed: Claim) -> list[str]:
    return [message.attempt_id for message in claimed.messages]


def test_what_is_put_back_waits_as_before(database: Database, batch_id: str) -> None:
    """Enqueued, with no attempt used up, and claimed again in its place."""
    first = take(database, batch_id)
    assert put_back(database, first.token, ids(first)[:2], now=NOW) == 2
    found = list_messages(database, batch_id=batch_id)
    assert [(message.latest_status, message.num_attempts) for message in found] == [
        (MessageStatus.ENQUEUED, 0),
        (MessageStatus.ENQUEUED, 0),
        (MessageStatus.SENDING, 1),
    ]
    again = take(database, batch_id)
    assert [one.message_id for one in again.messages] == [one.message_id for one in first.messages[:2]]
    assert {message.num_attempts for message in list_messages(database, batch_id=batch_id)} == {1}
    assert count(database, attempts) == 3


def test_only_the_claim_that_has_it_puts_it_back(database: Database, batch_id: str) -> None:
    """And not twice; nor what a result or a receipt has moved on."""
    claimed = take(database, batch_id)
    first, second, third = ids(claimed)
    assert put_back(database, "another", [first], now=NOW) == 0
    result = Result(attempt_id=first, status=MessageStatus.SENT, external_id="1")
    record_results(database, claimed.token, [result], now=NOW)
    apply_receipts(database, [Receipt(attempt_id=second, status=MessageStatus.SENT)], now=NOW)
    assert put_back(database, claimed.token, [first, second, third], now=NOW) == 1
    assert put_back(database, claimed.token, [first, second, third], now=NOW) == 0
    statuses = [message.latest_status for message in list_messages(database, batch_id=batch_id)]
    assert statuses == [MessageStatus.SENT, MessageStatus.SENT, MessageStatus.ENQUEUED]


def test_an_attempt_is_open_until_something_is_heard(database: Database, batch_id: str) -> None:
    """A result, a receipt, or that it went back."""
    claimed = take(database, batch_id)
    first, second, third = ids(claimed)
    assert all(is_open(database, one) for one in ids(claimed))
    result = Result(attempt_id=first, status=MessageStatus.SENT, external_id="1")
    record_results(database, claimed.token, [result], now=NOW)
    apply_receipts(database, [Receipt(attempt_id=second, status=MessageStatus.SENT)], now=NOW)
    put_back(database, claimed.token, [third], now=NOW)
    assert not any(is_open(database, one) for one in ids(claimed))


def test_whose_a_providers_id_is(database: Database, batch_id: str) -> None:
    """An id belongs to one attempt; its own does not count."""
    claimed = take(database, batch_id)
    first, second, _third = ids(claimed)
    result = Result(attempt_id=first, status=MessageStatus.SENT, external_id="SM1")
    record_results(database, claimed.token, [result], now=NOW)
    assert owned(database, ["SM1", "SM2"], but_by=second) == {"SM1"}
    assert owned(database, ["SM1", "SM2"], but_by=first) == set()
    assert owned(database, [], but_by=first) == set()
