"""Release, drop and retry, on both databases: each once, whoever presses twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from support.domain import (
    CONTENT,
    DAY,
    NOW,
    OWNER,
    SECOND,
    add_campaign,
    change,
    enrol,
    held_upload,
    holding,
    jobs_of,
    message_rows,
    new_upload,
    notice_id,
    notices_of,
    validating_upload,
    verdict,
    write_batch,
)

from postern.errors import NotFoundError, Refusal
from postern.model import BatchStatus, Campaign, MessageStatus, NoticeKind, Upload, UploadStatus
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD, SEND_CHUNK, SEND_NOTICE
from storage.ledger import audit, decisions
from storage.ledger.batches import count_messages, enqueue_batch, get_batch, start_batch
from storage.ledger.campaigns import delete_campaign, get_campaign
from storage.ledger.decisions import drop_open_upload, drop_upload, go_on_dropping, release_upload, retry_upload
from storage.ledger.message_index import index_messages
from storage.ledger.messages import get_message, list_messages
from storage.ledger.new_messages import write_messages
from storage.ledger.notices import get_notice, mark_sent
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import fail_upload, get_upload, start_validation
from storage.tables import campaigns, uploads

pytest_plugins = ["support.databases"]

LATER = NOW + 60 * SECOND
PEOPLE = ["6591234567", "6591234568", "6591234569"]
Decide = Callable[..., Upload]
retry = partial(retry_upload, window=DAY)


@pytest.fixture
def campaign(database: Database) -> Campaign:
    """A campaign."""
    return add_campaign(database)


@pytest.fixture
def held(database: Database, jobs: Jobs, campaign: Campaign) -> Upload:
    """A repeat that is held."""
    return held_upload(database, jobs, enrol(database, campaign))


@pytest.fixture
def failed(database: Database, jobs: Jobs, campaign: Campaign) -> Upload:
    """An upload that failed when part of its batch was written."""
    upload = validating_upload(database, jobs, campaign)
    write_batch(database, upload, PEOPLE)
    fail(database, jobs, upload)
    return get_upload(database, upload.id)


def fail(database: Database, jobs: Jobs, upload: Upload) -> bool:
    return fail_upload(database, jobs, upload.id, support_id="support_1", reason="out of memory", context={}, now=NOW)


def decide(database: Database, jobs: Jobs, decision: Decide, upload: Upload, actor: str = "operator") -> Upload:
    return decision(database, jobs, upload.id, actor=actor, now=LATER)


def trail(database: Database, upload: Upload) -> list[tuple[str, str]]:
    found = audit.list_audit(database, campaign_id=upload.campaign_id)
    return [(row["action"], row["actor"]) for row in found if row["subject"] == upload.id]


def accept(database: Database, jobs: Jobs, upload: Upload, batch_id: str) -> bool:
    return enqueue_batch(
        database,
        jobs,
        batch_id=batch_id,
        upload_id=upload.id,
        rate=20,
        verdict=verdict(rows=len(PEOPLE)),
        context={},
        now=LATER,
    )


# Release


def test_a_released_upload_goes_on(database: Database, jobs: Jobs, held: Upload) -> None:
    """The same commit leaves its job; the trail says who let it go, and no mail is due before its outcome."""
    released = decide(database, jobs, release_upload, held)
    assert (released.status, released.decided_at, released.decided_by) == (UploadStatus.VALIDATING, LATER, "operator")
    assert (released.reason, released.repeat_of, released.held_at) == (held.reason, held.repeat_of, held.held_at)
    assert jobs_of(database)[held.id] == PROCESS_UPLOAD.name
    assert trail(database, held) == [("upload.released", "operator")]
    assert notices_of(database, held.id) == [NoticeKind.HELD]
    assert start_validation(database, held.id) == released


def test_a_released_upload_holds_its_repeat(database: Database, jobs: Jobs, held: Upload) -> None:
    """It may be sent, as any other that goes on."""
    decide(database, jobs, release_upload, held)
    change(database, uploads, str(held.repeat_of), status=UploadStatus.REJECTED.value)
    third = held_upload(database, jobs, enrol(database, get_campaign(database, held.campaign_id)), is_cut_off=True)
    assert third.repeat_of == held.id


def test_a_released_upload_gets_one_outcome(database: Database, jobs: Jobs, held: Upload) -> None:
    """The hold notice and the outcome mail are all that is sent."""
    upload = decide(database, jobs, release_upload, held)
    assert accept(database, jobs, upload, write_batch(database, upload, PEOPLE))
    assert get_upload(database, held.id).status is UploadStatus.ACCEPTED
    assert notices_of(database, held.id) == [NoticeKind.ACCEPTED, NoticeKind.HELD]


# Drop


def test_a_dropped_upload_is_final(database: Database, jobs: Jobs, held: Upload) -> None:
    """Its mail tells what the hold notice told, and who decided; no job is left."""
    dropped = decide(database, jobs, drop_upload, held)
    assert (dropped.status, dropped.finished_at, dropped.decided_by) == (UploadStatus.DROPPED, LATER, "operator")
    assert dropped.reason == f"{held.reason} An operator dropped it."
    notice = get_notice(database, notice_id(held.id, NoticeKind.DROPPED))
    told = get_notice(database, notice_id(held.id, NoticeKind.HELD)).context
    assert notice.recipient == OWNER
    assert notice.context == {**told, "reason": "An operator dropped it.", "answers": "held"}
    assert held.id not in jobs_of(database)
    assert start_validation(database, held.id) is None
    assert trail(database, held) == [("upload.dropped", "operator")]


def test_a_dropped_upload_holds_no_repeat(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """The file that is put again in its place goes on."""
    key = enrol(database, campaign)
    cut_off = held_upload(database, jobs, key, is_cut_off=True)
    decide(database, jobs, drop_upload, cut_off)
    assert receive_upload(database, jobs, new_upload(key), holding()) is UploadStatus.RECEIVED


# Each once


@pytest.mark.parametrize("first", [release_upload, drop_upload])
@pytest.mark.parametrize("second", [release_upload, drop_upload])
def test_who_comes_second_is_told(database: Database, jobs: Jobs, held: Upload, first: Decide, second: Decide) -> None:
    """With what became of the upload; nothing changes."""
    decided = decide(database, jobs, first, held)
    before = (jobs_of(database), trail(database, held))
    with pytest.raises(Refusal, match=f"{held.id} is not held: it is {decided.status.value}.") as refused:
        decide(database, jobs, second, held, actor="owner")
    assert refused.value.code == "not_held"
    assert get_upload(database, held.id) == decided
    assert (jobs_of(database), trail(database, held)) == before


def test_of_many_decisions_at_once_exactly_one_counts(database: Database, jobs: Jobs, held: Upload) -> None:
    """The others are told, whoever they are."""

    def press(number: int) -> UploadStatus | None:
        try:
            return decide(database, jobs, (release_upload, drop_upload)[number % 2], held, actor=f"{number}").status
        except Refusal:
            return None

    with ThreadPoolExecutor(8) as threads:
        became = [status for status in threads.map(press, range(16)) if status]
    assert len(became) == len(trail(database, held)) == 1
    found = get_upload(database, held.id)
    assert [found.status] == became
    assert (held.id in jobs_of(database)) is (found.status is UploadStatus.VALIDATING)
    assert (NoticeKind.DROPPED in notices_of(database, held.id)) is (found.status is UploadStatus.DROPPED)


def test_only_a_held_upload_is_decided_about(database: Database, jobs: Jobs, held: Upload) -> None:
    """Whatever else became of it stands."""
    for status in set(UploadStatus) - {UploadStatus.HELD}:
        change(database, uploads, held.id, status=status.value)
        for decision in (release_upload, drop_upload):
            with pytest.raises(Refusal, match="is not held"):
                decide(database, jobs, decision, held)
        assert get_upload(database, held.id).status is status


def test_an_upload_that_was_never_held_cannot_be_dropped(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """There is no hold notice to follow."""
    upload = validating_upload(database, jobs, campaign)
    with pytest.raises(Refusal, match="it is validating"):
        decide(database, jobs, drop_upload, upload)


def test_an_unknown_upload_is_not_found(database: Database, jobs: Jobs) -> None:
    """The message names the id."""
    for decision in (release_upload, drop_upload, retry):
        with pytest.raises(NotFoundError, match="There is no upload upload_x"):
            decision(database, jobs, "upload_x", actor="operator", now=NOW)


# Retry


def test_a_failed_upload_is_tried_again_under_the_same_ids(database: Database, jobs: Jobs, failed: Upload) -> None:
    """What the first try left is completed: the batch, its messages and the index that finds them by id."""
    assert failed.batch_id is not None
    assert get_batch(database, failed.batch_id).status is BatchStatus.MESSAGES_ENQUEUING_FAILED
    index_messages(database, failed.batch_id)
    retried = decide(database, jobs, retry, failed)
    assert (retried.status, retried.finished_at, retried.reason) == (UploadStatus.VALIDATING, None, None)
    assert (retried.support_id, retried.num_retries) == ("support_1", 1)
    assert jobs_of(database)[f"{failed.id}:1"] == PROCESS_UPLOAD.name
    assert trail(database, failed) == [("upload.retried", "operator")]
    started = start_validation(database, failed.id)
    assert started is not None
    batch_id = write_batch(database, started, PEOPLE)
    assert batch_id == failed.batch_id
    assert accept(database, jobs, started, batch_id)
    assert count_messages(database, batch_id) == {MessageStatus.ENQUEUED: len(PEOPLE)}
    assert notices_of(database, failed.id) == [NoticeKind.ACCEPTED, NoticeKind.FAILED]
    assert jobs_of(database)[f"chunk:{batch_id}:2"] == SEND_CHUNK.name
    index_messages(database, batch_id)
    for message in list_messages(database, batch_id=batch_id):
        assert get_message(database, message.id) == message


def test_messages_that_only_the_second_try_wrote_are_found_by_id(
    database: Database, jobs: Jobs, campaign: Campaign
) -> None:
    """The index of what the first try wrote, made meanwhile, is not taken for that of the whole batch."""
    upload = validating_upload(database, jobs, campaign)
    extent = (len(PEOPLE), 2, len(PEOPLE) + 1)
    batch_id = start_batch(database, upload_id=upload.id, campaign_id=campaign.id, rows=extent, now=NOW)
    write_messages(database, batch_id=batch_id, parts=[message_rows(PEOPLE[:1])])
    fail(database, jobs, upload)
    index_messages(database, batch_id)
    decide(database, jobs, retry, upload)
    write_batch(database, upload, PEOPLE)
    accept(database, jobs, upload, batch_id)
    for _ in range(2):
        found = list_messages(database, batch_id=batch_id)
        assert [get_message(database, message.id) for message in found] == found
        assert len(found) == len(PEOPLE)
        index_messages(database, batch_id)


def test_a_failed_upload_is_found_and_tried_again_by_its_support_id(
    database: Database, jobs: Jobs, failed: Upload
) -> None:
    """What the owner quotes is what the operator types; also after another failure."""
    assert retry(database, jobs, "support_1", actor="operator", now=LATER).id == failed.id
    assert fail(database, jobs, failed)
    assert retry(database, jobs, "support_1", actor="operator", now=LATER).num_retries == 2
    assert {f"{failed.id}:1", f"{failed.id}:2"} <= set(jobs_of(database))


def test_a_failure_is_mailed_again_when_a_retry_fails(database: Database, jobs: Jobs, failed: Upload) -> None:
    """As the same notice, with what is told now, under a job of its own; the same outcome twice is one mail."""
    notice = notice_id(failed.id, NoticeKind.FAILED)
    mark_sent(database, notice, now=NOW)
    decide(database, jobs, retry, failed)
    assert get_notice(database, notice).is_settled
    again = partial(fail_upload, database, jobs, failed.id, support_id="support_1", reason="x", context={"reason": "2"})
    assert [again(now=LATER), again(now=LATER)] == [True, False]
    found = get_notice(database, notice)
    assert (found.is_settled, found.sent_at, found.created_at) == (False, None, LATER)
    assert (found.recipient, found.context) == (OWNER, {"reason": "2"})
    assert notices_of(database, failed.id) == [NoticeKind.FAILED]
    assert {job for job, kind in jobs_of(database).items() if kind == SEND_NOTICE.name} == {notice, f"{notice}:1"}


def test_a_mail_that_still_waits_tells_of_both_failures(database: Database, jobs: Jobs, failed: Upload) -> None:
    """Its job goes on; a second one beside it would send it twice."""
    notice = notice_id(failed.id, NoticeKind.FAILED)
    before = get_notice(database, notice)
    decide(database, jobs, retry, failed)
    assert fail(database, jobs, failed)
    assert get_notice(database, notice) == before
    assert f"{notice}:1" not in jobs_of(database)


@pytest.mark.parametrize("days", [0, 3])
@pytest.mark.parametrize("status", [UploadStatus.VALIDATING, UploadStatus.ACCEPTED, UploadStatus.HELD])
def test_a_retry_asks_whether_its_bytes_went_on_meanwhile(
    database: Database, jobs: Jobs, failed: Upload, status: UploadStatus, days: int
) -> None:
    """However long after it they came; who insists is let on."""
    at = failed.received_at + days * DAY
    key = enrol(database, get_campaign(database, failed.campaign_id))
    other = new_upload(key, received_at=at)
    assert receive_upload(database, jobs, other, holding(at)) is UploadStatus.RECEIVED  # a failed file holds nothing
    change(database, uploads, other.id, status=status.value)
    again = partial(retry, database, jobs, failed.id, actor="operator", now=at + 60 * SECOND)
    before = (get_upload(database, failed.id), jobs_of(database), trail(database, failed))
    with pytest.raises(Refusal, match=f"{other.id} .* is {status.value}.*--yes") as refused:
        again()
    assert refused.value.code == "is_repeat"
    assert (get_upload(database, failed.id), jobs_of(database), trail(database, failed)) == before
    assert again(may_repeat=True).status is UploadStatus.VALIDATING


@pytest.mark.parametrize(
    ("window", "changes"),
    [
        (timedelta(), {"status": UploadStatus.ACCEPTED.value}),
        (DAY, {"status": UploadStatus.REJECTED.value}),
        (DAY, {"status": UploadStatus.FAILED.value}),
        (DAY, {"sha256": "0" * 64}),
        (DAY, {"received_at": NOW - DAY}),
    ],
)
def test_a_retry_is_no_repeat_of_what_came_to_nothing(
    database: Database, jobs: Jobs, failed: Upload, window: timedelta, changes: dict[str, object]
) -> None:
    """Nor of other bytes, nor of what was long before, nor where repeats are not asked for."""
    other = new_upload(enrol(database, get_campaign(database, failed.campaign_id)))
    receive_upload(database, jobs, other)
    change(database, uploads, other.id, **changes)
    retried = retry_upload(database, jobs, failed.id, window=window, actor="operator", now=LATER)
    assert retried.status is UploadStatus.VALIDATING


def test_of_a_retry_and_a_repeat_at_once_exactly_one_goes_on(database: Database, jobs: Jobs, failed: Upload) -> None:
    """Whoever is second is held, or refused."""
    key = enrol(database, get_campaign(database, failed.campaign_id))
    repeats = [new_upload(key) for _ in range(6)]

    def act(number: int) -> str:
        try:
            if number == 3:
                return decide(database, jobs, retry, failed).status.value
            return str(receive_upload(database, jobs, repeats[number % 6], holding()))
        except Refusal as refusal:
            return refusal.code

    with ThreadPoolExecutor(6) as threads:
        became = list(threads.map(act, range(6)))
    assert sum(status in {"validating", "received"} for status in became) == 1
    assert set(became) <= {"validating", "received", "held", "is_repeat"}


def test_of_many_retries_at_once_exactly_one_counts(database: Database, jobs: Jobs, failed: Upload) -> None:
    """One job, one row of the trail."""

    def press(_: int) -> str:
        try:
            decide(database, jobs, retry, failed)
        except Refusal as refusal:
            return refusal.code
        return "done"

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(press, range(16))) == ["done"] + ["not_failed"] * 15
    assert get_upload(database, failed.id).num_retries == 1
    assert len(trail(database, failed)) == 1


def test_only_a_failed_upload_is_tried_again(database: Database, jobs: Jobs, failed: Upload) -> None:
    """A rejected file is for its owner to repair, a held one to be released."""
    for status in set(UploadStatus) - {UploadStatus.FAILED}:
        change(database, uploads, failed.id, status=status.value)
        with pytest.raises(Refusal, match=f"is not failed: it is {status.value}"):
            decide(database, jobs, retry, failed)


def test_a_failed_upload_whose_bytes_are_gone_is_not_tried_again(
    database: Database, jobs: Jobs, failed: Upload
) -> None:
    """It could only fail again."""
    change(database, uploads, failed.id, blob_key=None)
    with pytest.raises(Refusal, match="not kept any more") as refused:
        decide(database, jobs, retry, failed)
    assert refused.value.code == "bytes_gone"
    assert get_upload(database, failed.id).status is UploadStatus.FAILED


# A campaign that is deleted


def test_what_is_held_of_a_deleted_campaign_is_dropped(database: Database, jobs: Jobs, held: Upload) -> None:
    """In the same transaction, with its mail; what other campaigns hold stays."""
    other = held_upload(database, jobs, enrol(database, add_campaign(database)))
    delete_campaign(database, jobs, held.campaign_id, actor="operator", now=LATER)
    dropped = get_upload(database, held.id)
    assert (dropped.status, dropped.decided_by) == (UploadStatus.DROPPED, "operator")
    assert dropped.reason == f"{held.reason} Its campaign was deleted."
    assert notices_of(database, held.id) == [NoticeKind.DROPPED, NoticeKind.HELD]
    assert get_upload(database, other.id) == other
    assert ("campaign.deleted", held.campaign_id) in {
        (row["action"], row["subject"]) for row in audit.list_audit(database, campaign_id=held.campaign_id)
    }
    with pytest.raises(NotFoundError):
        get_campaign(database, held.campaign_id)
    assert get_campaign(database, held.campaign_id, even_deleted=True).deleted_at == LATER
    with pytest.raises(NotFoundError):
        delete_campaign(database, jobs, held.campaign_id, actor="operator", now=LATER)


def test_many_held_uploads_of_a_deleted_campaign_are_dropped_in_slices(
    database: Database, jobs: Jobs, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first with the campaign, the rest by a job, on behalf of who deleted it; each with its mail."""
    monkeypatch.setattr(decisions, "_SLICE", 2)
    key = enrol(database, campaign)
    waiting = [held_upload(database, jobs, key, sha256=f"{number:064}", is_cut_off=True) for number in range(5)]
    other = held_upload(database, jobs, enrol(database, add_campaign(database)))
    assert go_on_dropping(database, jobs, campaign.id, now=LATER)
    assert get_upload(database, waiting[0].id).status is UploadStatus.HELD
    delete_campaign(database, jobs, campaign.id, actor="Ann", now=LATER)

    def held_still() -> int:
        return sum(get_upload(database, upload.id).status is UploadStatus.HELD for upload in waiting)

    seen = [held_still()]
    for is_all in (False, True, True):
        assert go_on_dropping(database, jobs, campaign.id, now=LATER) is is_all
        seen.append(held_still())
    assert seen == [3, 1, 0, 0]
    for upload in waiting:
        assert notices_of(database, upload.id) == [NoticeKind.DROPPED, NoticeKind.HELD]
        assert trail(database, upload) == [("upload.dropped", "Ann")]
    assert get_upload(database, other.id) == other


def test_a_batch_of_a_campaign_that_was_deleted_is_not_enqueued(
    database: Database, jobs: Jobs, campaign: Campaign
) -> None:
    """Its upload has no outcome by that, and is dropped."""
    upload = validating_upload(database, jobs, campaign)
    batch_id = write_batch(database, upload, PEOPLE)
    delete_campaign(database, jobs, campaign.id, actor="operator", now=LATER)
    with pytest.raises(Refusal, match="was deleted") as refused:
        accept(database, jobs, upload, batch_id)
    assert refused.value.code == "campaign_deleted"
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUING
    assert (get_upload(database, upload.id).status, notices_of(database, upload.id)) == (UploadStatus.VALIDATING, [])


@pytest.mark.parametrize("status", [UploadStatus.HELD, UploadStatus.FAILED])
def test_nothing_of_a_deleted_campaign_goes_on(
    database: Database, jobs: Jobs, held: Upload, status: UploadStatus
) -> None:
    """Neither by release nor by retry, should it still be there to be asked for."""
    change(database, uploads, held.id, status=status.value)
    change(database, campaigns, held.campaign_id, deleted_at=NOW)
    with pytest.raises(Refusal, match="was deleted") as refused:
        decide(database, jobs, retry if status is UploadStatus.FAILED else release_upload, held)
    assert refused.value.code == "campaign_deleted"
    assert get_upload(database, held.id).status is status


def test_a_campaign_deleted_and_an_upload_released_at_once(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """Either comes first; the upload is dropped at once, or by the worker that takes its job."""
    key = enrol(database, campaign)
    waiting = [held_upload(database, jobs, key, sha256=f"{number:064}", is_cut_off=True) for number in range(8)]

    def act(number: int) -> str:
        try:
            if number == 4:
                delete_campaign(database, jobs, campaign.id, actor="operator", now=LATER)
            else:
                decide(database, jobs, release_upload, waiting[number])
        except Refusal as refusal:
            return refusal.code
        return "done"

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(act, range(8))) <= {"done", "campaign_deleted", "not_held"}
    for upload in waiting:
        status = get_upload(database, upload.id).status
        assert status in {UploadStatus.VALIDATING, UploadStatus.DROPPED}
        assert (upload.id in jobs_of(database)) is (status is UploadStatus.VALIDATING)


def test_an_open_upload_of_a_deleted_campaign_is_dropped_once(
    database: Database, jobs: Jobs, campaign: Campaign
) -> None:
    """With its mail, and no more comes to what was written of its batch."""
    upload = validating_upload(database, jobs, campaign)
    batch_id = write_batch(database, upload, PEOPLE)
    assert drop_open_upload(database, jobs, upload, context={"size": len(CONTENT)}, now=LATER)
    assert not drop_open_upload(database, jobs, upload, context={}, now=LATER)
    assert get_upload(database, upload.id).status is UploadStatus.DROPPED
    notice = get_notice(database, notice_id(upload.id, NoticeKind.DROPPED))
    assert notice.context == {"size": len(CONTENT), "reason": "Its campaign was deleted."}
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUING_FAILED
