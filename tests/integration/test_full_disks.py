"""Disks that are full: the gate refuses and leaves nothing, intake and worker wait, and nothing is lost."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gate_fixtures import GOOD, make_home, running
from support.disks import Disks, fill
from support.domain import CONTENT, RECIPIENT, add_campaign, count, enrol, new_upload
from support.host import Host, host_on

from pipeline.intake import take_in
from pipeline.scratch import scratch, sweep_scratch
from pipeline.validator import Validator
from pipeline.workflow import Pipeline, process
from postern.errors import TransientError
from postern.links import LinkSigner
from postern.model import UploadStatus
from postern.settings import WorkerSettings
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import get_upload
from storage.local import LocalBlobs
from storage.spool_records import EventKind
from storage.tables import uploads

pytest_plugins = ["support.databases"]


@pytest.fixture
def host(sqlite_url: str, tmp_path: Path) -> Iterator[Host]:
    """A host with the embedded default."""
    with host_on(sqlite_url, tmp_path / "home") as host:
        yield host


@pytest.fixture
def disks() -> Iterator[Disks]:
    """Small disks."""
    with Disks() as disks:
        yield disks


# The gate


async def test_a_file_that_fills_the_disk_is_refused_and_leaves_nothing(tmp_path: Path, disks: Disks) -> None:
    """Told at the write; a smaller file afterwards is accepted."""
    home = make_home(tmp_path)
    disks.mount(home.settings.spool_folder, kib=512)
    async with running(home):
        outcome = await home.sftp(f"put {home.file('x.csv', GOOD * 20_000)}")
        assert outcome.status != 0
        assert "no room left on its disk" in outcome.output
        assert (home.accepted(), home.unfinished()) == ([], [])
        assert (await home.sftp(f"put {home.file('y.csv')}")).status == 0
    assert len(home.accepted()) == 1


async def test_a_record_that_does_not_fit_any_more_is_no_acceptance(tmp_path: Path, disks: Disks) -> None:
    """The bytes are there, their sidecar cannot be: the CLOSE fails, and nothing is left."""
    home = make_home(tmp_path)
    disk = disks.mount(home.settings.spool_folder, kib=512)
    async with running(home):
        async with home.connect() as connection, connection.start_sftp_client() as sftp:
            file = await sftp.open("x.csv", "wb")
            await file.write(GOOD)
            ballast = fill(disk)
            with pytest.raises(Exception, match="no room left on its disk"):
                await file.close()
        assert (home.accepted(), home.unfinished()) == ([], [])
        ballast.unlink()
        assert (await home.sftp(f"put {home.file('x.csv')}")).status == 0
    assert len(home.accepted()) == 1


@pytest.mark.parametrize("limit", [{"spool_max_files": 2}, {"spool_max_bytes": 2 * len(GOOD)}])
async def test_what_waits_for_intake_is_limited(tmp_path: Path, limit: dict[str, int]) -> None:
    """By files and by bytes, refused at OPEN; taken again once intake has been there."""
    home = make_home(tmp_path)
    async with running(home, **limit):
        for name in ("1.csv", "2.csv"):
            assert (await home.sftp(f"put {home.file(name)}")).status == 0
        await asyncio.sleep(1.1)  # what waits is counted once a second
        outcome = await home.sftp(f"put {home.file('3.csv')}")
        assert outcome.status != 0
        assert "2 files wait here to be processed" in outcome.output
        assert (len(home.accepted()), home.unfinished()) == (2, [])
        home.spool.finish(home.spool.waiting()[0])
        await asyncio.sleep(1.1)
        assert (await home.sftp(f"put {home.file('3.csv')}")).status == 0


# Intake


def test_uploads_wait_for_room_in_the_blob_store(host: Host, disks: Disks) -> None:
    """Both of them; no half blob, no row."""
    disk = disks.mount(host.settings.blob_folder, kib=64)
    ballast = fill(disk)
    sidecars = [host.accept(), host.accept()]
    take_in(host.intake())
    assert sorted(host.spool.waiting()) == sorted(sidecar.upload_id for sidecar in sidecars)
    assert count(host.database, uploads) == 0
    assert [path for path in disk.rglob("*") if path.is_file()] == [ballast]
    ballast.unlink()
    take_in(host.intake())
    assert host.spool.waiting() == []
    assert [host.stored(sidecar) for sidecar in sidecars] == [CONTENT, CONTENT]


def test_a_full_spool_does_not_stop_intake(host: Host, tmp_path: Path, disks: Disks) -> None:
    """It can do without the list of recent uploads for a while, and removing needs no room."""
    disk = disks.mount(tmp_path / "full", kib=64)
    host.spool.recent.rmdir()
    host.spool.recent.symlink_to(disk)
    sidecar, event = host.accept(), host.tell(EventKind.REFUSED)
    ballast = fill(disk)
    take_in(host.intake())
    assert get_upload(host.database, sidecar.upload_id).status is UploadStatus.RECEIVED
    assert get_upload(host.database, event.event_id).status is UploadStatus.REFUSED
    ballast.unlink()
    take_in(host.intake())
    assert host.spool.waiting() == []


# The worker


@pytest.mark.parametrize(("rows", "bad", "kib"), [(20_000, False, 1), (20_000, False, 700), (20_000, True, 700)])
def test_an_upload_waits_for_room_in_scratch(
    database: Database, jobs: Jobs, tmp_path: Path, disks: Disks, *, rows: int, bad: bool, kib: int
) -> None:
    """Where its copy does not fit, where its messages do not, where its report does not: it is no fault of the file."""
    settings = WorkerSettings(home=tmp_path / "work", database_url=database.url)
    validator = Validator(timeout=60, memory=1024)
    pipeline = Pipeline(
        settings=settings,
        database=database,
        blobs=LocalBlobs(settings.blob_folder),
        jobs=jobs,
        validator=validator,
        links=LinkSigner(b"secret" * 8),
        now=lambda: new_upload(key).received_at,
    )
    key = enrol(database, add_campaign(database))
    content = ("recipient,language,name\n" + f"{RECIPIENT},english,{' ' if bad else ''}Emily\n" * rows).encode()
    upload = new_upload(key, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    receive_upload(database, jobs, upload)
    source = tmp_path / "source"
    source.write_bytes(content)
    pipeline.blobs.put(upload.blob_key or "", source)
    disks.mount(settings.scratch_folder, kib=kib)
    with pytest.raises(TransientError):
        process(pipeline, upload.id)
    assert get_upload(database, upload.id).status is UploadStatus.VALIDATING
    assert list(settings.scratch_folder.iterdir()) == []
    disks.mount(settings.scratch_folder, kib=64_000)
    assert process(pipeline, upload.id) == ("rejected" if bad else "accepted")
    validator.close()


def test_a_worker_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    """And not what another one on this host is at."""
    settings = WorkerSettings(home=tmp_path)
    with scratch(settings) as used:
        dead = settings.scratch_folder / "dead"
        dead.mkdir()
        (dead / "data.csv").write_text("x")
        assert sweep_scratch(settings) == 1
        assert list(settings.scratch_folder.iterdir()) == [used]
    assert sweep_scratch(settings) == 0
