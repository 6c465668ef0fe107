"""Retention on both databases: what was kept long enough goes, what is still needed stays, and the ledger stays."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.domain import (
    NOW,
    SimulatedClock,
    add_campaign,
    change,
    count,
    enrol,
    job_states,
    jobs_of,
    new_upload,
    validating_upload,
    verdict,
)

from pipeline import retention
from pipeline.retention import clear
from pipeline.validator import Validator
from pipeline.workflow import Pipeline
from postern.errors import Refusal, TransientError
from postern.links import LinkSigner
from postern.model import Upload, UploadStatus
from postern.settings import WorkerSettings
from storage.blobs import BlobMissingError
from storage.database import Database
from storage.engine import Jobs
from storage.job_records import JobRecords
from storage.ledger import expiry
from storage.ledger.decisions import retry_upload
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import get_upload, reject_upload
from storage.local import LocalBlobs
from storage.tables import uploads
from storage.takeover import alone

pytest_plugins = ["support.databases"]

DAY = timedelta(days=1)
DAYS = {"report_days": 30, "upload_days": 90, "job_days": 7}


@pytest.fixture
def clock() -> SimulatedClock:
    """The time."""
    return SimulatedClock()


@pytest.fixture
def records(database_url: str) -> Iterator[JobRecords]:
    """The engine's memory."""
    records = JobRecords(database_url)
    yield records
    records.close()


@pytest.fixture
def pipeline(database: Database, jobs: Jobs, tmp_path: Path, clock: SimulatedClock) -> Pipeline:
    """A pipeline that only clears away."""
    settings = WorkerSettings(home=tmp_path / "work", database_url=database.url, **DAYS)  # type: ignore[arg-type]
    return Pipeline(
        settings=settings,
        database=database,
        blobs=LocalBlobs(settings.blob_folder),
        jobs=jobs,
        validator=Validator(timeout=60, memory=1024),
        links=LinkSigner(b"secret" * 8),
        now=clock,
    )


def rejected(pipeline: Pipeline) -> tuple[str, list[str]]:
    """A rejected upload with its file, report and workbook: its id, and their keys."""
    upload = validating_upload(pipeline.database, pipeline.jobs, add_campaign(pipeline.database))
    stem = f"validation-reports/{upload.campaign_id}/{upload.id}"
    keys = [upload.blob_key or "", f"{stem}.csv", f"{stem}.xlsx"]
    source = pipeline.settings.home / "source"
    source.parent.mkdir(exist_ok=True)
    source.write_text("x")
    for key in keys:
        pipeline.blobs.put(key, source)
    reject_upload(
        pipeline.database,
        pipeline.jobs,
        upload.id,
        verdict(is_valid=False),
        report_key=keys[1],
        report_url="url",
        context={},
        now=NOW,
    )
    return upload.id, keys


def kept(pipeline: Pipeline, keys: list[str]) -> list[bool]:
    """Which blobs are there."""
    found = []
    for key in keys:
        try:
            pipeline.blobs.open(key).close()
        except BlobMissingError:
            found.append(False)
        else:
            found.append(True)
    return found


def test_each_kind_goes_in_its_time(pipeline: Pipeline, records: JobRecords, clock: SimulatedClock) -> None:
    """Reports with their workbooks after theirs, files after theirs; the ledger still tells of the upload."""
    upload_id, keys = rejected(pipeline)
    seen = []
    for days in (29, 31, 89, 91):
        clock.now = NOW + days * DAY
        assert clear(pipeline, records)
        seen.append(kept(pipeline, keys))
    assert seen == [[True, True, True], [True, False, False], [True, False, False], [False, False, False]]
    upload = get_upload(pipeline.database, upload_id)
    assert (upload.status, upload.report_key, upload.blob_key) == (UploadStatus.REJECTED, None, None)
    assert upload.report_url == "url"
    assert upload.num_errors == 1


@pytest.mark.parametrize("status", [UploadStatus.RECEIVED, UploadStatus.VALIDATING, UploadStatus.HELD])
def test_what_has_no_outcome_is_kept(
    pipeline: Pipeline, records: JobRecords, clock: SimulatedClock, status: UploadStatus
) -> None:
    """However long it waits."""
    upload = new_upload(enrol(pipeline.database, add_campaign(pipeline.database)))
    receive_upload(pipeline.database, pipeline.jobs, upload)
    change(pipeline.database, uploads, upload.id, status=status.value)
    clock.now = NOW + 1000 * DAY
    clear(pipeline, records)
    assert get_upload(pipeline.database, upload.id).blob_key == upload.blob_key


def test_the_bytes_of_an_upload_that_is_tried_again_meanwhile_stay(
    pipeline: Pipeline, records: JobRecords, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found, and an operator was first; the next one's bytes go, and it cannot be tried again."""
    first, first_keys = rejected(pipeline)
    second, second_keys = rejected(pipeline)
    for upload_id in (first, second):
        change(pipeline.database, uploads, upload_id, status=UploadStatus.FAILED.value, report_key=None)
    clock.now = NOW + 91 * DAY
    again = partial(retry_upload, pipeline.database, pipeline.jobs, window=timedelta(), actor="operator", now=clock.now)
    find = expiry.old_files

    def find_first(*arguments: Any, **options: Any) -> list[tuple[str, str]]:
        found = find(*arguments, **options)
        again(first)
        return found

    monkeypatch.setattr(expiry, "old_files", find_first)
    clear(pipeline, records)
    assert kept(pipeline, first_keys[:1] + second_keys[:1]) == [True, False]
    upload = get_upload(pipeline.database, first)
    assert (upload.status, upload.blob_key) == (UploadStatus.VALIDATING, first_keys[0])
    with pytest.raises(Refusal, match="not kept any more"):
        again(second)


def test_bytes_that_are_not_gone_are_not_said_to_be(
    pipeline: Pipeline, records: JobRecords, clock: SimulatedClock
) -> None:
    """Where the store refuses, the next time does it; a retry that comes while they go waits, and is refused."""
    upload_id, (key, *_) = rejected(pipeline)
    change(pipeline.database, uploads, upload_id, status=UploadStatus.FAILED.value, report_key=None)
    clock.now = NOW + 91 * DAY
    file = pipeline.settings.blob_folder / key
    file.unlink()
    file.mkdir()  # which cannot be unlinked
    with pytest.raises(TransientError):
        clear(pipeline, records)
    assert get_upload(pipeline.database, upload_id).blob_key == key
    file.rmdir()
    again = partial(
        retry_upload, pipeline.database, pipeline.jobs, upload_id, window=timedelta(), actor="operator", now=clock.now
    )
    with ThreadPoolExecutor(1) as threads:
        came: list[Future[Upload]] = []

        def delete() -> None:
            came.append(threads.submit(again))
            time.sleep(0.3)
            assert not came[0].done()

        assert expiry.clear_file(pipeline.database, upload_id, before=clock.now, delete=delete)
        with pytest.raises(Refusal, match="not kept any more"):
            came[0].result()
    assert get_upload(pipeline.database, upload_id).status is UploadStatus.FAILED


def test_slices_are_bounded(
    pipeline: Pipeline, records: JobRecords, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call takes one of each kind, and says whether it was the last."""
    monkeypatch.setattr(retention, "_SLICE", 2)
    keys = [key for _ in range(3) for key in rejected(pipeline)[1]]
    clock.now = NOW + 91 * DAY
    assert [clear(pipeline, records) for _ in range(3)] == [False, True, True]
    assert not any(kept(pipeline, keys))
    assert count(pipeline.database, uploads) == 3


def test_jobs_that_wait_stay(pipeline: Pipeline, records: JobRecords, clock: SimulatedClock) -> None:
    """Also when they are older than what is remembered of finished ones."""
    rejected(pipeline)
    before = job_states(pipeline.database)
    clock.now = NOW + 1000 * DAY
    clear(pipeline, records)
    assert job_states(pipeline.database) == before
    assert set(jobs_of(pipeline.database).values()) == {"process_upload", "send_notice"}


def test_a_blob_store_that_is_away_is_waited_for(
    pipeline: Pipeline, records: JobRecords, clock: SimulatedClock
) -> None:
    """The ledger goes on saying that the report is kept."""
    upload_id, keys = rejected(pipeline)
    clock.now = NOW + 31 * DAY
    report = pipeline.settings.blob_folder / keys[1]
    report.unlink()
    report.mkdir()  # which cannot be unlinked
    with pytest.raises(TransientError):
        clear(pipeline, records)
    assert get_upload(pipeline.database, upload_id).report_key == keys[1]
    report.rmdir()
    assert clear(pipeline, records)
    assert get_upload(pipeline.database, upload_id).report_key is None


def test_one_worker_clears_at_a_time(pipeline: Pipeline, records: JobRecords, clock: SimulatedClock) -> None:
    """Another one leaves it alone; on SQLite there is no other."""
    _id, keys = rejected(pipeline)
    clock.now = NOW + 31 * DAY
    with alone(pipeline.database, "retention"):
        if not pipeline.database.is_sqlite:
            assert clear(pipeline, records)
            assert all(kept(pipeline, keys))
    assert clear(pipeline, records)
    assert kept(pipeline, keys) == [True, False, False]
