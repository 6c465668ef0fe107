"""An upload's way through the pipeline, with a real ledger, real blobs and the real validating process."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
import sqlalchemy as sa
from support.domain import DAY, change, message_rows
from unit.pipeline_fixtures import GOOD, HEADER, NOW, a_campaign, rows_of

from keys.enrolment import enrol
from pipeline.batches import write_batch
from pipeline.context import notice_context
from pipeline.validator import Validator
from pipeline.workflow import Pipeline, process
from postern.errors import NotFoundError, TransientError
from postern.links import LinkSigner
from postern.model import (
    BatchStatus,
    Campaign,
    Channel,
    Environment,
    Finding,
    IdKind,
    Upload,
    UploadStatus,
    Verdict,
    derived_id,
    is_id,
    new_id,
)
from postern.settings import WorkerSettings
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import get_batch, start_batch
from storage.ledger.campaigns import create_campaign, delete_campaign
from storage.ledger.decisions import release_upload, retry_upload
from storage.ledger.messages import list_messages
from storage.ledger.new_messages import write_messages
from storage.ledger.notices import mark_sent
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import fail_upload, get_upload
from storage.local import LocalBlobs
from storage.tables import batches, messages, notices, uploads

pytest_plugins = ["support.databases"]
KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBN3Bt6sfK6WuWRTUCsomQdmpiYK/38abqPwkmY9wmwx"
OWNER = "owner@agency.example"
LATER = timedelta(hours=1)


@pytest.fixture(scope="module")
def validator() -> Iterator[Validator]:
    """A warm validating process."""
    validator = Validator(timeout=60, memory=1024)
    validator.warm_up()
    yield validator
    validator.close()


@dataclass
class World:
    """One campaign with a key, and a pipeline that processes its uploads."""

    pipeline: Pipeline
    campaign: Campaign
    enrolment_id: str

    def upload(self, content: str | bytes) -> str:
        """Put an upload into the blob store and the ledger, as intake does."""
        data = content.encode() if isinstance(content, str) else content
        upload_id = new_id(IdKind.UPLOAD)
        key = f"uploads/{self.campaign.id}/{upload_id}.csv"
        source = self.pipeline.settings.home / "source"
        source.write_bytes(data)
        self.pipeline.blobs.put(key, source)
        upload = Upload(
            id=upload_id,
            campaign_id=self.campaign.id,
            enrolment_id=self.enrolment_id,
            file_name="people.csv",
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            status=UploadStatus.RECEIVED,
            received_at=NOW,
            blob_key=key,
        )
        receive_upload(self.pipeline.database, self.pipeline.jobs, upload)
        return upload_id

    def found(self, upload_id: str) -> Upload:
        return get_upload(self.pipeline.database, upload_id)

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """All rows of a table."""
        with self.pipeline.database.read() as connection:
            return [dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()]

    def jobs(self) -> list[tuple[str, str]]:
        """The id and the name of every job that was left."""
        query = sa.text("SELECT workflow_uuid, name FROM workflow_status ORDER BY created_at, workflow_uuid")
        with self.pipeline.database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def everything(self) -> object:
        """All that a second run might change."""
        blobs = {
            path: path.read_bytes() for path in (self.pipeline.settings.home / "blobs").rglob("*") if path.is_file()
        }
        return [self.rows(table) for table in (uploads, batches, messages, notices)], self.jobs(), blobs

    def at(self, now: datetime) -> Pipeline:
        """The same pipeline at another time."""
        return replace(self.pipeline, now=lambda: now)


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path, validator: Validator) -> Iterator[World]:
    """A world on SQLite and a folder."""
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    campaign = a_campaign()
    create_campaign(database, campaign, actor="operator")
    (key,) = enrol(database, campaign_id=campaign.id, key_texts=[KEY], email=OWNER, actor="operator", now=NOW)
    pipeline = Pipeline(
        settings=WorkerSettings(home=home, public_url="https://postern.example"),
        database=database,
        blobs=LocalBlobs(home / "blobs"),
        jobs=jobs,
        validator=validator,
        links=LinkSigner(bytes(32)),
        now=lambda: NOW,
    )
    yield World(pipeline, campaign, key.enrolment_id)
    jobs.close()
    database.dispose()


def test_a_good_file_becomes_a_batch(world: World) -> None:
    """Its messages, its first job, its notice and its acceptance are there together."""
    upload_id = world.upload(HEADER + GOOD + "\n14155552671,Chinese,陈,茶\n")
    assert process(world.pipeline, upload_id) == "accepted"
    upload = world.found(upload_id)
    assert (upload.status, upload.finished_at, upload.support_id) == (UploadStatus.ACCEPTED, NOW, None)
    assert (upload.total_rows, upload.num_rows, upload.num_errors, upload.has_unicode) == (2, 0, 0, True)
    assert (upload.report_key, upload.report_url) == (None, None)
    batch = get_batch(world.pipeline.database, upload.batch_id or "")
    assert (batch.status, batch.total, batch.first_row, batch.last_row) == (BatchStatus.MESSAGES_ENQUEUED, 2, 2, 4)
    assert (f"chunk:{batch.id}:2", "send_chunk") in world.jobs()
    found = {row["row"]: row for row in world.rows(messages)}
    assert [(row, found[row]["recipient"], found[row]["language"], found[row]["segments"]) for row in (2, 4)] == [
        (2, "6591234567", "english", 1),
        (4, "14155552671", "chinese", 1),
    ]
    assert json.loads(found[4]["values"]) == {"name": "陈", "topic": "茶"}


def test_ids_are_made_from_the_upload(world: World) -> None:
    """Making the same batch twice makes the same rows."""
    upload_id = world.upload(HEADER + GOOD + GOOD)
    process(world.pipeline, upload_id)
    batch_id = derived_id(IdKind.BATCH, upload_id, "batch")
    assert [row["id"] for row in world.rows(batches)] == [batch_id]
    assert [message.id for message in list_messages(world.pipeline.database, batch_id=batch_id)] == [
        derived_id(IdKind.MESSAGE, batch_id, "2"),
        derived_id(IdKind.MESSAGE, batch_id, "3"),
    ]


def test_a_bad_file_is_rejected_with_a_report(world: World) -> None:
    """No batch and no message, whatever rows were good; the link works for whoever has it, until it expires."""
    upload_id = world.upload(HEADER + GOOD + "x,english,a,’\n")
    assert process(world.pipeline, upload_id) == "rejected"
    upload = world.found(upload_id)
    assert (upload.status, upload.finished_at) == (UploadStatus.REJECTED, NOW)
    assert (upload.total_rows, upload.num_rows, upload.num_errors) == (2, 1, 2)
    assert (upload.has_avoidable_character, upload.has_unicode) == (True, True)
    assert (world.rows(batches), world.rows(messages)) == ([], [])
    assert upload.report_key == f"validation-reports/{world.campaign.id}/{upload_id}.csv"
    with world.pipeline.blobs.open(upload.report_key) as report:
        assert rows_of(report.read().decode("utf-8-sig"))[2][:4] == ["x", "english", "a", "’"]
    url = urlsplit(upload.report_url or "")
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (f"{url.scheme}://{url.netloc}", url.path) == ("https://postern.example", f"/{upload.report_key}")
    assert world.pipeline.links.is_good(url.path, query["expires"], query["signature"])
    assert int(query["expires"]) == int((NOW + timedelta(days=7)).timestamp())


@pytest.mark.parametrize(("content", "has_one"), [(HEADER + "x,english,a,b\n", True), (HEADER, True), ("", False)])
def test_a_rejection_offers_the_workbook_that_will_be_made(world: World, content: str, has_one: bool) -> None:
    """Its job is left with the verdict, and the mail has a link that works when it is there; or neither."""
    upload_id = world.upload(content)
    assert process(world.pipeline, upload_id) == "rejected"
    assert ((f"workbook:{upload_id}", "make_workbook") in world.jobs()) is has_one
    (notice,) = world.rows(notices)
    assert (notice["context"]["workbookURL"] is not None) is has_one
    if has_one:
        url = urlsplit(notice["context"]["workbookURL"])
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        assert url.path == f"/validation-reports/{world.campaign.id}/{upload_id}.xlsx"
        assert world.pipeline.links.is_good(url.path, query["expires"], query["signature"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff\xfe", HEADER.encode(), b"\n" * 1000])
def test_a_file_that_cannot_be_read_is_rejected(world: World, content: bytes) -> None:
    """It is the file's fault, not ours."""
    upload_id = world.upload(content)
    assert process(world.pipeline, upload_id) == "rejected"
    upload = world.found(upload_id)
    assert (upload.num_rows, upload.num_errors, upload.support_id) == (0, 1, None)


def test_an_upload_whose_bytes_are_gone_fails(world: World) -> None:
    """With a support id, and without JSON for the owner."""
    upload_id = world.upload(HEADER + GOOD)
    world.pipeline.blobs.delete(world.found(upload_id).blob_key or "")
    assert process(world.pipeline, upload_id) == "failed"
    upload = world.found(upload_id)
    assert upload.status is UploadStatus.FAILED
    assert is_id(IdKind.SUPPORT, upload.support_id or "")
    assert "no blob" in (upload.reason or "")
    (notice,) = world.rows(notices)
    assert (notice["kind"], notice["recipient"]) == ("failed", OWNER)
    assert (notice["context"]["supportId"], notice["context"]["verdict"]) == (upload.support_id, None)
    assert world.found(upload.support_id or "").id == upload_id


def test_a_failed_upload_that_is_tried_again_is_accepted(world: World) -> None:
    """Under the ids that it has; its mail follows the one that told of the failure."""
    upload_id = world.upload(HEADER + GOOD * 3)
    key = world.found(upload_id).blob_key or ""
    world.pipeline.blobs.delete(key)
    assert process(world.pipeline, upload_id) == "failed"
    first = world.found(upload_id)
    mark_sent(world.pipeline.database, world.rows(notices)[0]["id"], now=NOW)
    retry_upload(world.pipeline.database, world.pipeline.jobs, upload_id, window=DAY, actor="operator", now=NOW)
    assert process(world.pipeline, upload_id) == "failed"
    assert world.found(upload_id).support_id == first.support_id
    (notice,) = world.rows(notices)
    assert (notice["kind"], notice["status"], notice["context"]["answers"]) == ("failed", "pending", None)
    assert notice["context"]["reason"] == "It was tried again and has failed again; that was try 2."
    (world.pipeline.settings.home / "source").write_text(HEADER + GOOD * 3)
    world.pipeline.blobs.put(key, world.pipeline.settings.home / "source")
    retry_upload(world.pipeline.database, world.pipeline.jobs, upload_id, window=DAY, actor="operator", now=NOW)
    assert process(world.pipeline, upload_id) == "accepted"
    upload = world.found(upload_id)
    assert (upload.batch_id, upload.total_rows) == (derived_id(IdKind.BATCH, upload_id, "batch"), 3)
    assert len(world.rows(messages)) == 3
    contexts = {notice["kind"]: notice["context"] for notice in world.rows(notices)}
    assert (contexts["failed"]["answers"], contexts["accepted"]["answers"]) == (None, "failed")


def test_a_retry_finds_what_an_earlier_try_has_written(world: World) -> None:
    """Part of the batch was there when the upload failed; each message is there once."""
    upload_id = world.upload(HEADER + GOOD * 40)
    started = (world.pipeline.database, world.pipeline.jobs)
    batch_id = start_batch(started[0], upload_id=upload_id, campaign_id=world.campaign.id, rows=(40, 2, 41), now=NOW)
    write_messages(started[0], batch_id=batch_id, parts=[message_rows(["6591234567"] * 15)])
    fail_upload(*started, upload_id, support_id="support_1", reason="x", context={}, now=NOW)
    retry_upload(world.pipeline.database, world.pipeline.jobs, "support_1", window=DAY, actor="operator", now=NOW)
    assert process(world.pipeline, upload_id) == "accepted"
    assert [row["row"] for row in world.rows(messages)] == list(range(2, 42))


def test_the_outcome_of_a_released_upload_follows_its_hold_notice(world: World) -> None:
    """It is judged as any other; nobody asks again whether it is a repeat."""
    upload_id = world.upload(HEADER + GOOD)
    change(world.pipeline.database, uploads, upload_id, status=UploadStatus.HELD.value, held_at=NOW)
    assert process(world.pipeline, upload_id) == "done before"
    release_upload(world.pipeline.database, world.pipeline.jobs, upload_id, actor="owner", now=NOW)
    assert process(world.pipeline, upload_id) == "accepted"
    (notice,) = world.rows(notices)
    assert (notice["kind"], notice["context"]["answers"]) == ("accepted", "held")


def test_an_upload_of_a_campaign_deleted_since_is_dropped(world: World) -> None:
    """With its mail, and nothing of it is sent."""
    upload_id = world.upload(HEADER + GOOD)
    delete_campaign(world.pipeline.database, world.pipeline.jobs, world.campaign.id, actor="operator", now=NOW)
    assert process(world.pipeline, upload_id) == "dropped"
    upload = world.found(upload_id)
    assert (upload.status, upload.reason) == (UploadStatus.DROPPED, "Its campaign was deleted.")
    (notice,) = world.rows(notices)
    assert (notice["kind"], notice["recipient"], notice["context"]["campaignName"]) == (
        "dropped",
        OWNER,
        world.campaign.name,
    )
    assert world.rows(batches) == []
    assert process(world.pipeline, upload_id) == "done before"


def test_an_upload_whose_campaign_is_deleted_while_it_is_judged_is_dropped(world: World) -> None:
    """Nothing of what was written of its batch is sent."""
    moments = iter([lambda: delete_campaign(*store, world.campaign.id, actor="operator", now=NOW)])
    store = (world.pipeline.database, world.pipeline.jobs)

    def now() -> datetime:
        for happen in moments:  # when the batch is begun
            happen()
        return NOW

    upload_id = world.upload(HEADER + GOOD)
    assert process(replace(world.pipeline, now=now), upload_id) == "dropped"
    assert world.found(upload_id).status is UploadStatus.DROPPED
    assert [batch["status"] for batch in world.rows(batches)] == [BatchStatus.MESSAGES_ENQUEUING_FAILED]
    assert not any(name == "send_chunk" for _, name in world.jobs())


def test_a_file_that_kills_its_process_fails(world: World) -> None:
    """The next one is judged as ever."""
    mean = Validator(timeout=0.01, memory=4096)
    try:
        upload_id = world.upload(HEADER + GOOD * 300_000)
        assert process(replace(world.pipeline, validator=mean), upload_id) == "failed"
    finally:
        mean.close()
    assert world.found(upload_id).reason == "The validating process was lost: no answer within 0.01 s"
    assert process(world.pipeline, world.upload(HEADER + GOOD)) == "accepted"


def test_trouble_with_the_disk_is_no_fault_of_the_file(world: World) -> None:
    """The upload waits for its mend, and then comes to its outcome."""
    scratch = world.pipeline.settings.home / "scratch"
    scratch.write_text("in the way", encoding="utf-8")
    upload_id = world.upload(HEADER + GOOD)
    with pytest.raises(TransientError, match="cannot be used: File exists"):
        process(world.pipeline, upload_id)
    assert world.found(upload_id).status is UploadStatus.VALIDATING
    scratch.unlink()
    assert process(world.pipeline, upload_id) == "accepted"


@pytest.mark.parametrize("content", [HEADER + GOOD * 3, HEADER + "x,y,z\n", ""])
def test_a_second_run_changes_nothing(world: World, content: str) -> None:
    """Whenever it comes: not the ledger, not the outbox, not the jobs, not the blobs."""
    upload_id = world.upload(content)
    process(world.pipeline, upload_id)
    before = world.everything()
    assert process(world.at(NOW + LATER), upload_id) == "done before"
    assert world.everything() == before


def test_a_failed_upload_stays_failed(world: World) -> None:
    """Until an operator says otherwise, also when its bytes are back."""
    upload_id = world.upload(HEADER + GOOD)
    key = world.found(upload_id).blob_key or ""
    world.pipeline.blobs.delete(key)
    process(world.pipeline, upload_id)
    source = world.pipeline.settings.home / "source"
    world.pipeline.blobs.put(key, source)
    assert process(world.pipeline, upload_id) == "done before"
    assert world.found(upload_id).status is UploadStatus.FAILED


def test_a_worker_that_died_over_a_batch_is_taken_over(world: World) -> None:
    """What it had written stays as it is, what is missing is added, and there is one batch."""
    upload_id = world.upload(HEADER + GOOD * 3)
    batch_id = start_batch(
        world.pipeline.database, upload_id=upload_id, campaign_id=world.campaign.id, rows=(3, 2, 4), now=NOW - LATER
    )
    rows = pl.DataFrame(
        {"row": [2], "recipient": ["6591234567"], "language": ["english"], "values": ["{}"], "segments": [1]}
    )
    folder = world.pipeline.settings.home / "rows"
    folder.mkdir()
    rows.write_ipc(folder / "1.arrow")
    write_batch(
        world.pipeline.database,
        upload_id=upload_id,
        campaign_id=world.campaign.id,
        rows=folder,
        extent=(3, 2, 4),
        now=NOW - LATER,
    )
    assert process(world.pipeline, upload_id) == "accepted"
    assert [row["id"] for row in world.rows(batches)] == [batch_id]
    assert {row["row"]: row["values"] == "{}" for row in world.rows(messages)} == {2: True, 3: False, 4: False}
    assert get_batch(world.pipeline.database, batch_id).total == 3


def test_a_database_that_is_away_is_no_outcome(world: World, tmp_path: Path) -> None:
    """The job waits for it; the upload is not failed for it."""
    upload_id = world.upload(HEADER + GOOD)
    away = Database(f"sqlite:///{tmp_path / 'nothing' / 'here.db'}")
    with pytest.raises(TransientError):
        process(replace(world.pipeline, database=away), upload_id)
    away.dispose()
    assert world.found(upload_id).status is UploadStatus.RECEIVED
    assert process(world.pipeline, upload_id) == "accepted"


@pytest.mark.parametrize("content", [HEADER + GOOD, HEADER + "x\n"])
def test_nothing_of_a_file_is_left_behind(world: World, content: str) -> None:
    """It has phone numbers in it; the scratch folder is for its owner only."""
    process(world.pipeline, world.upload(content))
    scratch = world.pipeline.settings.home / "scratch"
    assert list(scratch.iterdir()) == []
    assert scratch.stat().st_mode & 0o777 == 0o700


def test_an_upload_that_nobody_knows_is_done(world: World) -> None:
    """There is nothing to do for it."""
    assert process(world.pipeline, new_id(IdKind.UPLOAD)) == "done before"
    with pytest.raises(NotFoundError):
        world.found(new_id(IdKind.UPLOAD))


def test_a_batch_of_several_commits_is_whole(world: World) -> None:
    """At the boundary of a commit nothing is lost."""
    upload_id = world.upload(HEADER + GOOD * 5_001)
    assert process(world.pipeline, upload_id) == "accepted"
    assert [row["row"] for row in world.rows(messages)] == list(range(2, 5_003))


@pytest.mark.parametrize(("content", "kind"), [(HEADER + GOOD, "accepted"), (HEADER + "x,english,a,b\n", "rejected")])
def test_an_outcome_has_one_notice(world: World, content: str, kind: str) -> None:
    """To the enrolment's address, with all that the mail needs, and its job."""
    upload_id = world.upload(content)
    process(world.pipeline, upload_id)
    (notice,) = world.rows(notices)
    context, upload = notice["context"], world.found(upload_id)
    assert (notice["upload_id"], notice["kind"], notice["recipient"]) == (upload_id, kind, OWNER)
    assert (notice["id"], "send_notice") in world.jobs()
    assert (context["batchId"], context["reportURL"]) == (upload.batch_id, upload.report_url)
    assert context["verdict"]["isValid"] == (kind == "accepted")


def verdict(*, valid: bool = True, local: int = 0, foreign: int = 0) -> Verdict:
    return Verdict(
        is_valid=valid,
        total_rows=1,
        num_rows=0,
        num_errors=0,
        has_avoidable_character=False,
        has_unicode=False,
        by_code={},
        first_errors=[Finding(code="x", sentence="x")],
        warnings={},
        first_warnings=[],
        rows_by_language={},
        segments=local + foreign,
        local_segments=local,
        foreign_segments=foreign,
    )


def test_a_context_tells_the_upload(world: World) -> None:
    """Plain values, times with the service's offset; it can be stored as JSON."""
    upload = world.found(world.upload(HEADER + GOOD))
    context = notice_context(
        upload, world.campaign, world.pipeline.settings, verdict=verdict(), report_expires_at=NOW + LATER
    )
    assert json.loads(json.dumps(context)) == context
    assert (context["uploadId"], context["fileName"], context["size"]) == (upload.id, "people.csv", upload.size)
    assert context["sha256"] == hashlib.sha256((HEADER + GOOD).encode()).hexdigest()
    assert (context["receivedAt"], context["reportExpiresAt"]) == (
        "2026-11-20T16:30:00.000+08:00",
        "2026-11-20T17:30:00.000+08:00",
    )
    assert (context["environment"], context["provider"]) == ("production", "simulator")


@pytest.mark.parametrize(
    ("environment", "found", "cost"),
    [
        (Environment.PRODUCTION, verdict(local=1), "0.05"),
        (Environment.PRODUCTION, verdict(local=1000, foreign=100), "69.00"),
        (Environment.PRODUCTION, verdict(), "0.00"),
        (Environment.TEST, verdict(local=1000), "0.00"),
        (Environment.LOADTEST, verdict(local=1000), "0.00"),
        (Environment.PRODUCTION, verdict(valid=False, local=1000), None),
        (Environment.PRODUCTION, None, None),
    ],
)
def test_the_cost_is_estimated(world: World, environment: Environment, found: Verdict | None, cost: str | None) -> None:
    """By segments, local and foreign; only production is charged, and a rejected file costs nothing to tell."""
    upload = world.found(world.upload(HEADER + GOOD))
    settings = WorkerSettings(environment=environment)
    assert notice_context(upload, world.campaign, settings, verdict=found)["estimatedCost"] == cost


def test_an_internal_campaign_has_no_estimate(world: World) -> None:
    """Its agency's own provider bills it."""
    upload = world.found(world.upload(HEADER + GOOD))
    campaign = replace(world.campaign, channel=Channel.INTERNAL)
    assert notice_context(upload, campaign, WorkerSettings(), verdict=verdict(local=1))["estimatedCost"] is None
