"""Uploads in the ledger, on both databases: every transition, done twice, and from the wrong state."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from support.domain import (
    NOW,
    OWNER,
    SECOND,
    add_campaign,
    change,
    count,
    enrol,
    jobs_of,
    new_refusal,
    new_upload,
    notice_id,
    notices_of,
    validating_upload,
    verdict,
    write_batch,
)

from postern.errors import NotFoundError
from postern.model import IdKind, NoticeKind, Upload, UploadStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD, SEND_CHUNK, SEND_NOTICE
from storage.ledger.batches import enqueue_batch
from storage.ledger.notices import get_notice
from storage.ledger.receiving import receive_upload, refuse_upload
from storage.ledger.uploads import count_uploads, fail_upload, get_upload, list_uploads, reject_upload, start_validation
from storage.tables import notices, uploads

pytest_plugins = ["support.databases"]

HOUR = timedelta(hours=1)
CONTEXT = {"fileName": "people.csv"}


def reject(database: Database, jobs: Jobs, upload: Upload) -> bool:
    return reject_upload(
        database,
        jobs,
        upload.id,
        verdict(is_valid=False, rows=3),
        report_key="validation-reports/c/u.csv",
        report_url="https://postern.example/report",
        context=CONTEXT,
        now=NOW + SECOND,
    )


def fail(database: Database, jobs: Jobs, upload: Upload, *, support_id: str = "support_1") -> bool:
    return fail_upload(
        database, jobs, upload.id, support_id=support_id, reason="out of memory", context=CONTEXT, now=NOW + SECOND
    )


def accept(database: Database, jobs: Jobs, upload: Upload) -> bool:
    batch_id = write_batch(database, upload, ["6591234567"])
    return enqueue_batch(
        database,
        jobs,
        batch_id=batch_id,
        upload_id=upload.id,
        rate=20,
        verdict=verdict(),
        context=CONTEXT,
        now=NOW + SECOND,
    )


OUTCOMES = {UploadStatus.ACCEPTED: accept, UploadStatus.REJECTED: reject, UploadStatus.FAILED: fail}


def refuse(database: Database, jobs: Jobs, upload: Upload) -> bool:
    return refuse_upload(database, jobs, upload, recipient=OWNER, context=CONTEXT)


def test_a_received_upload_comes_with_its_job(database: Database, jobs: Jobs) -> None:
    """What was recorded is read as it was, and the job that processes it has its id."""
    upload = new_upload(enrol(database, add_campaign(database)), file_name="续签 1.csv")
    assert receive_upload(database, jobs, upload)
    assert get_upload(database, upload.id) == upload
    assert jobs_of(database) == {upload.id: PROCESS_UPLOAD.name}


def test_an_upload_received_twice_is_one(database: Database, jobs: Jobs) -> None:
    """The second time changes nothing, even where it tells something else or the first has its outcome."""
    upload = validating_upload(database, jobs, add_campaign(database))
    reject(database, jobs, upload)
    again = new_upload(enrol(database, add_campaign(database)), id=upload.id, size=7)
    before = (get_upload(database, upload.id), jobs_of(database))
    assert not receive_upload(database, jobs, again)
    assert (get_upload(database, upload.id), jobs_of(database)) == before


def test_a_rolled_back_receipt_leaves_neither_upload_nor_job(database: Database, jobs: Jobs) -> None:
    """An exception after both were written takes both away."""
    upload = new_upload(enrol(database, add_campaign(database)))

    class Crash(Exception):  # noqa: N818 - it stands for a process that ended
        """The process ends."""

    class CrashingBoard:
        """Leaves the job, and ends before the commit."""

        def enqueue(self, *arguments: object, **options: object) -> None:
            jobs.enqueue(*arguments, **options)  # type: ignore[arg-type]
            raise Crash

    with pytest.raises(Crash):
        receive_upload(database, CrashingBoard(), upload)
    assert (count(database, uploads), jobs_of(database)) == (0, {})
    assert receive_upload(database, jobs, upload)
    assert (count(database, uploads), list(jobs_of(database))) == (1, [upload.id])


def test_an_upload_received_by_many_at_once_is_one(database: Database, jobs: Jobs) -> None:
    """Only one of them is told that it was new."""
    upload = new_upload(enrol(database, add_campaign(database)))
    with ThreadPoolExecutor(8) as threads:
        new = list(threads.map(lambda _: receive_upload(database, jobs, upload), range(8)))
    assert sorted(new, key=str) == [None] * 7 + [UploadStatus.RECEIVED]
    assert list(jobs_of(database)) == [upload.id]


def test_validation_starts_and_goes_on(database: Database, jobs: Jobs) -> None:
    """Whoever takes over from a dead worker starts it again."""
    upload = new_upload(enrol(database, add_campaign(database)))
    receive_upload(database, jobs, upload)
    for _ in range(2):
        started = start_validation(database, upload.id)
        assert started is not None
        assert (started.id, started.status) == (upload.id, UploadStatus.VALIDATING)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_validation_does_not_start_after_the_outcome(database: Database, jobs: Jobs, outcome: UploadStatus) -> None:
    """A job that is done twice finds nothing to do."""
    upload = validating_upload(database, jobs, add_campaign(database))
    assert OUTCOMES[outcome](database, jobs, upload)
    assert start_validation(database, upload.id) is None
    assert get_upload(database, upload.id).status is outcome


@pytest.mark.parametrize("status", [UploadStatus.REFUSED, UploadStatus.HELD, UploadStatus.DROPPED])
def test_validation_does_not_start_from_a_status_of_people(
    database: Database, jobs: Jobs, status: UploadStatus
) -> None:
    """What was refused, held or dropped is not processed by a job."""
    upload = validating_upload(database, jobs, add_campaign(database))
    change(database, uploads, upload.id, status=status.value)
    assert start_validation(database, upload.id) is None
    assert not reject(database, jobs, upload)
    assert get_upload(database, upload.id).status is status


def test_validation_of_an_unknown_upload_does_not_start(database: Database) -> None:
    """There is nothing to validate."""
    assert start_validation(database, new_id(IdKind.UPLOAD)) is None


@pytest.mark.parametrize("first", OUTCOMES)
@pytest.mark.parametrize("second", OUTCOMES)
def test_an_upload_gets_one_outcome_and_one_notice(
    database: Database, jobs: Jobs, first: UploadStatus, second: UploadStatus
) -> None:
    """The first outcome stands, and exactly one mail tells it."""
    upload = validating_upload(database, jobs, add_campaign(database))
    assert OUTCOMES[first](database, jobs, upload)
    stored = get_upload(database, upload.id)
    mails = {name for name, kind in jobs_of(database).items() if kind == SEND_NOTICE.name}
    assert not OUTCOMES[second](database, jobs, upload)
    after = get_upload(database, upload.id)
    assert (after.status, after.finished_at, after.verdict) == (first, NOW + SECOND, stored.verdict)
    assert notices_of(database, upload.id) == [NoticeKind(first.value)]
    assert mails == {notice_id(upload.id, NoticeKind(first.value))}
    assert {name for name, kind in jobs_of(database).items() if kind == SEND_NOTICE.name} == mails


def test_a_rejection_tells_all(database: Database, jobs: Jobs) -> None:
    """Verdict, report and notice are in the ledger."""
    upload = validating_upload(database, jobs, add_campaign(database))
    assert reject(database, jobs, upload)
    stored = get_upload(database, upload.id)
    assert (stored.num_rows, stored.num_errors, stored.total_rows) == (3, 3, 3)
    assert (stored.report_key, stored.report_url) == ("validation-reports/c/u.csv", "https://postern.example/report")
    assert stored.verdict == verdict(is_valid=False, rows=3).as_json()
    notice = get_notice(database, notice_id(upload.id, NoticeKind.REJECTED))
    assert (notice.recipient, notice.context, notice.sent_at) == (OWNER, CONTEXT, None)


def test_a_failure_is_found_by_its_support_id(database: Database, jobs: Jobs) -> None:
    """What a person quotes leads to the upload."""
    upload = validating_upload(database, jobs, add_campaign(database))
    assert fail(database, jobs, upload, support_id="support_7")
    stored = get_upload(database, "support_7")
    assert (stored.id, stored.reason) == (upload.id, "out of memory")


def test_an_acceptance_comes_with_the_first_chunk(database: Database, jobs: Jobs) -> None:
    """The same commit leaves the job that sends."""
    upload = validating_upload(database, jobs, add_campaign(database))
    assert accept(database, jobs, upload)
    stored = get_upload(database, upload.id)
    assert stored.batch_id is not None
    assert jobs_of(database)[f"chunk:{stored.batch_id}:2"] == SEND_CHUNK.name


def test_a_refused_upload_is_told_once(database: Database, jobs: Jobs) -> None:
    """Recorded twice it is one upload with one notice."""
    upload = new_refusal(enrol(database, add_campaign(database)))
    assert refuse(database, jobs, upload)
    assert not refuse(database, jobs, upload)
    assert get_upload(database, upload.id) == upload
    assert notices_of(database, upload.id) == [NoticeKind.REFUSED]
    assert list(jobs_of(database)) == [notice_id(upload.id, NoticeKind.REFUSED)]


@pytest.mark.parametrize(
    ("later", "name", "told"),
    [
        (SECOND, "people.txt", False),
        (HOUR - SECOND, "people.txt", False),
        (HOUR, "people.txt", True),
        (SECOND, "others.txt", True),
        (-SECOND, "people.txt", False),
    ],
)
def test_refusals_of_a_name_are_told_once_an_hour(
    database: Database, jobs: Jobs, later: timedelta, name: str, told: bool
) -> None:
    """Every refusal is recorded; the mail comes once an hour for a campaign and file name."""
    key = enrol(database, add_campaign(database))
    refuse(database, jobs, new_refusal(key))
    again = new_refusal(key, at=NOW + later, file_name=name)
    assert refuse(database, jobs, again)
    assert (notices_of(database, again.id) == [NoticeKind.REFUSED]) is told
    assert count_uploads(database) == {"refused": 2}


def test_a_refusal_that_was_not_told_does_not_silence_the_next(database: Database, jobs: Jobs) -> None:
    """The hour counts from the last mail, not from the last refusal."""
    key = enrol(database, add_campaign(database))
    told = [NOW, NOW + HOUR, NOW + 2 * HOUR]
    silent = [NOW + HOUR / 2, NOW + HOUR * 1.5]
    for at in sorted(told + silent):
        refuse(database, jobs, new_refusal(key, at=at))
    assert count(database, notices) == len(told)


def test_refusals_of_another_campaign_are_told(database: Database, jobs: Jobs) -> None:
    """The same name is another one in another campaign."""
    for _ in range(2):
        refuse(database, jobs, new_refusal(enrol(database, add_campaign(database))))
    assert count(database, notices) == 2


def test_refusals_told_at_the_same_time_are_one_mail(database: Database, jobs: Jobs) -> None:
    """Several gate hosts hand their events over at once."""
    key = enrol(database, add_campaign(database))
    refusals = [new_refusal(key) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        recorded = list(threads.map(lambda upload: refuse(database, jobs, upload), refusals))
    assert recorded == [True] * 8
    assert count(database, notices) == 1


def test_a_refusal_without_an_address_is_recorded(database: Database, jobs: Jobs) -> None:
    """Nobody can be told, but the operator sees it."""
    upload = new_refusal(enrol(database, add_campaign(database)))
    assert refuse_upload(database, jobs, upload, recipient=None, context={})
    assert (notices_of(database, upload.id), jobs_of(database)) == ([], {})


def test_uploads_are_listed_newest_first(database: Database, jobs: Jobs) -> None:
    """Of one campaign or of all, up to a limit."""
    first, second = (enrol(database, add_campaign(database)) for _ in range(2))
    found = [new_upload(key, received_at=NOW + number * SECOND) for number, key in enumerate((first, second, first))]
    for upload in found:
        receive_upload(database, jobs, upload)
    assert list_uploads(database) == found[::-1]
    assert list_uploads(database, campaign_id=first.campaign_id) == [found[2], found[0]]
    assert list_uploads(database, limit=1) == [found[2]]
    assert count_uploads(database) == {"received": 3}


def test_an_unknown_upload_is_not_found(database: Database) -> None:
    """The message names the id."""
    with pytest.raises(NotFoundError, match="There is no upload upload_x"):
        get_upload(database, "upload_x")
