"""The job that makes a workbook: once, again where it was cut short, and an end where it cannot be made."""

import asyncio
import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.domain import NOW, add_campaign, enrol, new_upload

from pipeline.watched import WatchedProcess
from pipeline.workbook_job import Bookbinder, bind, make, workbook_key
from postern.errors import TransientError
from postern.model import Upload
from postern.settings import WorkerSettings
from storage.blobs import BlobMissingError
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.receiving import receive_upload
from storage.local import LocalBlobs

pytest_plugins = ["support.databases"]
CONTENT = b"recipient,language,name\n,english,Emily\n"


def process(timeout: float = 60) -> WatchedProcess:
    return WatchedProcess("pipeline.workbook", name="workbook", timeout=timeout, memory=1024)


@dataclass
class World:
    """A rejected upload, as far as the job looks at it."""

    binder: Bookbinder
    upload: Upload

    def workbook(self) -> bytes:
        with self.binder.blobs.open(workbook_key(self.upload)) as file:
            return file.read()

    def left(self) -> list[Path]:
        """What lies in the scratch folder."""
        return list(self.binder.settings.scratch_folder.iterdir())


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A ledger on SQLite, blobs in a folder."""
    database, jobs, blobs = Database(sqlite_url), Jobs(sqlite_url), LocalBlobs(tmp_path / "blobs")
    digest = hashlib.sha256(CONTENT).hexdigest()
    upload = new_upload(enrol(database, add_campaign(database)), size=len(CONTENT), sha256=digest, received_at=NOW)
    receive_upload(database, jobs, upload)
    (tmp_path / "data").write_bytes(CONTENT)
    blobs.put(upload.blob_key or "", tmp_path / "data")
    yield World(Bookbinder(settings=WorkerSettings(home=tmp_path), database=database, blobs=blobs), upload)
    jobs.close()
    database.dispose()


async def test_a_workbook_is_made_and_stored(world: World, tmp_path: Path) -> None:
    """Beside the report; nothing else is left."""
    await bind(world.binder, world.upload.id)
    (tmp_path / "made.xlsx").write_bytes(world.workbook())
    with zipfile.ZipFile(tmp_path / "made.xlsx") as package:
        assert b"recipient is empty" in package.read("xl/worksheets/sheet1.xml")
    assert workbook_key(world.upload) == f"validation-reports/{world.upload.campaign_id}/{world.upload.id}.xlsx"
    assert world.left() == []


async def test_a_workbook_that_is_there_is_not_made_again(world: World) -> None:
    """A job that runs again finds it, and needs the upload's bytes no more."""
    await bind(world.binder, world.upload.id)
    first = world.workbook()
    world.binder.blobs.delete(world.upload.blob_key or "")
    await bind(world.binder, world.upload.id)
    assert world.workbook() == first


async def test_a_workbook_that_cannot_be_made_is_an_empty_blob(world: World) -> None:
    """The bytes are gone, say; whoever has the link must not wait for ever."""
    world.binder.blobs.delete(world.upload.blob_key or "")
    await bind(world.binder, world.upload.id)
    assert world.workbook() == b""


async def test_a_process_that_is_killed_is_no_reason_to_wait(world: World) -> None:
    """For its time, say; the blob says that there is none."""
    await bind(replace(world.binder, start=lambda: process(timeout=1e-9)), world.upload.id)
    assert world.workbook() == b""


def test_a_worker_that_stops_leaves_it_to_the_next(world: World) -> None:
    """No workbook and no word that there is none: the job is done again, whole."""
    stopped = process()
    stopped.stop()
    with pytest.raises(TransientError, match="stopped"):
        make(world.binder, stopped, world.upload.id)
    with pytest.raises(BlobMissingError):
        world.workbook()
    assert world.left() == []
    asyncio.run(bind(world.binder, world.upload.id))
    assert world.workbook().startswith(b"PK")


async def test_a_job_that_is_cancelled_ends_its_process(world: World) -> None:
    """As at the end of a worker: nobody would wait for the answer."""
    started: list[WatchedProcess] = []

    def start() -> WatchedProcess:
        started.append(process())
        return started[-1]

    job = asyncio.create_task(bind(replace(world.binder, start=start), world.upload.id))
    await asyncio.sleep(0)  # up to its first wait
    assert started
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    with pytest.raises(TransientError, match="stopped"):
        await asyncio.to_thread(started[0].ask, {})
