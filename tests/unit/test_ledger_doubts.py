"""Attempts of which nobody knows whether they were handed over, on both databases."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SECOND,
    SIMULATOR,
    add_campaign,
    enqueued_batch,
    jobs_of,
    open_ids,
    record_results,
)

from postern.model import ErrorCode, MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.claiming import Claim, claim
from storage.ledger.doubts import OpenAttempt, doubt_what_is_open, is_open, open_attempts, settle
from storage.ledger.messages import list_messages
from storage.ledger.putting_back import put_back
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result

pytest_plugins = ["support.databases"]

FAST = 1e6
SENT, FAILURE = MessageStatus.SENT, MessageStatus.FAILURE


@pytest.fixture
def batch_id(database: Database, jobs: Jobs) -> str:
    """A batch of four messages, of which two go to the same number."""
    recipients = [RECIPIENT, RECIPIENT, "6590000001", "6590000002"]
    return enqueued_batch(database, jobs, add_campaign(database, rate=FAST), recipients)


def take(database: Database, batch_id: str) -> Claim:
    return claim(database, batch_id=batch_id, rows=(1, 9), rate=FAST, most=9, account=SIMULATOR, now=NOW)


def ids(claimed: Claim) -> list[str]:
    return [message.attempt_id for message in claimed.messages]


def sent(attempt: OpenAttempt, external_id: str) -> Result:
    return Result(attempt_id=attempt.claimed.attempt_id, status=SENT, external_id=external_id)


def given_up(attempt: OpenAttempt) -> Result:
    return Result(
        attempt_id=attempt.claimed.attempt_id,
        status=FAILURE,
        error_code=ErrorCode.SERVER_UNKNOWN_ERROR,
        inferred=True,
    )


def conclude(
    database: Database, attempt: OpenAttempt, found: Sequence[str], *, is_last: bool = False
) -> MessageStatus | None:
    candidates = [sent(attempt, external_id) for external_id in found]
    otherwise = given_up(attempt) if is_last else None
    result = settle(database, attempt, candidates, otherwise=otherwise, now=NOW + SECOND)
    return result and result.status


def statuses(database: Database, batch_id: str) -> list[tuple[MessageStatus, str]]:
    found = list_messages(database, batch_id=batch_id)
    return [(one.latest_status, one.attempts[-1].external_id) for one in found if one.attempts]


def test_what_is_open_gets_a_job(database: Database, jobs: Jobs, batch_id: str) -> None:
    """Of these rows only, and the same ones twice are one job."""
    claimed = take(database, batch_id)
    record_results(database, claimed.token, [Result(attempt_id=ids(claimed)[0], status=SENT, external_id="1")], now=NOW)
    for _ in range(2):
        assert doubt_what_is_open(database, jobs, batch_id, (2, 4)) == 2
    assert len([job for job in jobs_of(database) if job.startswith(f"doubts:{batch_id}:")]) == 1
    assert doubt_what_is_open(database, jobs, batch_id, (2, 5)) == 3
    assert len([job for job in jobs_of(database) if job.startswith(f"doubts:{batch_id}:")]) == 2


def test_an_open_attempt_has_all_that_a_provider_can_be_asked_about(database: Database, batch_id: str) -> None:
    """As it was claimed; those that are settled are left out."""
    claimed = take(database, batch_id)
    first, second, *_rest = claimed.messages
    record_results(
        database, claimed.token, [Result(attempt_id=first.attempt_id, status=SENT, external_id="1")], now=NOW
    )
    (found,) = open_attempts(database, batch_id, [first.attempt_id, second.attempt_id])
    assert found == OpenAttempt(claimed=second, claim=claimed.token, provider="simulator", created_at=NOW)


def test_an_attempt_is_open_until_something_is_heard(database: Database, batch_id: str) -> None:
    """A result, a receipt, or that it went back."""
    claimed = take(database, batch_id)
    first, second, third, fourth = ids(claimed)
    assert all(is_open(database, one) for one in ids(claimed))
    record_results(database, claimed.token, [Result(attempt_id=first, status=SENT, external_id="1")], now=NOW)
    apply_receipts(database, [Receipt(attempt_id=second, status=SENT)], now=NOW)
    with database.write() as connection:
        put_back(connection, [(claimed.token, third)], now=NOW)
    assert [is_open(database, one) for one in (first, second, third, fourth)] == [False, False, False, True]
    assert open_ids(database, batch_id) == [fourth]


def test_what_the_provider_has_settles_a_doubt(database: Database, batch_id: str) -> None:
    """Where nobody else's it can be; where there is nothing, it stays open until the last look."""
    claimed = take(database, batch_id)
    third, fourth = open_attempts(database, batch_id, ids(claimed)[2:])
    assert conclude(database, third, ["SM3"]) is SENT
    assert conclude(database, fourth, []) is None
    assert conclude(database, fourth, ["SM3"]) is None  # another's
    assert conclude(database, fourth, ["SM3"], is_last=True) is FAILURE
    assert statuses(database, batch_id)[2:] == [(SENT, "SM3"), (FAILURE, "")]


def test_one_message_is_not_believed_to_be_two(database: Database, batch_id: str) -> None:
    """While the other row to the same number is on its way too, one message at the provider may be that one's."""
    claimed = take(database, batch_id)
    first, second = open_attempts(database, batch_id, ids(claimed)[:2])
    assert conclude(database, first, ["SM1"]) is None
    record_results(database, claimed.token, [sent(second, "SM1")], now=NOW)  # its own answer came late
    assert conclude(database, first, ["SM1"], is_last=True) is FAILURE
    assert statuses(database, batch_id)[:2] == [(FAILURE, ""), (SENT, "SM1")]


def test_what_a_provider_knows_by_our_id_is_certain(database: Database, batch_id: str) -> None:
    """Whatever else is on its way to the same number."""
    first, _second = open_attempts(database, batch_id, ids(take(database, batch_id))[:2])
    result = settle(database, first, [sent(first, "SM1")], is_certain=True, otherwise=None, now=NOW)
    assert result is not None
    assert statuses(database, batch_id)[0] == (SENT, "SM1")


def test_two_messages_are_enough_for_two_rows(database: Database, batch_id: str) -> None:
    """Then each of them was taken, whichever is whose; however many settle at once."""
    found = open_attempts(database, batch_id, ids(take(database, batch_id))[:2])
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda one: conclude(database, one, ["SM1", "SM2"]), found)) == [SENT, SENT]
    assert sorted(external_id for _status, external_id in statuses(database, batch_id)[:2]) == ["SM1", "SM2"]


def test_a_receipt_that_was_faster_stays(database: Database, batch_id: str) -> None:
    """What is concluded later changes nothing but what was missing."""
    (attempt,) = open_attempts(database, batch_id, ids(take(database, batch_id))[3:])
    receipt = Receipt(attempt_id=attempt.claimed.attempt_id, status=MessageStatus.SUCCESS, external_id="SM4")
    apply_receipts(database, [receipt], now=NOW)
    conclude(database, attempt, [], is_last=True)
    assert statuses(database, batch_id)[3] == (MessageStatus.SUCCESS, "SM4")


def test_whose_a_message_is_already_is_found_by_an_index(database: Database, batch_id: str) -> None:
    """However many attempts there are; those that the provider never named do not stand in it."""
    take(database, batch_id)
    (attempt, *_rest) = open_attempts(database, batch_id, open_ids(database, batch_id))
    found: list[tuple[str, Any]] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "external_id IN" in statement:
            found.append((statement, parameters))

    conclude(database, attempt, ["1", "2"])
    sa.event.remove(database.engine, "before_cursor_execute", note)
    ((statement, parameters),) = found
    with database.write() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        plan = " ".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))
    assert "ix_attempts_external_id" in plan
