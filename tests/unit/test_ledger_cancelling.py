"""Cancelled batches, deleted campaigns and paused ones, on both databases: what waits ends, or waits on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.domain import (
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
)

from postern.errors import NotFoundError, Refusal
from postern.model import BatchStatus, Campaign, ErrorCode, ErrorType, IdKind, MessageStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import END_UNSENT
from storage.ledger import audit, cancelling
from storage.ledger.batches import count_messages, get_batch
from storage.ledger.campaigns import delete_campaign, get_campaign
from storage.ledger.cancelling import batches_to_end, cancel_batch, end_rows, end_unsent, find_stopped
from storage.ledger.claiming import Claim, claim
from storage.ledger.messages import get_message, list_messages
from storage.ledger.pausing import pause_campaign, resume_campaign
from storage.ledger.putting_back import put_back
from storage.ledger.receipts import Receipt, apply_receipts
from storage.tables import batches

pytest_plugins = ["support.databases"]

LATER = NOW + 60 * SECOND
CREATED, ENQUEUED, SENDING, SUCCESS, FAILURE = (
    MessageStatus.CREATED,
    MessageStatus.ENQUEUED,
    MessageStatus.SENDING,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)


@pytest.fixture
def campaign(database: Database) -> Campaign:
    """A campaign without a pace to speak of."""
    return add_campaign(database, rate=1e6)


@pytest.fixture
def batch_id(database: Database, jobs: Jobs, campaign: Campaign) -> str:
    """A batch of four messages, in rows 2 to 5."""
    return enqueued_batch(database, jobs, campaign, [RECIPIENT] * 4)


def take(database: Database, batch_id: str, most: int = 100) -> Claim:
    return claim(database, batch_id=batch_id, rows=(1, 1000), rate=1e6, most=most, account=SIMULATOR, now=LATER)


def cancel(database: Database, jobs: Jobs, batch_id: str) -> BatchStatus:
    return cancel_batch(database, jobs, batch_id, actor="operator", now=LATER).status


def run_job(database: Database, subject_id: str) -> int:
    """Do what the job does; returns how many commits it took."""
    commits = 0
    for batch_id in batches_to_end(database, subject_id):
        stopped = find_stopped(database, batch_id)
        row = stopped.first_row if stopped else 1
        while stopped and row <= stopped.last_row:
            row = 1 + end_unsent(database, stopped, row, stopped.last_row, now=LATER)
            commits += 1
    return commits


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value.code


def test_a_cancelled_batch_sends_nothing_more(database: Database, jobs: Jobs, batch_id: str) -> None:
    """What waits ends as a failure that costs nothing and says why, by an attempt that nobody was handed."""
    assert cancel(database, jobs, batch_id) is BatchStatus.CANCELLED
    assert take(database, batch_id).is_done
    assert jobs_of(database)[f"end:{batch_id}"] == END_UNSENT.name
    run_job(database, batch_id)
    assert count_messages(database, batch_id) == {FAILURE: 4}
    message = get_message(database, message_id(batch_id, 2))
    (attempt,) = message.attempts
    assert (message.num_attempts, message.updated_at) == (1, LATER)
    assert attempt.error_code is ErrorCode.SERVER_UNKNOWN_ERROR
    assert attempt.error_code.type is ErrorType.SERVER_ERROR
    assert "cancelled" in (attempt.error_note or "")
    assert (attempt.sent_at, attempt.provider, attempt.external_id, attempt.inferred) == (None, "", "", False)
    (row,) = [row for row in audit.list_audit(database) if row["action"] == "batch.cancelled"]
    assert (row["actor"], row["subject"]) == ("operator", batch_id)


def test_what_was_claimed_ends_by_its_own_result(database: Database, jobs: Jobs, batch_id: str) -> None:
    """In the middle of a chunk: what is being handed over is left to its sender and its receipts."""
    claimed = take(database, batch_id, most=2).messages
    cancel(database, jobs, batch_id)
    run_job(database, batch_id)
    assert count_messages(database, batch_id) == {SENDING: 2, FAILURE: 2}
    apply_receipts(database, [Receipt(attempt_id=one.attempt_id, status=SUCCESS) for one in claimed], now=LATER)
    run_job(database, batch_id)
    assert count_messages(database, batch_id) == {SUCCESS: 2, FAILURE: 2}


def test_what_its_sender_puts_back_ends_with_its_chunk(database: Database, jobs: Jobs, batch_id: str) -> None:
    """It would wait for ever; before the batch is cancelled the end of a chunk ends nothing."""
    claimed = take(database, batch_id, most=2)
    cancel(database, jobs, batch_id)
    run_job(database, batch_id)
    with database.write() as connection:
        put_back(connection, [(claimed.token, one.attempt_id) for one in claimed.messages], now=LATER)
    assert count_messages(database, batch_id) == {ENQUEUED: 2, FAILURE: 2}
    end_rows(database, batch_id, (2, 3), now=LATER)
    assert count_messages(database, batch_id) == {FAILURE: 4}


def test_the_end_of_a_chunk_ends_nothing_of_a_batch_that_goes_on(database: Database, jobs: Jobs, batch_id: str) -> None:
    """Nor does a job that comes for it."""
    end_rows(database, batch_id, (2, 5), now=LATER)
    assert run_job(database, batch_id) == 0
    assert count_messages(database, batch_id) == {ENQUEUED: 4}


def test_commits_are_bounded_and_can_be_repeated(
    database: Database, jobs: Jobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between two of them leaves the rest to the next one."""
    monkeypatch.setattr(cancelling, "_SPAN", 1)
    change_message(database, batch_id, 4, latest_status=CREATED.value)
    cancel(database, jobs, batch_id)
    stopped = find_stopped(database, batch_id)
    assert stopped is not None
    assert end_unsent(database, stopped, 2, 5, now=LATER) == 2
    assert count_messages(database, batch_id)[FAILURE] == 1
    assert run_job(database, batch_id) == 4
    assert count_messages(database, batch_id) == {FAILURE: 4}
    assert {message.num_attempts for message in list_messages(database, batch_id=batch_id)} == {1}


def test_eight_presses_cancel_once(database: Database, jobs: Jobs, batch_id: str) -> None:
    """The others are told."""

    def once(_number: int) -> str:
        try:
            return cancel(database, jobs, batch_id).value
        except Refusal as refusal:
            return refusal.code

    with ThreadPoolExecutor(8) as pool:
        said = sorted(pool.map(once, range(8)))
    assert said == sorted(["cancelled"] + ["already_cancelled"] * 7)


def test_cancelling_races_with_claims(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """Each message is either claimed or ended, never both and never neither."""
    batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 60)
    claimed: list[str] = []

    def send() -> None:
        while not (got := take(database, batch_id, most=2)).is_done:
            claimed.extend(one.message_id for one in got.messages)

    with ThreadPoolExecutor(3) as pool:
        senders = [pool.submit(send) for _number in range(2)]
        pool.submit(cancel, database, jobs, batch_id).result()
        run_job(database, batch_id)
        for sender in senders:
            sender.result()
    found = {message.id: message for message in list_messages(database, batch_id=batch_id, limit=100)}
    assert {status for one in found.values() for status in [one.latest_status]} <= {SENDING, FAILURE}
    assert {one.id for one in found.values() if one.latest_status is SENDING} == set(claimed)
    assert {one.num_attempts for one in found.values()} == {1}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (BatchStatus.CREATED, "not_enqueued"),
        (BatchStatus.MESSAGES_ENQUEUING, "not_enqueued"),
        (BatchStatus.MESSAGES_ENQUEUING_FAILED, "not_enqueued"),
        (BatchStatus.CANCELLED, "already_cancelled"),
    ],
)
def test_only_what_is_being_sent_is_cancelled(
    database: Database, jobs: Jobs, batch_id: str, status: BatchStatus, code: str
) -> None:
    """A batch whose upload is not accepted sends nothing anyway."""
    change(database, batches, batch_id, status=status.value, enqueued_at=None)
    assert code_of(lambda: cancel(database, jobs, batch_id)) == code
    with pytest.raises(NotFoundError):
        cancel(database, jobs, new_id(IdKind.BATCH))


def test_a_deleted_campaigns_messages_end(database: Database, jobs: Jobs, campaign: Campaign, batch_id: str) -> None:
    """Those of all its batches that were not handed over, and no other campaign's."""
    second = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 2)
    other = enqueued_batch(database, jobs, add_campaign(database), [RECIPIENT])
    take(database, batch_id, most=1)
    delete_campaign(database, jobs, campaign.id, actor="operator", now=LATER)
    assert jobs_of(database)[f"end:{campaign.id}"] == END_UNSENT.name
    run_job(database, campaign.id)
    assert count_messages(database, batch_id) == {SENDING: 1, FAILURE: 3}
    assert count_messages(database, second) == {FAILURE: 2}
    assert count_messages(database, other) == {ENQUEUED: 1}
    note = get_message(database, message_id(second, 2)).attempts[0].error_note
    assert note is not None
    assert "campaign was deleted" in note


def test_a_paused_campaign_waits(database: Database, jobs: Jobs, campaign: Campaign, batch_id: str) -> None:
    """No attempt is used up and nothing ends; afterwards it goes on where it stopped."""
    take(database, batch_id, most=1)
    assert pause_campaign(database, campaign.id, actor="operator", now=LATER).paused_at == LATER
    waits = take(database, batch_id)
    assert (waits.messages, waits.is_done) == ((), False)
    assert 0 < waits.wait <= 1
    assert count_messages(database, batch_id) == {SENDING: 1, ENQUEUED: 3}
    assert resume_campaign(database, campaign.id, actor="operator", now=LATER).paused_at is None
    rest = take(database, batch_id).messages
    assert [one.message_id for one in rest] == [message_id(batch_id, row) for row in (3, 4, 5)]
    actions = [row["action"] for row in audit.list_audit(database, campaign_id=campaign.id)]
    assert actions[:2] == ["campaign.resumed", "campaign.paused"]


def test_a_batch_of_a_paused_campaign_can_be_cancelled(
    database: Database, jobs: Jobs, campaign: Campaign, batch_id: str
) -> None:
    """Its chunk ends instead of waiting."""
    pause_campaign(database, campaign.id, actor="operator", now=LATER)
    cancel(database, jobs, batch_id)
    assert take(database, batch_id).is_done
    assert get_batch(database, batch_id).status is BatchStatus.CANCELLED


def test_pausing_and_resuming_happen_once(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """Whoever comes second is told; one that is not there, or deleted, is not found."""

    def once(_number: int) -> str:
        try:
            pause_campaign(database, campaign.id, actor="operator", now=LATER)
        except Refusal as refusal:
            return refusal.code
        return "paused"

    assert code_of(lambda: resume_campaign(database, campaign.id, actor="operator", now=LATER)) == "not_paused"
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(once, range(8))) == sorted(["paused"] + ["already_paused"] * 7)
    assert get_campaign(database, campaign.id).paused_at == LATER
    delete_campaign(database, jobs, campaign.id, actor="operator", now=LATER)
    for campaign_id in (campaign.id, new_id(IdKind.CAMPAIGN)):
        with pytest.raises(NotFoundError):
            resume_campaign(database, campaign_id, actor="operator", now=LATER)
