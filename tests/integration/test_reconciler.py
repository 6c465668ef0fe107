"""The reconciler on both databases: what stands still gets a job, what is given up an end, nothing else moves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from support.domain import (
    NOW,
    RECIPIENT,
    SimulatedClock,
    add_campaign,
    change_message,
    enqueued_batch,
    enrol,
    held_upload,
    job_states,
    jobs_of,
    new_upload,
    notice_id,
    notices_of,
    validating_upload,
)

from pipeline.reconciler import Reconciler
from pipeline.validator import Validator
from pipeline.workflow import Pipeline
from postern.links import LinkSigner
from postern.model import BatchStatus, IdKind, MessageStatus, NoticeKind, Upload, UploadStatus, Verdict, new_id
from postern.settings import WorkerSettings
from storage.blobs import BlobMissingError
from storage.database import Database
from storage.engine import MAX_RECOVERIES, Jobs
from storage.job_records import JobRecords
from storage.jobs import (
    END_UNSENT,
    ENQUEUE_RETRIES,
    INDEX_MESSAGES,
    MAKE_WORKBOOK,
    PROCESS_UPLOAD,
    SEND_CHUNK,
    SEND_NOTICE,
    JobKind,
)
from storage.ledger.campaigns import delete_campaign
from storage.ledger.decisions import go_on_dropping, retry_upload
from storage.ledger.notices import mark_sent
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import fail_upload, get_upload, reject_upload
from storage.local import LocalBlobs
from storage.tables import attempts, batches, campaigns, messages
from storage.takeover import alone

pytest_plugins = ["support.databases"]

GRACE = timedelta(minutes=1)
REST = timedelta(minutes=15)
VERDICT = Verdict(
    is_valid=False,
    total_rows=1,
    num_rows=1,
    num_errors=1,
    has_avoidable_character=False,
    has_unicode=False,
    by_code={},
    first_errors=(),
    warnings={},
    first_warnings=(),
    rows_by_language={},
    segments=0,
)


@dataclass
class World:
    """A ledger, its engine's rows, and a reconciler that looks at them two minutes after all of it began."""

    pipeline: Pipeline
    records: JobRecords
    clock: SimulatedClock

    def __post_init__(self) -> None:
        self.reconciler = self.small(500)

    def small(self, most: int) -> Reconciler:
        """A reconciler that looks at so many of a kind in a pass."""
        return Reconciler(self.pipeline, self.records, grace=GRACE, rest=REST, most=most)

    @property
    def database(self) -> Database:
        return self.pipeline.database

    @property
    def jobs(self) -> Jobs:
        assert isinstance(self.pipeline.jobs, Jobs)
        return self.pipeline.jobs

    def received(self) -> Upload:
        """An upload that waits for its validation."""
        upload = new_upload(enrol(self.database, add_campaign(self.database)))
        receive_upload(self.database, self.jobs, upload)
        return upload

    def batch(self, rows: int = 3) -> str:
        """A batch with its first chunk's job and its mail's."""
        campaign = add_campaign(self.database)
        return enqueued_batch(self.database, self.jobs, campaign, [RECIPIENT] * rows)

    def rejected(self) -> Upload:
        """An upload that was rejected, with a workbook to come."""
        upload = validating_upload(self.database, self.jobs, add_campaign(self.database))
        reject_upload(
            self.database,
            self.jobs,
            upload.id,
            VERDICT,
            report_key="key",
            report_url="url",
            context={"workbookURL": "url"},
            has_workbook=True,
            now=NOW,
        )
        return upload

    def set_jobs(self, status: str, name: str | None = None, *, at: datetime = NOW) -> None:
        """Let jobs, all or of one kind, be in a state since a time."""
        prefix = "" if self.database.is_sqlite else "dbos."
        statement = f"UPDATE {prefix}workflow_status SET status = :status, completed_at = :at, updated_at = :at"
        with self.database.write() as connection:
            connection.execute(
                sa.text(statement + (" WHERE name = :name" if name else "")),
                {"status": status, "name": name, "at": int(at.timestamp() * 1000)},
            )

    def end_job(self, job_id: str, *, is_done: bool) -> None:
        """Let a job end, with its work done or undone."""
        prefix = "" if self.database.is_sqlite else "dbos."
        statement = f"UPDATE {prefix}workflow_status SET status = 'SUCCESS', output = :output WHERE workflow_uuid = :id"
        with self.database.write() as connection:
            connection.execute(sa.text(statement), {"output": "true" if is_done else "false", "id": job_id})

    def lose_jobs(self) -> None:
        """Remove every row of the engine."""
        prefix = "" if self.database.is_sqlite else "dbos."
        with self.database.write() as connection:
            connection.execute(sa.text(f"DELETE FROM {prefix}workflow_status"))
            connection.execute(sa.text(f"DELETE FROM {prefix}workflow_input"))

    def claim_all_but_the_sent(self, batch_id: str) -> None:
        """Let a sender die between its claim and its results."""
        number = sa.select(batches.c.number).where(batches.c.id == batch_id).scalar_subquery()
        with self.database.write() as connection:
            batch = connection.execute(sa.select(number)).scalar_one()
            left = sa.and_(messages.c.batch == batch, messages.c.latest_status == MessageStatus.ENQUEUED.value)
            rows = connection.execute(sa.select(messages.c.row).where(left)).scalars().all()
            connection.execute(messages.update().where(left).values(latest_status=MessageStatus.SENDING.value))
            for row in rows:
                connection.execute(
                    attempts.insert().values(
                        id=new_id(IdKind.ATTEMPT),
                        batch=batch,
                        row=row,
                        number=1,
                        status=MessageStatus.SENDING.value,
                        claim="token",
                        provider="twilio",
                        external_id="",
                        inferred=False,
                        created_at=NOW,
                        updated_at=NOW,
                    )
                )

    def finish_everything(self, batch_id: str) -> None:
        """Let a batch be sent, indexed and told of."""
        for row in range(2, 5):
            change_message(self.database, batch_id, row, latest_status=MessageStatus.SUCCESS.value)
        with self.database.write() as connection:
            connection.execute(sa.text("UPDATE batches SET is_indexed = true"))
            connection.execute(sa.text("UPDATE notices SET status = 'sent'"))


@pytest.fixture
def world(database_url: str, database: Database, jobs: Jobs, tmp_path: Path) -> Iterator[World]:
    """On each kind of database in turn."""
    settings = WorkerSettings(home=tmp_path / "home", database_url=database_url)
    clock = SimulatedClock(NOW + 2 * GRACE)
    pipeline = Pipeline(
        settings=settings,
        database=database,
        blobs=LocalBlobs(settings.blob_folder),
        jobs=jobs,
        validator=Validator(timeout=60, memory=1024),
        links=LinkSigner(b"secret" * 8),
        now=clock,
    )
    records = JobRecords(database_url)
    yield World(pipeline, records, clock)
    records.close()


def lose(world: World) -> None:
    world.lose_jobs()


def done(world: World) -> None:
    world.set_jobs("SUCCESS")


def cancelled(world: World) -> None:
    world.set_jobs("CANCELLED")


@pytest.mark.parametrize("mishap", [lose, done, cancelled])
def test_whatever_is_open_gets_its_job_again(world: World, mishap: Callable[[World], None]) -> None:
    """Under the id that it had; looking again leaves no second one."""
    upload, batch_id, rejected = world.received(), world.batch(), world.rejected()
    before = jobs_of(world.database)
    wanted = {
        upload.id: PROCESS_UPLOAD.name,
        f"chunk:{batch_id}:2": SEND_CHUNK.name,
        f"index:{batch_id}": INDEX_MESSAGES.name,
        notice_id(rejected.id, NoticeKind.REJECTED): SEND_NOTICE.name,
        f"workbook:{rejected.id}": MAKE_WORKBOOK.name,
    }
    assert wanted.items() <= before.items()
    mishap(world)
    world.reconciler.reconcile()
    states = job_states(world.database)
    expected = wanted if mishap is lose else {job: name for job, name in wanted.items() if name != MAKE_WORKBOOK.name}
    assert {job for job, state in states.items() if state == ("ENQUEUED", 0)} >= set(expected)
    assert world.reconciler.reconcile() == 0
    assert job_states(world.database) == states


@pytest.mark.parametrize("state", ["ENQUEUED", "PENDING"])
def test_what_waits_or_runs_is_not_touched(world: World, state: str) -> None:
    """However long it takes."""
    world.received()
    world.batch()
    world.rejected()
    world.set_jobs(state)
    before = job_states(world.database)
    world.clock.advance(86_000)
    assert world.reconciler.reconcile() == 0
    assert job_states(world.database) == before


def test_what_is_new_is_left_to_its_way(world: World) -> None:
    """A job that is being left or has just ended is none that is missing."""
    world.received()
    world.batch()
    world.lose_jobs()
    world.clock.now = NOW + GRACE / 2
    assert world.reconciler.reconcile() == 0


def test_what_is_finished_gets_no_job(world: World) -> None:
    """Also when the engine has forgotten it."""
    batch_id = world.batch()
    world.finish_everything(batch_id)
    world.lose_jobs()
    assert world.reconciler.reconcile() == 0
    assert jobs_of(world.database) == {}


def test_an_upload_whose_job_is_given_up_fails(world: World) -> None:
    """With a support id and its mail; once, with an alarm."""
    upload = world.received()
    world.set_jobs("MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    with capture_logs() as logs:
        assert world.reconciler.reconcile() == 1
    failed = get_upload(world.database, upload.id)
    assert failed.status is UploadStatus.FAILED
    assert (failed.support_id or "").startswith("support_")
    assert notices_of(world.database, upload.id) == [NoticeKind.FAILED]
    assert jobs_of(world.database) == {notice_id(upload.id, NoticeKind.FAILED): SEND_NOTICE.name}
    (alarm,) = [line for line in logs if line["event"] == "job.dead"]
    assert (alarm["job"], alarm["kind"], alarm["log_level"]) == (upload.id, PROCESS_UPLOAD.name, "critical")
    assert world.reconciler.reconcile() == 0


def test_an_upload_whose_job_ended_with_a_bug_fails(world: World) -> None:
    """It is no less stuck than one whose worker died."""
    upload = world.received()
    world.set_jobs("ERROR")
    world.reconciler.reconcile()
    assert get_upload(world.database, upload.id).status is UploadStatus.FAILED


def test_a_workbook_that_is_given_up_is_said_to_be_none(world: World) -> None:
    """So that its page does not wait for ever."""
    upload = world.rejected()
    key = f"validation-reports/{upload.campaign_id}/{upload.id}.xlsx"
    world.set_jobs("MAX_RECOVERY_ATTEMPTS_EXCEEDED", MAKE_WORKBOOK.name)
    with pytest.raises(BlobMissingError):
        world.pipeline.blobs.open(key)
    assert world.reconciler.reconcile() == 1
    with world.pipeline.blobs.open(key) as file:
        assert file.read() == b""
    assert f"workbook:{upload.id}" not in jobs_of(world.database)


@pytest.mark.parametrize("kind", [SEND_NOTICE, SEND_CHUNK, INDEX_MESSAGES])
@pytest.mark.parametrize("state", ["MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"])
def test_mails_and_messages_are_never_given_up_for_good(world: World, kind: JobKind, state: str) -> None:
    """An alarm, a rest, and one more start; it is on the operator's list meanwhile."""
    world.batch()
    world.set_jobs("PENDING")
    world.set_jobs(state, kind.name)
    (dead,) = world.records.dead()
    assert (dead.kind, dead.died_at, dead.has_killed) == (kind.name, NOW, state != "ERROR")
    with capture_logs() as logs:
        assert world.reconciler.reconcile() == 0
        assert world.reconciler.reconcile() == 0
    assert [line["job"] for line in logs if line["event"] == "job.dead"] == [dead.id]
    world.clock.now = NOW + REST
    assert world.reconciler.reconcile() == 1
    assert job_states(world.database)[dead.id] == ("ENQUEUED", MAX_RECOVERIES)
    assert world.records.dead() == []


def test_a_chain_goes_on_where_it_stands(world: World) -> None:
    """At the first message that waits, or whose sender died."""
    batch_id = world.batch(rows=60)
    world.lose_jobs()
    for row in range(2, 32):
        change_message(world.database, batch_id, row, latest_status=MessageStatus.SUCCESS.value)
    world.reconciler.reconcile()
    assert f"chunk:{batch_id}:32" in jobs_of(world.database)
    world.lose_jobs()
    world.claim_all_but_the_sent(batch_id)
    world.reconciler.reconcile()
    assert f"chunk:{batch_id}:32" in jobs_of(world.database)
    world.lose_jobs()
    with world.database.write() as connection:
        connection.execute(attempts.update().values(external_id="SM1"))
    world.reconciler.reconcile()
    assert SEND_CHUNK.name not in jobs_of(world.database).values()


def test_one_bad_upload_holds_up_nobody(world: World) -> None:
    """What cannot be brought to an end stays an alarm, and the next one comes to its end."""
    bad, good = world.received(), world.received()
    world.set_jobs("MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    with world.database.write() as connection:
        connection.execute(
            sa.text("DELETE FROM templates WHERE campaign_id = :campaign"), {"campaign": bad.campaign_id}
        )
    with capture_logs() as logs:
        assert world.reconciler.reconcile() == 1
    assert get_upload(world.database, good.id).status is UploadStatus.FAILED
    assert [line["job"] for line in logs if line["event"] == "reconciler.stuck"] == [bad.id]


def test_one_worker_reconciles_at_a_time(world: World) -> None:
    """Another one that comes meanwhile leaves it alone; on SQLite there is no other."""
    world.received()
    world.lose_jobs()
    with alone(world.database, "reconciler") as is_ours:
        assert is_ours
        if not world.database.is_sqlite:
            assert world.reconciler.reconcile() == 0
    assert world.reconciler.reconcile() == 1


def test_finished_jobs_are_forgotten_in_slices(world: World) -> None:
    """What waits, runs or is given up stays."""
    for _ in range(3):
        world.received()
    world.set_jobs("SUCCESS", at=NOW)
    world.received()
    assert world.records.forget_over(NOW - GRACE, most=2) == 0
    assert [world.records.forget_over(NOW + GRACE, most=2) for _ in range(3)] == [2, 1, 0]
    assert len(jobs_of(world.database)) == 1
    world.set_jobs("ERROR", at=NOW)
    assert world.records.forget_over(NOW + GRACE, most=2) == 0


def test_a_sent_mail_is_not_sent_again(world: World) -> None:
    """The ledger's word counts, not the engine's."""
    upload = world.rejected()
    mark_sent(world.database, notice_id(upload.id, NoticeKind.REJECTED), now=NOW)
    world.lose_jobs()
    world.reconciler.reconcile()
    assert set(jobs_of(world.database).values()) == {MAKE_WORKBOOK.name}


@pytest.mark.parametrize("state", ["PENDING", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_a_mail_that_is_sent_again_has_a_job_of_its_own(world: World, state: str) -> None:
    """While that one waits or rests there is no other; lost, it is left again."""
    upload = validating_upload(world.database, world.jobs, add_campaign(world.database))
    notice = notice_id(upload.id, NoticeKind.FAILED)
    fail = partial(fail_upload, world.database, world.jobs, upload.id, support_id="support_1", reason="x", context={})
    fail(now=NOW)
    mark_sent(world.database, notice, now=NOW)
    retry_upload(world.database, world.jobs, upload.id, window=timedelta(), actor="operator", now=NOW)
    world.set_jobs("SUCCESS")
    fail(now=NOW)
    world.set_jobs(state, SEND_NOTICE.name)
    job_of = {job for job, kind in jobs_of(world.database).items() if kind == SEND_NOTICE.name}
    assert job_of == {notice, f"{notice}:1"}
    with world.database.write() as connection:
        prefix = "" if world.database.is_sqlite else "dbos."
        connection.execute(sa.text(f"DELETE FROM {prefix}workflow_status WHERE workflow_uuid = :id"), {"id": notice})
    assert world.reconciler.reconcile() == 0
    assert notice not in jobs_of(world.database)
    world.clock.now = NOW + REST
    if state != "PENDING":
        assert world.reconciler.reconcile() == 1
        assert job_states(world.database)[f"{notice}:1"][0] == "ENQUEUED"
    world.lose_jobs()
    world.reconciler.reconcile()
    assert jobs_of(world.database)[notice] == SEND_NOTICE.name


def test_the_clock_of_dead_jobs_is_utc(world: World) -> None:
    """As everything in the ledger."""
    world.received()
    world.set_jobs("ERROR", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert [job.died_at for job in world.records.dead()] == [datetime(2026, 1, 1, tzinfo=UTC)]


def test_what_was_set_back_to_be_retried_is_enqueued(world: World) -> None:
    """When the job of the retry is lost, and only then."""
    batch_id = world.batch()
    change_message(world.database, batch_id, 2, latest_status=MessageStatus.CREATED.value, updated_at=NOW)
    world.lose_jobs()
    world.reconciler.reconcile()
    assert jobs_of(world.database)[f"retry:{batch_id}:0"] == ENQUEUE_RETRIES.name
    assert world.reconciler.reconcile() == 0


def test_what_waits_of_a_cancelled_batch_ends(world: World) -> None:
    """When the job that ends it is lost, and only then."""
    batch_id = world.batch()
    with world.database.write() as connection:
        connection.execute(batches.update().values(status=BatchStatus.CANCELLED.value, updated_at=NOW))
    world.lose_jobs()
    world.reconciler.reconcile()
    assert jobs_of(world.database)[f"end:{batch_id}"] == END_UNSENT.name
    world.lose_jobs()
    with world.database.write() as connection:
        connection.execute(messages.update().values(latest_status=MessageStatus.FAILURE.value))
    world.reconciler.reconcile()
    assert f"end:{batch_id}" not in jobs_of(world.database)


@pytest.mark.parametrize("is_done", [True, False])
def test_a_workbook_whose_job_left_it_for_later_is_made(world: World, is_done: bool) -> None:
    """The ledger does not know of workbooks, so the record of the job tells."""
    job_id = f"workbook:{world.rejected().id}"
    world.end_job(job_id, is_done=is_done)
    world.reconciler.reconcile()
    assert job_states(world.database)[job_id][0] == ("SUCCESS" if is_done else "ENQUEUED")


def test_what_stands_still_behind_many_others_is_found(world: World) -> None:
    """However many there are, in some passes of a bounded size."""
    standing = world.batch()
    cancelled_one = world.batch()
    uploads = [world.rejected() for _ in range(3)]
    sent = [world.batch() for _ in range(25)]
    with world.database.write() as connection:
        numbers = sa.select(batches.c.number).where(batches.c.id.in_(sent))
        connection.execute(
            messages.update().where(messages.c.batch.in_(numbers)).values(latest_status=MessageStatus.SUCCESS.value)
        )
        for batch_id in (cancelled_one, *sent[:12]):
            connection.execute(
                batches.update()
                .where(batches.c.id == batch_id)
                .values(status=BatchStatus.CANCELLED.value, updated_at=NOW)
            )
    world.lose_jobs()
    reconciler = world.small(1)
    wanted = {f"chunk:{standing}:2", f"end:{cancelled_one}", *(f"workbook:{upload.id}" for upload in uploads)}
    for _ in range(30):
        reconciler.reconcile()
    assert wanted <= jobs_of(world.database).keys()


def test_dead_jobs_about_what_is_done_are_forgotten(world: World) -> None:
    """After their rest; those of which something is left are not, and no operator looks for the others in vain."""
    done_one, open_one = world.batch(), world.batch()
    world.lose_jobs()
    with world.database.write() as connection:
        for job_id, kind in {
            f"index:{done_one}:closed": INDEX_MESSAGES,
            f"retry:{done_one}:1": ENQUEUE_RETRIES,
            f"chunk:{done_one}:2": SEND_CHUNK,
            f"retry:{open_one}:1": ENQUEUE_RETRIES,
        }.items():
            world.jobs.enqueue(connection, kind, job_id, done_one, partition="one" if kind is SEND_CHUNK else None)
        connection.execute(campaigns.update().values(paused_at=NOW))  # so that no comparison wants the open one
        connection.execute(batches.update().values(is_indexed=True))
        number = sa.select(batches.c.number).where(batches.c.id == done_one).scalar_subquery()
        connection.execute(
            messages.update().where(messages.c.batch == number).values(latest_status=MessageStatus.SUCCESS.value)
        )
    world.set_jobs("ERROR")
    world.reconciler.reconcile()
    assert len(world.records.dead()) == 4
    world.clock.now = NOW + REST
    world.reconciler.reconcile()
    assert [job.id for job in world.records.dead()] == [f"retry:{open_one}:1"]


def test_the_end_of_a_deleted_campaign_is_not_doubled(world: World) -> None:
    """Its job is about all of its batches; once that is lost, each gets its own."""
    batch_id = world.batch()
    world.lose_jobs()
    with world.database.write() as connection:
        campaign_id = connection.execute(sa.select(campaigns.c.id)).scalar_one()
        connection.execute(campaigns.update().values(deleted_at=NOW))
        world.jobs.enqueue(connection, END_UNSENT, f"end:{campaign_id}", campaign_id)
    world.reconciler.reconcile()
    assert f"end:{batch_id}" not in jobs_of(world.database)
    world.set_jobs("SUCCESS", END_UNSENT.name)
    world.reconciler.reconcile()
    assert f"end:{batch_id}" in jobs_of(world.database)


def test_all_that_is_held_of_a_deleted_campaign_is_dropped(world: World) -> None:
    """However much it is: the job that goes on after the first fifty is left again when it is lost, and only then."""
    key = enrol(world.database, add_campaign(world.database))
    held = [held_upload(world.database, world.jobs, key, is_cut_off=True) for _ in range(52)]
    delete_campaign(world.database, world.jobs, key.campaign_id, actor="operator", now=NOW)
    job_id = f"end:{key.campaign_id}"
    assert jobs_of(world.database)[job_id] == END_UNSENT.name
    assert world.reconciler.reconcile() == 0
    world.lose_jobs()
    world.reconciler.reconcile()
    assert job_states(world.database)[job_id] == ("ENQUEUED", 0)
    world.set_jobs("ERROR", END_UNSENT.name)
    world.clock.now = NOW + REST
    world.reconciler.reconcile()
    assert job_states(world.database)[job_id] == ("ENQUEUED", MAX_RECOVERIES)
    assert go_on_dropping(world.database, world.jobs, key.campaign_id, now=NOW)
    assert {get_upload(world.database, upload.id).status for upload in held} == {UploadStatus.DROPPED}
    world.set_jobs("ERROR", END_UNSENT.name)
    world.clock.now = NOW + 2 * REST
    world.reconciler.reconcile()
    assert job_id not in jobs_of(world.database)


def test_a_retry_that_died_half_way_is_left_once(world: World) -> None:
    """What it has marked is enqueued; the job that died gives up its place."""
    batch_id = world.batch()
    change_message(world.database, batch_id, 2, latest_status=MessageStatus.CREATED.value, updated_at=NOW)
    world.lose_jobs()
    with world.database.write() as connection:
        world.jobs.enqueue(connection, ENQUEUE_RETRIES, f"retry:{batch_id}:0:7", batch_id, 7, NOW.isoformat(), False)
    world.set_jobs("ERROR", ENQUEUE_RETRIES.name)
    world.reconciler.reconcile()
    assert ENQUEUE_RETRIES.name in {job.kind for job in world.records.dead()}
    world.clock.now = NOW + REST
    world.reconciler.reconcile()
    retries = {job for job, name in jobs_of(world.database).items() if name == ENQUEUE_RETRIES.name}
    assert retries == {f"retry:{batch_id}:0"}


@pytest.mark.parametrize("is_deleted", [True, False])
def test_doubts_of_what_was_stopped_are_settled(world: World, is_deleted: bool) -> None:
    """By a chunk for their rows, unless one is at it; what the provider named is no doubt."""
    batch_id = world.batch(rows=5)
    change_message(world.database, batch_id, 2, latest_status=MessageStatus.SUCCESS.value)
    world.claim_all_but_the_sent(batch_id)
    with world.database.write() as connection:
        if is_deleted:
            connection.execute(campaigns.update().values(deleted_at=NOW))
        else:
            connection.execute(batches.update().values(status=BatchStatus.CANCELLED.value, updated_at=NOW))
    world.reconciler.reconcile()
    assert f"chunk:{batch_id}:3" not in jobs_of(world.database)
    world.set_jobs("SUCCESS")
    world.reconciler.reconcile()
    assert job_states(world.database)[f"chunk:{batch_id}:3"] == ("ENQUEUED", 0)
    world.set_jobs("SUCCESS")
    with world.database.write() as connection:
        connection.execute(attempts.update().values(external_id="SM1"))
    world.reconciler.reconcile()
    assert job_states(world.database)[f"chunk:{batch_id}:3"][0] == "SUCCESS"
