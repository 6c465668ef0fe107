"""Claims, results and receipts, on both databases: at most once per attempt, at the campaign's pace."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SECOND,
    SIMULATOR,
    SimulatedClock,
    add_campaign,
    change,
    change_message,
    count,
    enqueued_batch,
    message_id,
    open_ids,
    record_results,
    validating_upload,
    write_batch,
)

from postern.model import BatchStatus, ErrorCode, IdKind, MessageStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import count_messages
from storage.ledger.claiming import Claim, claim, give_back, new_token, worker_of
from storage.ledger.messages import Attempt, get_message, list_messages
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result, write_results
from storage.tables import attempts, batches, campaigns

pytest_plugins = ["support.databases"]

FAST = 1e6  # messages a second: no pace to speak of
SENDING, SENT, TELCO, SUCCESS, FAILURE = (
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.SENT_TO_TELCO,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)


@pytest.fixture
def batch_id(database: Database, jobs: Jobs) -> str:
    """A batch of four messages, in rows 2 to 5."""
    return enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 4)


def take(
    database: Database,
    batch_id: str,
    *,
    rows: tuple[int, int] = (1, 1_000_000),
    rate: float = FAST,
    most: int = 1000,
    clock: SimulatedClock | None = None,
) -> Claim:
    now = clock() if clock else NOW
    return claim(database, batch_id=batch_id, rows=rows, rate=rate, most=most, account=SIMULATOR, now=now)


def sent(attempt_id: str, external_id: str = "external_1") -> Result:
    return Result(attempt_id=attempt_id, status=SENT, external_id=external_id)


def unknown(attempt_id: str) -> Result:
    """What is concluded when nobody can tell."""
    return Result(
        attempt_id=attempt_id,
        status=FAILURE,
        error_code=ErrorCode.SERVER_UNKNOWN_ERROR,
        error_note="Nobody can tell.",
        inferred=True,
    )


def refused(attempt_id: str, code: ErrorCode = ErrorCode.RECIPIENT_INVALID) -> Result:
    return Result(attempt_id=attempt_id, status=FAILURE, error_code=code)


def receipt(attempt_id: str, status: MessageStatus, external_id: str = "") -> Receipt:
    code = ErrorCode.ROUTING_ERROR if status is FAILURE else None
    return Receipt(attempt_id=attempt_id, status=status, external_id=external_id, error_code=code)


def attempt_of(database: Database, message: str) -> Attempt:
    (attempt,) = get_message(database, message).attempts
    return attempt


# Claims


def test_a_claim_takes_rows_in_order(database: Database, batch_id: str) -> None:
    """Up to as many as asked, with an attempt each, before anything is sent."""
    claimed = take(database, batch_id, most=3)
    assert [message.message_id for message in claimed.messages] == [message_id(batch_id, row) for row in (2, 3, 4)]
    assert (claimed.messages[0].recipient, claimed.messages[0].values) == (RECIPIENT, {"name": "Emily"})
    first, *_, last = list_messages(database, batch_id=batch_id)
    assert (first.latest_status, first.num_attempts) == (SENDING, 1)
    assert (last.latest_status, last.num_attempts, last.attempts) == (MessageStatus.ENQUEUED, 0, ())
    (attempt,) = first.attempts
    assert (attempt.id, attempt.number, attempt.status) == (claimed.messages[0].attempt_id, 1, SENDING)
    assert (attempt.provider, attempt.sent_at, attempt.inferred) == ("simulator", None, False)


def test_claims_end_when_nothing_is_left(database: Database, batch_id: str) -> None:
    """Claimed messages are never claimed again."""
    assert len(take(database, batch_id).messages) == 4
    again = take(database, batch_id)
    assert (again.messages, again.is_done) == ((), True)
    assert count(database, attempts) == 4


def test_a_claim_keeps_to_its_rows(database: Database, batch_id: str) -> None:
    """A chunk takes nothing of the next one."""
    claimed = take(database, batch_id, rows=(3, 4))
    assert [message.message_id for message in claimed.messages] == [message_id(batch_id, row) for row in (3, 4)]
    assert take(database, batch_id, rows=(3, 4)).is_done


@pytest.mark.parametrize("status", [status for status in BatchStatus if status != BatchStatus.MESSAGES_ENQUEUED])
def test_only_an_enqueued_batch_is_claimed(database: Database, batch_id: str, status: BatchStatus) -> None:
    """Nothing leaves before the batch is whole, or after it was cancelled."""
    change(database, batches, batch_id, status=status.value, enqueued_at=None)
    assert take(database, batch_id).is_done
    assert count(database, attempts) == 0


def test_a_batch_cancelled_halfway_is_claimed_no_further(database: Database, batch_id: str) -> None:
    """What was not handed over yet is not sent."""
    take(database, batch_id, most=1)
    change(database, batches, batch_id, status=BatchStatus.CANCELLED.value)
    assert take(database, batch_id).is_done
    assert count(database, attempts) == 1


def test_nothing_is_claimed_while_rows_are_written(database: Database, jobs: Jobs) -> None:
    """A batch that is still being written sends nothing."""
    batch_id = write_batch(database, validating_upload(database, jobs, add_campaign(database)), [RECIPIENT])
    assert take(database, batch_id).is_done


def test_a_deleted_campaign_is_not_claimed(database: Database, batch_id: str) -> None:
    """Nothing more is sent after the deletion."""
    campaign_id = get_message(database, message_id(batch_id, 2)).campaign_id
    change(database, campaigns, campaign_id, deleted_at=NOW)
    assert take(database, batch_id).is_done
    assert count(database, attempts) == 0


def test_no_message_is_claimed_twice_by_many_at_once(database: Database, jobs: Jobs) -> None:
    """Eight senders that know nothing of each other share a batch."""
    batch_id = enqueued_batch(database, jobs, add_campaign(database, rate=FAST), [RECIPIENT] * 300)

    def send_all(_number: int) -> list[str]:
        taken: list[str] = []
        clock = SimulatedClock()
        while not (claimed := take(database, batch_id, most=7, clock=clock)).is_done:
            taken += [message.message_id for message in claimed.messages]
            clock.advance(claimed.wait)
        return taken

    with ThreadPoolExecutor(8) as threads:
        taken = [message for found in threads.map(send_all, range(8)) for message in found]
    assert Counter(taken) == Counter(message_id(batch_id, row) for row in range(2, 302))
    assert count(database, attempts) == 300


def test_a_claim_that_may_have_been_committed_is_made_again(database: Database, batch_id: str) -> None:
    """What it took the first time goes back first: nothing of it was handed over, and nobody else knows of it."""
    token = new_token("worker-1")
    for is_again in (False, True):
        again = claim(
            database, batch_id=batch_id, rows=(1, 9), rate=FAST, most=3, account=SIMULATOR, now=NOW, token=token,
            is_again=is_again,
        )  # fmt: skip
        assert [message.message_id for message in again.messages] == [message_id(batch_id, row) for row in (2, 3, 4)]
    assert (count(database, attempts), worker_of(again.token)) == (3, "worker-1")
    assert {one.num_attempts for one in list_messages(database, batch_id=batch_id)} == {0, 1}


def test_a_slice_of_a_huge_batch_costs_no_more_than_one_of_a_small_batch(postgresql_url: str) -> None:
    """Also while the server's statistics know other batches only, and where what is recorded lies far apart."""
    database, jobs = Database(postgresql_url), Jobs(postgresql_url)
    campaign, fetched = add_campaign(database, rate=FAST), list[int]()
    enqueued_batch(database, jobs, campaign, [RECIPIENT] * 3_000)
    with database.write() as connection:
        connection.execute(sa.text("ANALYZE"))
    batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 3_000)

    @sa.event.listens_for(database.engine, "commit")
    def commit(connection: sa.Connection) -> None:
        query = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'messages'"
        fetched.append(connection.exec_driver_sql(query).scalar_one())

    claims = [take(database, batch_id, rows=(first, 5_000), most=10) for first in (2, 2_900)]
    results = [(claimed.token, sent(one.attempt_id)) for claimed in claims for one in claimed.messages]
    with database.write() as connection:
        write_results(connection, results, now=NOW)
    assert len(fetched) == 3
    assert max(fetched) < 100
    assert count_messages(database, batch_id)[SENT] == 20
    jobs.close()
    database.dispose()


@pytest.mark.parametrize("is_made_again", [True, False])
def test_what_is_being_committed_goes_back_first(database: Database, batch_id: str, is_made_again: bool) -> None:
    """Whoever made it is dead, but the server is at its commit: what it takes goes back all the same."""
    of_the_dead, token = Database(database.engine.url.render_as_string(hide_password=False)), new_token("worker-1")
    commits, goes_on = threading.Event(), threading.Event()

    @sa.event.listens_for(of_the_dead.engine, "commit")
    def commit(_connection: sa.Connection) -> None:
        commits.set()
        assert goes_on.wait(20)

    what: dict[str, Any] = {
        "batch_id": batch_id, "rows": (1, 9), "rate": FAST, "account": SIMULATOR, "now": NOW, "token": token,
    }  # fmt: skip

    def again() -> list[str]:
        if not is_made_again:
            give_back(database, **what)
            return []
        return [one.message_id for one in claim(database, **what, most=2, is_again=True).messages]

    with ThreadPoolExecutor(2) as threads:
        threads.submit(claim, of_the_dead, **what, most=2)
        assert commits.wait(20)
        waits = threads.submit(again)
        with pytest.raises(TimeoutError):
            waits.result(0.5)
        goes_on.set()
        rows = (2, 3) if is_made_again else ()
        assert waits.result(20) == [message_id(batch_id, row) for row in rows]
    assert count(database, attempts) == len(rows)
    of_the_dead.dispose()


# Pace


def send_simulated(
    database: Database, batch_id: str, clock: SimulatedClock, *, rate: float, most: int, senders: int
) -> list[float]:
    """The simulated times at which messages left, with senders that wake up a little late."""
    chance = random.Random(4)
    wake = [clock.now.timestamp()] * senders
    times: list[float] = []
    for _ in range(100_000):
        sender = wake.index(min(wake))
        clock.advance(max(0.0, wake[sender] - clock.now.timestamp()))
        claimed = take(database, batch_id, rate=rate, most=most, clock=clock)
        if claimed.is_done:
            return times
        times += [clock.now.timestamp()] * len(claimed.messages)
        wake[sender] = clock.now.timestamp() + claimed.wait + chance.uniform(0.001, 0.03)
    raise AssertionError("the batch came to no end")


def busiest_second(times: Sequence[float]) -> int:
    return max(sum(start <= time < start + 1 for time in times) for start in times)


@pytest.mark.parametrize(("rate", "senders"), [(20.0, 1), (20.0, 3), (50.0, 2)])
def test_a_batch_leaves_at_the_campaigns_rate(database: Database, jobs: Jobs, rate: float, senders: int) -> None:
    """Within 5% over all, and never more than 1.4 times as fast in any second, however many senders share it."""
    total = int(rate * 15)
    batch_id = enqueued_batch(database, jobs, add_campaign(database, rate=rate), [RECIPIENT] * total)
    times = send_simulated(database, batch_id, SimulatedClock(), rate=rate, most=200, senders=senders)
    assert len(times) == total
    assert (times[-1] - times[0]) * rate == pytest.approx(total, rel=0.05)
    assert busiest_second(times) <= 1.4 * rate


def test_a_pause_is_not_caught_up(database: Database, jobs: Jobs) -> None:
    """After a minute of silence the rate is what it was."""
    rate = 20.0
    campaign = add_campaign(database, rate=rate)
    clock = SimulatedClock()
    for _ in range(2):
        batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 60)
        times = send_simulated(database, batch_id, clock, rate=rate, most=5, senders=1)
        assert busiest_second(times) <= 1.4 * rate
        clock.advance(60)


def test_batches_of_a_campaign_share_its_pace(database: Database, jobs: Jobs) -> None:
    """The rate is the campaign's, not the batch's; another campaign has its own."""
    campaign = add_campaign(database, rate=10)
    first, second = (enqueued_batch(database, jobs, campaign, [RECIPIENT] * 50) for _ in range(2))
    other = enqueued_batch(database, jobs, add_campaign(database, rate=10), [RECIPIENT])
    taken = take(database, first, rate=10)
    assert (len(taken.messages), taken.wait) == (3, pytest.approx(0.05))  # a quarter of a second, and a tenth more
    waiting = take(database, second, rate=10)
    assert (waiting.messages, waiting.wait) == ((), pytest.approx(taken.wait))
    assert take(database, other, rate=10, most=5).messages


def test_a_claim_after_its_wait_goes_through(database: Database, jobs: Jobs) -> None:
    """What a claim says it has to wait is enough, and no less would be."""
    batch_id = enqueued_batch(database, jobs, add_campaign(database, rate=1), [RECIPIENT] * 9)
    clock = SimulatedClock()
    wait = take(database, batch_id, rate=1, clock=clock).wait
    clock.advance(wait - 0.01)
    assert take(database, batch_id, rate=1, most=1, clock=clock).wait == pytest.approx(0.01, abs=1e-4)
    clock.advance(0.0101)
    assert take(database, batch_id, rate=1, most=1, clock=clock).messages


# Results


def test_results_are_recorded(database: Database, batch_id: str) -> None:
    """Sent with the provider's id, refused with its code, unknown with our note."""
    claimed = take(database, batch_id)
    first, second, third, _ = (message.attempt_id for message in claimed.messages)
    results = [sent(first), refused(second), unknown(third)]
    record_results(database, claimed.token, results, now=NOW + SECOND)
    found = list_messages(database, batch_id=batch_id)
    assert [message.latest_status for message in found] == [SENT, FAILURE, FAILURE, SENDING]
    one, two, three, four = (message.attempts[0] for message in found)
    assert (one.status, one.external_id, one.error_code, one.sent_at) == (SENT, "external_1", None, NOW + SECOND)
    assert (two.error_code, two.error_note, two.inferred) == (ErrorCode.RECIPIENT_INVALID, None, False)
    assert (three.error_code, three.inferred) == (ErrorCode.SERVER_UNKNOWN_ERROR, True)
    assert three.error_note == "Nobody can tell."
    assert (two.sent_at, three.sent_at) == (None, None)
    assert (four.status, four.sent_at) == (SENDING, None)


def test_a_doubt_settled_later_was_sent_when_it_was_claimed(database: Database, batch_id: str) -> None:
    """Its clocks run from the hand-over, not from when somebody found out; whether a look-up or a receipt told."""
    claimed = take(database, batch_id, most=2)
    first, second = claimed.messages
    record_results(database, claimed.token, [sent(first.attempt_id)], now=NOW + 9 * SECOND, handed_over=NOW)
    apply_receipts(database, [receipt(second.attempt_id, SENT, "external_2")], now=NOW + 9 * SECOND)
    assert [attempt_of(database, one.message_id).sent_at for one in (first, second)] == [NOW, NOW]


def test_results_recorded_twice_are_recorded_once(database: Database, batch_id: str) -> None:
    """The first result of an attempt stands."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW)
    before = get_message(database, message.message_id)
    record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW + SECOND)
    record_results(database, claimed.token, [refused(message.attempt_id)], now=NOW + SECOND)
    assert get_message(database, message.message_id) == before


@pytest.mark.parametrize("late", [sent, refused, unknown])
def test_results_under_a_stale_token_change_nothing(database: Database, batch_id: str, late) -> None:
    """A sender that woke up late has no say, whether the attempt is open or settled."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    for settled in (None, unknown(message.attempt_id)):
        if settled:
            record_results(database, claimed.token, [settled], now=NOW)
        before = get_message(database, message.message_id)
        record_results(database, "another token", [late(message.attempt_id)], now=NOW + SECOND)
        assert get_message(database, message.message_id) == before


def test_a_late_result_does_not_undo_our_conclusion(database: Database, batch_id: str) -> None:
    """The attempt was given up as unknown; only what the provider calls it is added."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    record_results(database, claimed.token, [unknown(message.attempt_id)], now=NOW)
    record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW + SECOND)
    attempt = attempt_of(database, message.message_id)
    assert (attempt.status, attempt.inferred, attempt.external_id) == (FAILURE, True, "external_1")


@pytest.mark.parametrize("external_id", ["", "external_1"])
def test_a_result_after_the_receipt_adds_what_is_missing(database: Database, batch_id: str, external_id: str) -> None:
    """The provider was faster than our record: the status stays, its id is added. It was sent before that."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    apply_receipts(database, [receipt(message.attempt_id, SUCCESS, external_id)], now=NOW)
    record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW + SECOND)
    attempt = attempt_of(database, message.message_id)
    assert (attempt.status, attempt.external_id) == (SUCCESS, "external_1")
    assert (attempt.sent_at, attempt.delivered_at) == (NOW, NOW)
    assert get_message(database, message.message_id).latest_status is SUCCESS


def test_many_results_are_recorded_at_once(database: Database, batch_id: str) -> None:
    """Those that a receipt was faster for, and those of another claim, are not touched."""
    claimed = take(database, batch_id, most=3)
    first, second, third = (message.attempt_id for message in claimed.messages)
    (other,) = take(database, batch_id).messages
    apply_receipts(database, [receipt(second, SUCCESS, "external_2")], now=NOW)
    results = [sent(one, f"external_{number}") for number, one in enumerate((first, second, third), start=1)]
    record_results(database, claimed.token, [*results, sent(other.attempt_id)], now=NOW + SECOND)
    found = list_messages(database, batch_id=batch_id)
    assert [message.latest_status for message in found] == [SENT, SUCCESS, SENT, SENDING]
    (attempts_of,) = zip(*(message.attempts for message in found), strict=True)
    assert [one.external_id for one in attempts_of] == ["external_1", "external_2", "external_3", ""]
    assert [one.sent_at for one in attempts_of] == [NOW + SECOND, NOW, NOW + SECOND, None]


def test_what_a_sender_says_late_mends_a_conclusion(database: Database, batch_id: str) -> None:
    """Taken after all: the provider is asked for its final word. Refused after all: that is what it was."""
    claimed = take(database, batch_id, most=2)
    first, second = (message.attempt_id for message in claimed.messages)
    record_results(database, claimed.token, [unknown(first), unknown(second)], now=NOW)
    record_results(database, claimed.token, [sent(first), refused(second)], now=NOW + SECOND)
    taken, not_taken, *_rest = (one.attempts for one in list_messages(database, batch_id=batch_id))
    assert (taken[0].status, taken[0].inferred, taken[0].external_id) == (FAILURE, True, "external_1")
    with database.read() as connection:
        due = connection.execute(sa.select(attempts.c.due_at).where(attempts.c.id == first)).scalar_one()
    assert due is not None
    assert (not_taken[0].error_code, not_taken[0].inferred) == (ErrorCode.RECIPIENT_INVALID, False)


def test_no_results_are_harmless(database: Database, batch_id: str) -> None:
    """A claim of which nothing came back leaves all open."""
    claimed = take(database, batch_id)
    record_results(database, claimed.token, [], now=NOW)
    assert open_ids(database, batch_id) == [one.attempt_id for one in claimed.messages]


# Receipts


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ([SENT], SENT),
        ([SUCCESS], SUCCESS),
        ([SENT, TELCO, SUCCESS], SUCCESS),
        ([SUCCESS, TELCO, SENT], SUCCESS),
        ([TELCO, SENT], TELCO),
        ([SUCCESS, SUCCESS], SUCCESS),
        ([SUCCESS, FAILURE], SUCCESS),
        ([FAILURE, SUCCESS], FAILURE),
        ([FAILURE, FAILURE, TELCO], FAILURE),
        ([TELCO, TELCO, FAILURE], FAILURE),
    ],
)
@pytest.mark.parametrize("recorded", [True, False], ids=["after our record", "before our record"])
def test_receipts_move_forward_only(
    database: Database, batch_id: str, reported: list[MessageStatus], shown: MessageStatus, recorded: bool
) -> None:
    """Late, repeated and out of order, before our own record or after it: the end is the same."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    if recorded:
        record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW)
    for number, status in enumerate(reported, start=1):
        apply_receipts(database, [receipt(message.attempt_id, status)], now=NOW + number * SECOND)
    record_results(database, claimed.token, [sent(message.attempt_id)], now=NOW + timedelta(minutes=1))
    found = get_message(database, message.message_id)
    assert (found.latest_status, found.attempts[0].status) == (shown, shown)
    assert (found.attempts[0].delivered_at is not None) is (shown is SUCCESS)
    assert (found.attempts[0].error_code is not None) is (shown is FAILURE)


def test_receipts_count_what_moved(database: Database, batch_id: str) -> None:
    """A repeated one and one of nobody's attempt move nothing."""
    (message,) = take(database, batch_id, most=1).messages
    stranger = receipt(new_id(IdKind.ATTEMPT), SUCCESS)
    assert apply_receipts(database, [stranger, receipt(message.attempt_id, SUCCESS)], now=NOW) == 1
    assert apply_receipts(database, [stranger, receipt(message.attempt_id, SUCCESS)], now=NOW) == 0


@pytest.mark.parametrize("final", [SUCCESS, FAILURE])
def test_a_final_receipt_overrides_an_inferred_failure(database: Database, batch_id: str, final: MessageStatus) -> None:
    """What we only concluded gives way to what the provider says, once."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    record_results(database, claimed.token, [unknown(message.attempt_id)], now=NOW)
    assert apply_receipts(database, [receipt(message.attempt_id, TELCO)], now=NOW) == 0
    assert apply_receipts(database, [receipt(message.attempt_id, final, "external_2")], now=NOW + SECOND) == 1
    attempt = attempt_of(database, message.message_id)
    assert (attempt.status, attempt.inferred, attempt.error_note) == (final, False, None)
    assert attempt.error_code == (None if final is SUCCESS else ErrorCode.ROUTING_ERROR)
    assert attempt.external_id == "external_2"
    other = SUCCESS if final is FAILURE else FAILURE
    assert apply_receipts(database, [receipt(message.attempt_id, other)], now=NOW) == 0


def test_a_reported_failure_is_never_overridden(database: Database, batch_id: str) -> None:
    """The provider refused it; a later receipt is somebody's mistake."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    record_results(database, claimed.token, [refused(message.attempt_id)], now=NOW)
    assert apply_receipts(database, [receipt(message.attempt_id, SUCCESS)], now=NOW) == 0
    assert attempt_of(database, message.message_id).error_code is ErrorCode.RECIPIENT_INVALID


def test_an_older_attempt_does_not_touch_the_message(database: Database, batch_id: str) -> None:
    """A message shows its latest attempt; the receipt of the one before is kept with that one."""
    claimed = take(database, batch_id, most=1)
    (message,) = claimed.messages
    record_results(database, claimed.token, [unknown(message.attempt_id)], now=NOW)
    change_message(database, batch_id, 2, latest_status=MessageStatus.ENQUEUED.value)
    again = take(database, batch_id, most=1)
    (second,) = again.messages
    assert second.message_id == message.message_id
    apply_receipts(database, [receipt(message.attempt_id, SUCCESS)], now=NOW + SECOND)
    found = get_message(database, message.message_id)
    assert (found.latest_status, found.num_attempts) == (SENDING, 2)
    assert [attempt.status for attempt in found.attempts] == [SUCCESS, SENDING]
    assert [attempt.number for attempt in found.attempts] == [1, 2]
    apply_receipts(database, [receipt(second.attempt_id, TELCO)], now=NOW + SECOND)
    assert get_message(database, message.message_id).latest_status is TELCO


def test_receipts_of_many_at_once_agree(database: Database, batch_id: str) -> None:
    """Two web processes apply the same receipts at the same time: each attempt moves once."""
    receipts = [receipt(message.attempt_id, SUCCESS) for message in take(database, batch_id).messages]
    with ThreadPoolExecutor(4) as threads:
        moved = sum(threads.map(lambda _: apply_receipts(database, receipts, now=NOW), range(8)))
    assert moved == 4
