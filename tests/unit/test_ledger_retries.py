"""Retries, on both databases: once whoever presses twice, at most three a message, and nothing twice unasked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import (
    DAY,
    NOW,
    RECIPIENT,
    SECOND,
    SIMULATOR,
    add_campaign,
    change,
    change_message,
    enqueued_batch,
    jobs_of,
    message_id,
    record_results,
)

from postern.errors import NotFoundError, Refusal
from postern.model import BatchStatus, Campaign, ErrorCode, IdKind, MessageStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import ENQUEUE_RETRIES, SEND_AGAIN, JobKind
from storage.ledger import audit, retries, retry_slices
from storage.ledger.batches import count_messages, get_batch
from storage.ledger.campaigns import delete_campaign
from storage.ledger.cancelling import cancel_batch
from storage.ledger.claiming import claim
from storage.ledger.messages import get_message, list_messages
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result
from storage.ledger.retries import Outlook, batch_outlook, retry_batch, retry_message
from storage.ledger.retry_slices import enqueue_retries
from storage.tables import attempts, batches

pytest_plugins = ["support.databases"]

LATER, STILL_LATER = NOW + 60 * SECOND, NOW + 120 * SECOND
CREATED, ENQUEUED, SENDING, SENT, SUCCESS, FAILURE = (
    MessageStatus.CREATED,
    MessageStatus.ENQUEUED,
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)
EVERY_ROW = (1, 1_000_000)


@pytest.fixture
def campaign(database: Database) -> Campaign:
    """A campaign without a pace to speak of."""
    return add_campaign(database, rate=1e6)


@pytest.fixture
def batch_id(database: Database, jobs: Jobs, campaign: Campaign) -> str:
    """A batch of four messages, in rows 2 to 5."""
    return enqueued_batch(database, jobs, campaign, [RECIPIENT] * 4)


def fail(database: Database, batch_id: str, rows: tuple[int, int] = EVERY_ROW, *, inferred: bool = False) -> None:
    """Send what is enqueued among these rows; all of it fails."""
    claimed = claim(database, batch_id=batch_id, rows=rows, rate=1e6, most=10_000, account=SIMULATOR, now=NOW)
    code = ErrorCode.SERVER_UNKNOWN_ERROR if inferred else ErrorCode.RECIPIENT_UNAVAILABLE
    results = [
        Result(attempt_id=one.attempt_id, status=FAILURE, error_code=code, inferred=inferred)
        for one in claimed.messages
    ]
    record_results(database, claimed.token, results, now=NOW)


def press(database: Database, jobs: Jobs, batch_id: str, *, may_repeat: bool = False, now: Any = LATER) -> Outlook:
    return retry_batch(database, jobs, batch_id, may_repeat=may_repeat, actor="operator", now=now)


def press_one(database: Database, jobs: Jobs, message: str, *, may_repeat: bool = False) -> MessageStatus:
    retried = retry_message(database, jobs, message, may_repeat=may_repeat, actor="operator", now=LATER)
    return retried.latest_status


@dataclass
class Board:
    """Where jobs are left; remembers which ones go on with a retry."""

    jobs: Jobs
    following: list[tuple[Any, ...]] = field(default_factory=list)

    def enqueue(
        self, connection: sa.Connection, kind: JobKind, job_id: str, *arguments: Any, partition: str | None = None
    ) -> None:
        if kind is ENQUEUE_RETRIES:
            self.following.append(arguments)
        self.jobs.enqueue(connection, kind, job_id, *arguments, partition=partition)


def step(
    database: Database,
    jobs: Jobs,
    batch_id: str,
    *,
    after: int = 0,
    failed_until: str = NOW.isoformat(),
    may_repeat: bool = False,
) -> tuple[bool, list[tuple[Any, ...]]]:
    """Do one step of a job; returns whether the job is done, and the arguments of the one that goes on."""
    board = Board(jobs)
    is_done = enqueue_retries(
        database, board, batch_id, after=after, failed_until=failed_until, may_repeat=may_repeat, now=STILL_LATER
    )
    return is_done, board.following


def run_job(
    database: Database, jobs: Jobs, batch_id: str, *, after: int = 0, failed_until: str = NOW.isoformat()
) -> int:
    """Do what the job does, and those that go on behind it; returns how many steps that took."""
    waiting, steps = [(batch_id, after, failed_until, False)], 0
    while waiting:
        _batch, row, until, may_repeat = waiting[0]
        is_done, following = step(database, jobs, batch_id, after=row, failed_until=until, may_repeat=may_repeat)
        waiting = [*waiting[is_done:], *following]
        steps += 1
        assert steps < 100
    return steps


def statuses(database: Database, batch_id: str) -> list[MessageStatus]:
    return [message.latest_status for message in list_messages(database, batch_id=batch_id, limit=10_000)]


def jobs_named(database: Database, name: str) -> list[str]:
    return sorted(job for job, kind in jobs_of(database).items() if kind == name)


def add_deliveries(database: Database, number: int) -> None:
    """Attempts that went well, so many that a database thinks twice about reading them all."""
    rows = [
        {
            **dict.fromkeys(("claim", "provider", "external_id"), "x"),
            "id": new_id(IdKind.ATTEMPT),
            "batch": 1,
            "row": row,
            "number": 1,
            "status": SUCCESS.value,
            "inferred": False,
            "created_at": NOW,
            "updated_at": NOW,
        }
        for row in range(1_000, 1_000 + number)
    ]
    with database.write() as connection:
        connection.execute(attempts.insert(), rows)
        if not database.is_sqlite:
            connection.exec_driver_sql("ANALYZE attempts")


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value.code


def test_a_failed_message_is_created_then_enqueued_then_sent_anew(
    database: Database, jobs: Jobs, batch_id: str
) -> None:
    """Under the same id, by a new attempt; the old one stays as it was."""
    fail(database, batch_id, (3, 3))
    message = message_id(batch_id, 3)
    assert press_one(database, jobs, message) is CREATED
    assert jobs_named(database, ENQUEUE_RETRIES.name) == [f"retry:{batch_id}:1"]
    assert run_job(database, jobs, batch_id, failed_until="") == 2
    assert len(jobs_named(database, SEND_AGAIN.name)) == 1
    assert get_message(database, message).latest_status is ENQUEUED
    claimed = claim(database, batch_id=batch_id, rows=(3, 3), rate=1e6, most=9, account=SIMULATOR, now=LATER)
    found = get_message(database, message)
    assert [one.message_id for one in claimed.messages] == [message]
    assert [(one.number, one.status) for one in found.attempts] == [(1, FAILURE), (2, SENDING)]
    assert found.attempts[0].error_code is ErrorCode.RECIPIENT_UNAVAILABLE
    batch = get_batch(database, batch_id)
    assert (batch.num_retries, batch.status) == (1, BatchStatus.MESSAGES_ENQUEUED)
    (row,) = [row for row in audit.list_audit(database) if row["action"] == "message.retried"]
    assert (row["actor"], row["subject"]) == ("operator", message)


@pytest.mark.parametrize("status", [status for status in MessageStatus if status is not FAILURE])
def test_only_a_failed_message_is_retried(database: Database, jobs: Jobs, batch_id: str, status: MessageStatus) -> None:
    """Whatever else it is, the refusal names it."""
    change_message(database, batch_id, 3, latest_status=status.value)
    assert code_of(lambda: press_one(database, jobs, message_id(batch_id, 3))) == "not_failure"
    assert jobs_named(database, ENQUEUE_RETRIES.name) == []


def test_a_message_is_retried_three_times(database: Database, jobs: Jobs, batch_id: str) -> None:
    """The fourth is refused, alone and with its batch; the others of the batch go."""
    message = message_id(batch_id, 2)
    fail(database, batch_id, (2, 3))
    for _number in range(3):
        assert press_one(database, jobs, message) is CREATED
        run_job(database, jobs, batch_id, failed_until="")
        fail(database, batch_id, (2, 2))
    assert get_message(database, message).num_attempts == 4
    assert code_of(lambda: press_one(database, jobs, message)) == "retries_used_up"
    outlook = press(database, jobs, batch_id)
    assert (outlook.total, outlook.used_up) == (1, 1)
    run_job(database, jobs, batch_id)
    assert statuses(database, batch_id)[:2] == [FAILURE, ENQUEUED]


@pytest.mark.parametrize("status", list(BatchStatus))
def test_a_batch_is_retried_only_once_it_was_enqueued(
    database: Database, jobs: Jobs, batch_id: str, status: BatchStatus
) -> None:
    """Its messages, too."""
    fail(database, batch_id)
    change(database, batches, batch_id, status=status.value)
    if status in {BatchStatus.MESSAGES_ENQUEUED, BatchStatus.MESSAGES_ENQUEUING_FAILED}:
        assert press(database, jobs, batch_id).total == 4
        assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUED
    else:
        assert code_of(lambda: press(database, jobs, batch_id)) == "batch_not_enqueued"
        assert code_of(lambda: press_one(database, jobs, message_id(batch_id, 2))) == "batch_not_enqueued"


def test_nothing_is_retried_of_what_is_not_there(database: Database, jobs: Jobs, batch_id: str) -> None:
    """Unknown ids, no failures, a deleted campaign."""
    for call in (
        lambda: press(database, jobs, new_id(IdKind.BATCH)),
        lambda: press_one(database, jobs, new_id(IdKind.MESSAGE)),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert code_of(lambda: press(database, jobs, batch_id)) == "nothing_to_retry"
    fail(database, batch_id)
    delete_campaign(database, jobs, get_batch(database, batch_id).campaign_id, actor="operator", now=LATER)
    assert code_of(lambda: press(database, jobs, batch_id)) == "campaign_deleted"
    assert code_of(lambda: press_one(database, jobs, message_id(batch_id, 2))) == "campaign_deleted"


def test_a_whole_batch_is_retried_in_slices(
    database: Database, jobs: Jobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a job of few messages in few rows; what did not fail is left alone."""
    monkeypatch.setattr(retry_slices, "_SLICE", 2)
    fail(database, batch_id, (2, 2))
    fail(database, batch_id, (4, 5))
    outlook = press(database, jobs, batch_id)
    assert (outlook.total, outlook.by_code) == (3, {ErrorCode.RECIPIENT_UNAVAILABLE: 3})
    assert statuses(database, batch_id) == [CREATED, ENQUEUED, CREATED, FAILURE]
    run_job(database, jobs, batch_id)
    assert statuses(database, batch_id) == [ENQUEUED] * 4
    assert [job.rsplit(":", 1)[0] for job in jobs_named(database, SEND_AGAIN.name)] == [
        f"again:{batch_id}:2",
        f"again:{batch_id}:5",
    ]
    run_job(database, jobs, batch_id)  # by whoever takes over
    assert len(jobs_named(database, SEND_AGAIN.name)) == 2


def test_a_slice_spans_few_rows(database: Database, jobs: Jobs, batch_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever sends it need not look through the whole batch for a few failures."""
    monkeypatch.setattr(retry_slices, "_SPAN", 3)
    fail(database, batch_id, (2, 2))
    fail(database, batch_id, (5, 5))
    press(database, jobs, batch_id)
    assert statuses(database, batch_id) == [CREATED, ENQUEUED, ENQUEUED, FAILURE]
    run_job(database, jobs, batch_id)
    assert len(jobs_named(database, SEND_AGAIN.name)) == 2


def test_what_fails_again_meanwhile_waits_for_the_next_press(
    database: Database, jobs: Jobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry takes what had failed when it was asked for, once."""
    monkeypatch.setattr(retry_slices, "_SLICE", 1)
    fail(database, batch_id, (2, 3))
    press(database, jobs, batch_id)
    assert step(database, jobs, batch_id, after=2) == (True, [(batch_id, 3, NOW.isoformat(), False)])
    change_message(database, batch_id, 2, latest_status=FAILURE.value, updated_at=NOW - DAY)  # by another clock
    run_job(database, jobs, batch_id, after=3)
    assert statuses(database, batch_id)[:2] == [FAILURE, ENQUEUED]


def test_a_worker_that_dies_repeats_one_slice_at_most(
    database: Database, jobs: Jobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice is committed with the job behind it, so nobody begins anew; a step that is repeated goes on."""
    monkeypatch.setattr(retry_slices, "_SLICE", 1)
    fail(database, batch_id)
    press(database, jobs, batch_id)
    assert step(database, jobs, batch_id, after=2) == (True, [(batch_id, 3, NOW.isoformat(), False)])
    assert jobs_named(database, ENQUEUE_RETRIES.name) == [f"retry:{batch_id}:1", f"retry:{batch_id}:1:3"]
    assert step(database, jobs, batch_id, after=2) == (True, [(batch_id, 4, NOW.isoformat(), False)])
    assert statuses(database, batch_id) == [ENQUEUED, ENQUEUED, CREATED, FAILURE]
    for after in (3, 4):  # the jobs that both have left
        run_job(database, jobs, batch_id, after=after)
    assert statuses(database, batch_id) == [ENQUEUED] * 4
    assert len(jobs_named(database, SEND_AGAIN.name)) == 4
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUED


@pytest.mark.parametrize("skew", [-1, 1])
def test_the_clock_of_whoever_asks_does_not_matter(database: Database, jobs: Jobs, batch_id: str, skew: int) -> None:
    """What had failed is retried, all of it, also by a clock that is a day behind the workers'."""
    fail(database, batch_id)
    assert press(database, jobs, batch_id, now=NOW + skew * DAY).total == 4
    assert statuses(database, batch_id) == [CREATED] * 4


def test_a_failure_that_nobody_agreed_to_repeat_is_left_alone(database: Database, jobs: Jobs, batch_id: str) -> None:
    """Our own conclusion that came while the retry was on its way."""
    fail(database, batch_id, (2, 4))
    press(database, jobs, batch_id)
    fail(database, batch_id, (5, 5), inferred=True)
    assert step(database, jobs, batch_id, after=4)[1] == []
    assert statuses(database, batch_id)[3] is FAILURE
    assert step(database, jobs, batch_id, after=4, may_repeat=True)[1] == [(batch_id, 5, NOW.isoformat(), True)]


def test_a_second_retry_of_a_batch_fails_while_one_is_on_its_way(database: Database, jobs: Jobs, batch_id: str) -> None:
    """It sets messages_enqueuing_failed; the first one goes on, sends, and sets it right again."""
    fail(database, batch_id, (2, 3))
    press(database, jobs, batch_id)
    assert code_of(lambda: press(database, jobs, batch_id)) == "retry_under_way"
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUING_FAILED
    claimed = claim(database, batch_id=batch_id, rows=EVERY_ROW, rate=1e6, most=9, account=SIMULATOR, now=LATER)
    assert len(claimed.messages) == 2  # what had not been sent yet goes on
    run_job(database, jobs, batch_id)
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUED


@pytest.mark.parametrize("of_batch", [True, False])
def test_eight_presses_are_one_retry(database: Database, jobs: Jobs, batch_id: str, of_batch: bool) -> None:
    """The others are told."""
    fail(database, batch_id)

    def once(_number: int) -> str:
        try:
            if of_batch:
                press(database, jobs, batch_id)
            else:
                press_one(database, jobs, message_id(batch_id, 2))
        except Refusal as refusal:
            return refusal.code
        return "retried"

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(once, range(8)))
    other = "retry_under_way" if of_batch else "not_failure"
    assert codes == sorted(["retried"] + [other] * 7)
    run_job(database, jobs, batch_id, failed_until=NOW.isoformat() if of_batch else "")
    assert get_batch(database, batch_id).num_retries == 1
    assert len(jobs_named(database, SEND_AGAIN.name)) == 1


def test_an_inferred_failure_is_retried_only_where_twice_is_accepted(
    database: Database, jobs: Jobs, batch_id: str
) -> None:
    """Nobody knows whether it was delivered."""
    fail(database, batch_id, (2, 3), inferred=True)
    fail(database, batch_id, (4, 5))
    message = message_id(batch_id, 2)
    assert code_of(lambda: press_one(database, jobs, message)) == "may_deliver_twice"
    assert code_of(lambda: press(database, jobs, batch_id)) == "may_deliver_twice"
    assert statuses(database, batch_id) == [FAILURE] * 4
    assert batch_outlook(database, batch_id).inferred == 2
    assert press_one(database, jobs, message, may_repeat=True) is CREATED
    run_job(database, jobs, batch_id, failed_until="")
    assert press(database, jobs, batch_id, may_repeat=True).total == 3


@pytest.mark.parametrize(("reported", "waiting", "sending"), [(SUCCESS, SUCCESS, SENDING), (FAILURE, CREATED, SENDING)])
def test_a_late_receipt_for_an_older_attempt(
    database: Database,
    jobs: Jobs,
    batch_id: str,
    reported: MessageStatus,
    waiting: MessageStatus,
    sending: MessageStatus,
) -> None:
    """It does not touch the new one; while there is none yet, a delivery makes the retry needless."""
    fail(database, batch_id, (2, 3), inferred=True)
    press(database, jobs, batch_id, may_repeat=True)
    first, second = list_messages(database, batch_id=batch_id, limit=2)
    apply_receipts(database, [Receipt(attempt_id=first.attempts[0].id, status=reported)], now=LATER)
    assert get_message(database, first.id).latest_status is waiting
    run_job(database, jobs, batch_id)
    claimed = claim(database, batch_id=batch_id, rows=(2, 3), rate=1e6, most=9, account=SIMULATOR, now=LATER)
    assert (first.id in {one.message_id for one in claimed.messages}) is (reported is FAILURE)
    apply_receipts(database, [Receipt(attempt_id=second.attempts[0].id, status=reported)], now=LATER)
    after = get_message(database, second.id)
    assert (after.latest_status, after.attempts[0].status) == (sending, reported)


def test_a_cancelled_batch_ends_its_retries(database: Database, jobs: Jobs, batch_id: str) -> None:
    """A job of retries that comes later does nothing."""
    fail(database, batch_id)
    press(database, jobs, batch_id)
    cancel_batch(database, jobs, batch_id, actor="operator", now=LATER)
    assert run_job(database, jobs, batch_id) == 1
    assert count_messages(database, batch_id) == {CREATED: 4}
    assert jobs_named(database, SEND_AGAIN.name) == []


def test_failures_are_found_by_an_index(database: Database, batch_id: str) -> None:
    """Nobody reads the whole batch to find them."""
    fail(database, batch_id, (2, 2))
    add_deliveries(database, 3_000)
    seen: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "attempts.status = 'failure'" in statement or "latest_status = 'created'" in statement:
            explained.append((statement, parameters))

    explained: list[tuple[str, Any]] = []
    with database.write() as connection:
        retries._outlook(connection, 1)
        retry_slices.has_created(connection, 1)
        retry_slices.mark(connection, 1, 0, LATER, may_repeat=False, now=LATER)
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert len(explained) == 3
    with database.read() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in explained:
            explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            seen.append(" ".join(str(row) for row in rows))
    assert ["ix_attempts_failed" in plan or "ix_messages_created" in plan for plan in seen] == [True] * 3, seen
