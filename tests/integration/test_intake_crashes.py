"""Intake that crashes at any step, or finds something away: what was accepted gets into the ledger once."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa
from support.domain import count
from support.host import Host, host_on
from support.postgresql import Cluster

from pipeline.intake import take_in
from storage.blobs import Blobs, Content
from storage.engine import Jobs
from storage.spool import EventKind, Spool
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
