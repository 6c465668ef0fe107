"""Attempts whose hand-over certainly did not happen, on both databases."""

import pytest
from support.domain import NOW, RECIPIENT, SIMULATOR, add_campaign, count, enqueued_batch, record_results

from postern.model import MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.claiming import Claim, claim
from storage.ledger.messages import list_messages
from storage.ledger.putting_back import put_back
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result
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


def back(database: Database, token: str, attempt_ids: list[str]) -> int:
    with database.write() as connection:
        return put_back(connection, [(token, one) for one in attempt_ids], now=NOW)


def test_what_is_put_back_waits_as_before(database: Database, batch_id: str) -> None:
    """Enqueued, with no attempt used up, and claimed again in its place."""
    first = take(database, batch_id)
    assert back(database, first.token, ids(first)[:2]) == 2
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
    assert back(database, "another", [first]) == 0
    result = Result(attempt_id=first, status=MessageStatus.SENT, external_id="1")
    record_results(database, claimed.token, [result], now=NOW)
    apply_receipts(database, [Receipt(attempt_id=second, status=MessageStatus.SENT)], now=NOW)
    assert back(database, claimed.token, [first, second, third]) == 1
    assert back(database, claimed.token, [first, second, third]) == 0
    statuses = [message.latest_status for message in list_messages(database, batch_id=batch_id)]
    assert statuses == [MessageStatus.SENT, MessageStatus.SENT, MessageStatus.ENQUEUED]
