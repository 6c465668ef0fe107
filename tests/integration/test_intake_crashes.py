"""Intake that crashes at any step, or finds something away: what was accepted gets into the ledger once."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa
from support.domain import CONTENT, count
from support.host import Host, host_on
from support.postgresql import Cluster

from pipeline.intake import take_in, watch_spool
from pipeline.look import Look
from postern.errors import TransientError
from postern.model import UploadStatus
from storage.blobs import Blobs, Content
from storage.engine import Jobs
from storage.ledger.uploads import get_upload
from storage.local import LocalBlobs
from storage.spool import Spool
from storage.spool_records import EventKind
from storage.tables import uploads

pytest_plugins = ["support.databases"]


@pytest.fixture
def host(sqlite_url: str, tmp_path: Path) -> Iterator[Host]:
    """A host with the embedded default."""
    with host_on(sqlite_url, tmp_path / "home") as host:
        yield host


class Crash(BaseException):
    """The process ends here."""


@dataclass
class CrashingBlobs(Blobs):
    """Stores the blob and ends, or ends before."""

    blobs: Blobs
    stores: bool

    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        if self.stores:
            self.blobs.put(key, source, content)
        raise Crash

    def open(self, key: str) -> BinaryIO:
        return self.blobs.open(key)

    def delete(self, key: str) -> None:
        self.blobs.delete(key)


@dataclass
class CrashingBoard:
    """Leaves the job and ends before the commit."""

    jobs: Jobs

    def enqueue(self, *arguments: Any, **options: Any) -> None:
        self.jobs.enqueue(*arguments, **options)
        raise Crash


class CrashingSpool(Spool):
    """Ends at a step, before or after it is done."""

    def __init__(self, root: Path, *, at: str, afterwards: bool) -> None:
        super().__init__(root)
        self._at, self._afterwards = at, afterwards

    def remember(self, *arguments: Any) -> None:
        self._step("remember", super().remember, *arguments)

    def finish(self, upload_id: str) -> None:
        self._step("finish", super().finish, upload_id)

    def _step(self, name: str, step: Callable[..., None], *arguments: Any) -> None:
        if name == self._at and not self._afterwards:
            raise Crash
        step(*arguments)
        if name == self._at:
            raise Crash


class HalfFinishingSpool(Spool):
    """Ends while it removes the folder."""

    def finish(self, upload_id: str) -> None:
        (self.accepted / upload_id / "upload.json").unlink()
        raise Crash


def crashing_parts(host: Host) -> dict[str, dict[str, Any]]:
    root = host.spool.root
    return {
        "before the blob": {"blobs": CrashingBlobs(host.blobs, stores=False)},
        "after the blob": {"blobs": CrashingBlobs(host.blobs, stores=True)},
        "before the commit": {"jobs": CrashingBoard(host.jobs)},
        "after the commit": {"spool": CrashingSpool(root, at="remember", afterwards=False)},
        "after it is remembered": {"spool": CrashingSpool(root, at="remember", afterwards=True)},
        "before it is removed": {"spool": CrashingSpool(root, at="finish", afterwards=False)},
        "after it is removed": {"spool": CrashingSpool(root, at="finish", afterwards=True)},
    }


STEPS = [
    "before the blob",
    "after the blob",
    "before the commit",
    "after the commit",
    "after it is remembered",
    "before it is removed",
    "after it is removed",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_is_harmless(host: Host, step: str) -> None:
    """However often it crashes there, the next look takes the upload in, once."""
    sidecar = host.accept()
    crashes = host.intake(**crashing_parts(host)[step])
    with pytest.raises(Crash):
        take_in(crashes)
    with contextlib.suppress(Crash):
        take_in(crashes)
    take_in(host.intake())
    host.assert_taken_in(sidecar)
    assert list(host.spool.quarantine.iterdir()) == []


def test_a_folder_removed_by_half_is_no_second_upload(host: Host) -> None:
    """The ledger has it; what is left of the folder goes out of the way."""
    sidecar = host.accept()
    with pytest.raises(Crash):
        take_in(host.intake(spool=HalfFinishingSpool(host.spool.root)))
    take_in(host.intake())
    host.assert_taken_in(sidecar)


def test_an_upload_waits_for_the_blob_store(host: Host) -> None:
    """It stays in the spool, and so does nobody else's."""
    sidecar = host.accept()
    host.settings.blob_folder.write_text("in the way")
    take_in(host.intake())
    assert (host.spool.waiting(), count(host.database, uploads)) == ([sidecar.upload_id], 0)
    host.settings.blob_folder.unlink()
    take_in(host.intake())
    host.assert_taken_in(sidecar)


class AwayBlobs(LocalBlobs):
    """A store that does not answer, or not for some uploads, and counts who asks."""

    def __init__(self, folder: Path, *, fails: Callable[[str], bool] = lambda _key: True) -> None:
        super().__init__(folder)
        self.asked: list[str] = []
        self._fails = fails

    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        self.asked.append(Path(key).stem)
        if self._fails(key):
            raise TransientError("The store is away.")
        super().put(key, source, content)


def test_a_look_ends_soon_while_the_store_is_away(host: Host) -> None:
    """Few uploads are tried in each look, in turn; events are heard all the same, and afterwards all is taken in."""
    sidecars = [host.accept(CONTENT + b"6591234567,english,%d\n" % number) for number in range(5)]
    event = host.tell(EventKind.REFUSED)
    waiting = host.spool.waiting()
    away, look = AwayBlobs(host.settings.blob_folder), Look()
    for _ in range(2):
        take_in(host.intake(blobs=away), look)
    assert away.asked == [*waiting, waiting[0]]
    assert host.spool.waiting() == waiting
    assert get_upload(host.database, event.event_id).status is UploadStatus.REFUSED
    take_in(host.intake(), look)
    assert host.spool.waiting() == []
    assert count(host.database, uploads) == len(sidecars) + 1


def test_uploads_that_meet_trouble_for_good_hold_up_nobody(host: Host) -> None:
    """However many they are: the next look goes on behind them."""
    bad = [host.accept() for _ in range(4)]
    good = host.accept(CONTENT + b"6597654321,english,Ann\n")
    names = {sidecar.upload_id for sidecar in bad}
    away, look = AwayBlobs(host.settings.blob_folder, fails=lambda key: Path(key).stem in names), Look()
    for _ in range(2):
        take_in(host.intake(blobs=away), look)
    assert set(host.spool.waiting()) == names
    assert get_upload(host.database, good.upload_id).status is UploadStatus.RECEIVED


def test_a_look_that_is_told_to_stop_ends_after_the_upload_under_way(host: Host) -> None:
    """The others are left for the next start."""
    for number in range(3):
        host.accept(CONTENT + b"6591234567,english,%d\n" % number)
    oldest, *others = host.spool.waiting()
    take_in(host.intake(), Look(lambda: count(host.database, uploads) == 1))
    assert host.spool.waiting() == others
    assert get_upload(host.database, oldest).status is UploadStatus.RECEIVED


async def test_intake_stops_while_the_store_is_away(host: Host) -> None:
    """The look under way ends, and the last one at the first upload that has to wait."""
    for _ in range(5):
        host.accept()
    waiting, stop = host.spool.waiting(), asyncio.Event()

    def fails(_key: str) -> bool:
        stop.set()  # a flag, which any thread may set while nobody waits for it
        return True

    away = AwayBlobs(host.settings.blob_folder, fails=fails)
    await asyncio.wait_for(watch_spool(host.intake(blobs=away), stop), 10)
    assert away.asked == [waiting[0], waiting[0]]
    assert host.spool.waiting() == waiting


def test_uploads_and_events_wait_for_the_database(postgresql: Cluster, postgresql_url: str, tmp_path: Path) -> None:
    """They stay in the spool as long as it is away, and are taken in when it is back."""
    name = sa.make_url(postgresql_url).database
    with host_on(postgresql_url, tmp_path / "home") as host:
        sidecar = host.accept()
        login = host.tell(EventKind.LOGIN)
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        postgresql.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
        for _ in range(2):
            take_in(host.intake())
        assert host.spool.waiting() == [sidecar.upload_id]
        assert [event.event_id for _path, event in host.spool.pending_events()] == [login.event_id]
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        take_in(host.intake())
        host.assert_taken_in(sidecar)
        assert list(host.spool.pending_events()) == []
