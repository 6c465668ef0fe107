"""What is held, on both databases: probable repeats and files that look cut off, each with its notice and no job."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from support.domain import (
    DAY,
    NOW,
    OWNER,
    SECOND,
    add_campaign,
    change,
    count,
    enrol,
    holding,
    jobs_of,
    new_upload,
    notice_id,
    notices_of,
)

from postern.model import NoticeKind, UploadStatus
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD, SEND_NOTICE
from storage.ledger.enrolments import EnrolledKey
from storage.ledger.notices import get_notice
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import get_upload, list_uploads, start_validation
from storage.tables import campaigns, notices, uploads

pytest_plugins = ["support.databases"]

OTHER_BYTES = "0" * 64
HOLDS_ITS_REPEAT = {UploadStatus.RECEIVED, UploadStatus.VALIDATING, UploadStatus.ACCEPTED, UploadStatus.HELD}


@pytest.fixture
def key(database: Database) -> EnrolledKey:
    """A key of a campaign."""
    return enrol(database, add_campaign(database))


def receive(database: Database, jobs: Jobs, key: EnrolledKey, **changes: object) -> tuple[str, UploadStatus | None]:
    """What the ledger made of an upload of the same bytes as all others here: its id and status."""
    upload = new_upload(key, **changes)
    return upload.id, receive_upload(database, jobs, upload, holding())


def test_a_repeat_is_held_with_its_notice_and_without_a_job(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """It names the upload that it repeats, and since when it is held; the owner is told."""
    first, second = new_upload(key), new_upload(key, received_at=NOW + SECOND)
    later = NOW + 2 * SECOND
    assert receive_upload(database, jobs, first, holding()) is UploadStatus.RECEIVED
    assert receive_upload(database, jobs, second, holding(later)) is UploadStatus.HELD
    held = get_upload(database, second.id)
    assert (held.status, held.repeat_of, held.held_at, held.finished_at) == (UploadStatus.HELD, first.id, later, None)
    assert held.reason == f"It has the same bytes as {first.id}, which was being validated when this one came."
    notice = get_notice(database, notice_id(second.id, NoticeKind.HELD))
    assert (notice.recipient, notice.created_at) == (OWNER, later)
    assert notice.context["hold"] == {"repeatOf": first.id}
    assert jobs_of(database) == {first.id: PROCESS_UPLOAD.name, notice.id: SEND_NOTICE.name}
    assert start_validation(database, second.id) is None


def test_only_a_file_that_may_be_sent_holds_its_repeat(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """One that was rejected, refused, dropped or failed never does."""
    for number, status in enumerate(UploadStatus):
        digest = f"{number:064}"
        first, _ = receive(database, jobs, key, sha256=digest)
        change(database, uploads, first, status=status.value)
        second, became = receive(database, jobs, key, sha256=digest)
        assert became is (UploadStatus.HELD if status in HOLDS_ITS_REPEAT else UploadStatus.RECEIVED)
        assert get_upload(database, second).repeat_of == (first if status in HOLDS_ITS_REPEAT else None)


def test_the_window_ends(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """After a day the same bytes are another job. What another gate host hands over late counts as well."""
    for number, later in enumerate([SECOND, DAY - SECOND, DAY, -SECOND, SECOND - DAY, -DAY]):
        digest = f"{number:064}"
        receive(database, jobs, key, sha256=digest)
        _, became = receive(database, jobs, key, sha256=digest, received_at=NOW + later)
        assert became is (UploadStatus.HELD if abs(later) < DAY else UploadStatus.RECEIVED)


def test_without_a_window_no_repeat_is_held(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """As in test and loadtest."""
    for _ in range(3):
        assert receive_upload(database, jobs, new_upload(key), holding(window=0 * DAY)) is UploadStatus.RECEIVED
    assert count(database, notices) == 0


def test_other_bytes_and_other_campaigns_are_no_repeats(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """The name does not matter."""
    receive(database, jobs, key)
    assert receive(database, jobs, key, sha256=OTHER_BYTES)[1] is UploadStatus.RECEIVED
    assert receive(database, jobs, enrol(database, add_campaign(database)))[1] is UploadStatus.RECEIVED
    assert receive(database, jobs, key, file_name="another.csv")[1] is UploadStatus.HELD


def test_a_second_key_of_the_campaign_makes_no_difference(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """Two enrolments of one campaign reach the same recipients."""
    campaign = add_campaign(database)
    receive(database, jobs, enrol(database, campaign))
    assert receive(database, jobs, enrol(database, campaign))[1] is UploadStatus.HELD


def test_a_repeat_names_what_goes_on_before_what_is_held(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """The third of the same bytes repeats the first, not the second, which waits."""
    first, _ = receive(database, jobs, key)
    receive(database, jobs, key, received_at=NOW + SECOND)
    third, _ = receive(database, jobs, key, received_at=NOW + 2 * SECOND)
    assert get_upload(database, third).repeat_of == first


@pytest.mark.parametrize("window", [DAY, 0 * DAY])
def test_a_cut_off_file_is_held(database: Database, jobs: Jobs, key: EnrolledKey, window: timedelta) -> None:
    """Whether or not repeats are; and its repeat is held for both reasons."""
    upload = new_upload(key, is_cut_off=True)
    assert receive_upload(database, jobs, upload, holding(window=window)) is UploadStatus.HELD
    held = get_upload(database, upload.id)
    assert (held.is_cut_off, held.repeat_of) == (True, None)
    assert held.reason is not None
    assert held.reason.startswith("It looks cut off: ")
    again = new_upload(key, is_cut_off=True)
    receive_upload(database, jobs, again, holding(window=window))
    reason = str(get_upload(database, again.id).reason)
    assert ("same bytes" in reason, "cut off" in reason) == (bool(window), True)


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_of_a_deleted_campaign_nothing_is_held(
    database: Database, jobs: Jobs, key: EnrolledKey, is_cut_off: bool
) -> None:
    """Nobody has to decide what is dropped anyway, by the worker that takes its job."""
    receive(database, jobs, key)
    change(database, campaigns, key.campaign_id, deleted_at=NOW)
    assert receive(database, jobs, key, is_cut_off=is_cut_off)[1] is UploadStatus.RECEIVED


def test_a_held_upload_received_twice_is_one(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """Intake died after the commit; nor is a received one held for itself, or for its own repeat."""
    first, second = new_upload(key), new_upload(key)
    assert receive_upload(database, jobs, first, holding()) is UploadStatus.RECEIVED
    assert receive_upload(database, jobs, first, holding()) is None
    assert receive_upload(database, jobs, second, holding()) is UploadStatus.HELD
    left = jobs_of(database)
    for upload in (first, second):
        assert receive_upload(database, jobs, upload, holding(NOW + SECOND)) is None
    assert get_upload(database, first.id).status is UploadStatus.RECEIVED
    assert get_upload(database, second.id).held_at == NOW
    assert jobs_of(database) == left


def test_a_crash_leaves_neither_a_held_upload_nor_its_notice(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """The next try finds nothing of the one before."""

    class CrashingBoard:
        """Leaves the job, and ends before the commit."""

        def enqueue(self, *arguments: object, **options: object) -> None:
            jobs.enqueue(*arguments, **options)  # type: ignore[arg-type]
            raise KeyboardInterrupt

    receive(database, jobs, key)
    upload = new_upload(key)
    with pytest.raises(KeyboardInterrupt):
        receive_upload(database, CrashingBoard(), upload, holding())
    assert (count(database, uploads), count(database, notices)) == (1, 0)
    assert receive_upload(database, jobs, upload, holding()) is UploadStatus.HELD
    assert notices_of(database, upload.id) == [NoticeKind.HELD]


def test_of_the_same_bytes_at_once_exactly_one_goes_on(database: Database, jobs: Jobs, key: EnrolledKey) -> None:
    """However many intakes take them in, on however many hosts."""
    other = enrol(database, add_campaign(database))
    with ThreadPoolExecutor(12) as threads:
        became = list(threads.map(lambda number: receive(database, jobs, (key, other)[number % 2]), range(24)))
    assert sorted(status for _, status in became if status) == [UploadStatus.HELD] * 22 + [UploadStatus.RECEIVED] * 2
    for campaign_id in (key.campaign_id, other.campaign_id):
        found = list_uploads(database, campaign_id=campaign_id)
        (going,) = (upload for upload in found if upload.status is UploadStatus.RECEIVED)
        assert {upload.repeat_of for upload in found if upload is not going} == {going.id}
    assert sum(name == PROCESS_UPLOAD.name for name in jobs_of(database).values()) == 2
