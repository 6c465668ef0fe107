"""Intake on a real spool: what the gate accepted gets into the ledger once, and what it did not write never does."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import asyncssh
import pytest
import sqlalchemy as sa
from support.domain import (
    CONTENT,
    NOW,
    OWNER,
    SECOND,
    SimulatedClock,
    add_campaign,
    change,
    count,
    enrol,
    jobs_of,
    new_key,
    notices_of,
)
from support.postgresql import Cluster
from support.waiting import until_async

from keys import enrolment
from keys.keyring import read_keyring
from pipeline.intake import Intake, keep_keyring, take_in, watch_spool
from postern.model import IdKind, KeyStatus, NoticeKind, UploadStatus, new_id
from postern.settings import IntakeSettings
from storage.blobs import BlobMissingError, Blobs, LocalBlobs
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD, SEND_NOTICE
from storage.ledger.enrolments import EnrolledKey, list_keys, revoke_key
from storage.ledger.uploads import get_upload, list_uploads
from storage.spool import Event, EventKind, Sidecar, Spool
from storage.tables import campaigns, uploads

pytest_plugins = ["support.databases"]

RECEIVED = NOW.isoformat(timespec="milliseconds")


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Host:
    """A gate host with one enrolled key, and its intake."""

    home: Path
    database: Database
    jobs: Jobs
    clock: SimulatedClock = dataclasses.field(default_factory=SimulatedClock)

    def __post_init__(self) -> None:
        self.settings = IntakeSettings(home=self.home)
        self.spool = Spool(self.settings.spool_folder)
        self.spool.prepare()
        self.blobs = LocalBlobs(self.settings.blob_folder)
        self.key = enrol(self.database, add_campaign(self.database))

    def intake(self, **changes: Any) -> Intake:
        parts = {
            "settings": self.settings,
            "database": self.database,
            "blobs": self.blobs,
            "jobs": self.jobs,
            "spool": self.spool,
            "now": self.clock,
        }
        return Intake(**{**parts, **changes})

    def accept(self, content: bytes = CONTENT, key: EnrolledKey | None = None, **changes: Any) -> Sidecar:
        """What the gate does on an orderly close, with a sidecar that may lie."""
        key = key or self.key
        upload_id = new_id(IdKind.UPLOAD)
        self.spool.begin(upload_id).write_bytes(content)
        fields = {
            "upload_id": upload_id,
            "campaign_id": key.campaign_id,
            "enrolment_id": key.enrolment_id,
            "file_name": "people.csv",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "key_fingerprint": key.fingerprint,
            "peer": "192.0.2.1",
            "received_at": RECEIVED,
        }
        sidecar = Sidecar(**fields)
        self.spool.accept(sidecar)
        told = dataclasses.replace(sidecar, **changes)
        (self.folder(sidecar) / "upload.json").write_text(json.dumps(dataclasses.asdict(told)))
        return sidecar

    def tell(self, kind: EventKind, key: EnrolledKey | None = None, **changes: Any) -> Event:
        """What else the gate has to say."""
        key = key or self.key
        fields = {
            "kind": kind,
            "event_id": new_id(IdKind.UPLOAD),
            "campaign_id": key.campaign_id,
            "enrolment_id": key.enrolment_id,
            "key_fingerprint": key.fingerprint,
            "peer": "192.0.2.1",
            "at": RECEIVED,
            "file_name": "people.txt",
            "size": 7,
            "reason": "The name does not end in .csv.",
        }
        event = Event(**{**fields, **changes})
        self.spool.tell(event)
        return event

    def folder(self, sidecar: Sidecar) -> Path:
        return self.spool.accepted / sidecar.upload_id

    def stored(self, sidecar: Sidecar) -> bytes | None:
        """The bytes in the blob store, if they got there."""
        try:
            with self.blobs.open(f"uploads/{sidecar.campaign_id}/{sidecar.upload_id}.csv") as file:
                return file.read()
        except BlobMissingError:
            return None

    def assert_taken_in(self, sidecar: Sidecar) -> None:
        """Once: bytes, row and job are there, and the spool is empty."""
        (upload,) = list_uploads(self.database)
        assert (upload.id, upload.status, upload.sha256) == (sidecar.upload_id, UploadStatus.RECEIVED, sidecar.sha256)
        assert self.stored(sidecar) == CONTENT
        assert jobs_of(self.database) == {sidecar.upload_id: PROCESS_UPLOAD.name}
        assert self.spool.waiting() == []
        (recent,) = self.spool.recent_uploads(sidecar.campaign_id, self.clock.now)
        assert (recent.file_name, recent.size) == ("people.csv", len(CONTENT))


@contextlib.contextmanager
def host_on(url: str, home: Path) -> Iterator[Host]:
    database, jobs = Database(url), Jobs(url)
    yield Host(home, database, jobs)
    jobs.close()
    database.dispose()


@pytest.fixture
def host(sqlite_url: str, tmp_path: Path) -> Iterator[Host]:
    """A host with the embedded default."""
    with host_on(sqlite_url, tmp_path / "home") as host:
        yield host


# Uploads


def test_an_accepted_upload_is_taken_in(host: Host) -> None:
    """All that the gate knew is in the ledger."""
    sidecar = host.accept(file_name="续签 1.csv")
    take_in(host.intake())
    upload = get_upload(host.database, sidecar.upload_id)
    assert (upload.file_name, upload.size, upload.sha256) == ("续签 1.csv", len(CONTENT), sidecar.sha256)
    assert (upload.campaign_id, upload.enrolment_id) == (host.key.campaign_id, host.key.enrolment_id)
    assert (upload.peer, upload.key_fingerprint, upload.received_at) == ("192.0.2.1", host.key.fingerprint, NOW)
    assert host.stored(sidecar) == CONTENT
    assert jobs_of(host.database) == {sidecar.upload_id: PROCESS_UPLOAD.name}
    assert list(host.spool.accepted.iterdir()) == []


def test_an_upload_by_a_key_revoked_since_is_taken_in(host: Host) -> None:
    """It was accepted while the key was good."""
    sidecar = host.accept()
    revoke_key(host.database, host.key.id, reason="lost", actor="operator", now=NOW)
    take_in(host.intake())
    host.assert_taken_in(sidecar)


def test_the_same_file_twice_is_two_uploads(host: Host) -> None:
    """Each put has its own id."""
    first, second = host.accept(), host.accept()
    take_in(host.intake())
    assert set(jobs_of(host.database)) == {first.upload_id, second.upload_id}


def forge_hash(host: Host) -> Sidecar:
    return host.accept(sha256="0" * 64)


def forge_size(host: Host) -> Sidecar:
    return host.accept(size=len(CONTENT) + 1)


def change_bytes(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "data").write_bytes(CONTENT.replace(b"6591234567", b"6597654321"))
    return sidecar


def forge_campaign(host: Host) -> Sidecar:
    other = enrol(host.database, add_campaign(host.database))
    return host.accept(campaign_id=other.campaign_id)


def forge_enrolment(host: Host) -> Sidecar:
    other = enrol(host.database, add_campaign(host.database))
    return host.accept(campaign_id=other.campaign_id, enrolment_id=other.enrolment_id)


def forge_key(host: Host) -> Sidecar:
    return host.accept(key_fingerprint=new_key().fingerprint)


def invent_campaign(host: Host) -> Sidecar:
    return host.accept(campaign_id=new_id(IdKind.CAMPAIGN))


def climb_out(host: Host) -> Sidecar:
    return host.accept(campaign_id="../../etc")


def forge_id(host: Host) -> Sidecar:
    return host.accept(upload_id=new_id(IdKind.UPLOAD))


def link_data(host: Host) -> Sidecar:
    sidecar = host.accept()
    data = host.folder(sidecar) / "data"
    secret = host.home / "secret"
    secret.write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to(secret)
    return sidecar


def link_folder(host: Host) -> Sidecar:
    sidecar = host.accept()
    elsewhere = host.home / "elsewhere"
    host.folder(sidecar).rename(elsewhere)
    host.folder(sidecar).symlink_to(elsewhere)
    return sidecar


def leave_out_data(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "data").unlink()
    return sidecar


def spoil_sidecar(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "upload.json").write_text("[" * 100_000)
    return sidecar


def leave_out_sidecar(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "upload.json").unlink()
    return sidecar


HOSTILE = [
    forge_hash,
    forge_size,
    change_bytes,
    forge_campaign,
    forge_enrolment,
    forge_key,
    invent_campaign,
    climb_out,
    forge_id,
    link_data,
    link_folder,
    leave_out_data,
    spoil_sidecar,
    leave_out_sidecar,
]


@pytest.mark.parametrize("forge", HOSTILE)
def test_what_the_gate_did_not_write_is_set_aside(host: Host, forge: Callable[[Host], Sidecar]) -> None:
    """No row, no blob, no job; a person finds it in quarantine, and the next upload is taken in."""
    forged = forge(host)
    good = host.accept()
    take_in(host.intake())
    assert [path.name.startswith(forged.upload_id) for path in host.spool.quarantine.iterdir()] == [True]
    assert host.stored(forged) is None
    host.assert_taken_in(good)


def test_names_that_are_no_ids_are_left_alone(host: Host) -> None:
    """Whatever else lies in the spool is not looked into."""
    (host.spool.accepted / "..data").mkdir()
    (host.spool.accepted / "upload_x").symlink_to("/etc")
    good = host.accept()
    take_in(host.intake())
    host.assert_taken_in(good)
    assert len(list(host.spool.accepted.iterdir())) == 2


def test_what_cannot_be_stored_holds_up_nobody(postgresql_url: str, tmp_path: Path) -> None:
    """It stays where it is, for a person to look at, and the others are taken in."""
    with host_on(postgresql_url, tmp_path / "home") as host:
        odd = host.accept(peer="x" * 1000)
        event = host.tell(EventKind.REFUSED, peer="x" * 1000)
        good = host.accept()
        later = host.tell(EventKind.REFUSED)
        take_in(host.intake())
        assert {upload.id for upload in list_uploads(host.database)} == {good.upload_id, later.event_id}
        assert host.spool.waiting() == [odd.upload_id]
        assert [waiting.event_id for _path, waiting in host.spool.pending_events()] == [event.event_id]


# Crashes and outages


@dataclass
class CrashingBlobs(Blobs):
    """Stores the blob and ends, or ends before."""

    blobs: Blobs
    stores: bool

    def put(self, key: str, source: Path) -> None:
        if self.stores:
            self.blobs.put(key, source)
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


# Events


def test_a_refusal_becomes_an_upload_and_a_mail(host: Host) -> None:
    """With the gate's reason; repeated, because of a crash, it is one."""
    event = host.tell(EventKind.REFUSED)
    (path,) = host.spool.events.iterdir()
    kept = path.read_bytes()
    take_in(host.intake())
    assert not path.exists()
    path.write_bytes(kept)
    take_in(host.intake())
    (upload,) = list_uploads(host.database)
    assert (upload.id, upload.status, upload.file_name) == (event.event_id, UploadStatus.REFUSED, "people.txt")
    assert (upload.reason, upload.size, upload.finished_at) == (event.reason, 7, NOW)
    assert notices_of(host.database, upload.id) == [NoticeKind.REFUSED]
    assert list(jobs_of(host.database).values()) == [SEND_NOTICE.name]


def test_many_refusals_are_one_mail(host: Host) -> None:
    """A job that tries every minute is told once an hour."""
    for minute in range(0, 120, 30):
        host.tell(EventKind.REFUSED, at=(NOW + timedelta(minutes=minute)).isoformat())
    take_in(host.intake())
    assert count(host.database, uploads) == 4
    assert len(jobs_of(host.database)) == 2


def test_a_login_is_the_last_use_of_its_key(host: Host) -> None:
    """And of no other; an older one that comes later changes nothing."""
    other = enrol(host.database, add_campaign(host.database))
    host.tell(EventKind.LOGIN, at=(NOW + SECOND).isoformat())
    take_in(host.intake())
    host.tell(EventKind.LOGIN)
    take_in(host.intake())
    assert [key.last_used_at for key in list_keys(host.database)] == [
        NOW + SECOND if key.id == host.key.id else None for key in list_keys(host.database)
    ]
    assert len(list_keys(host.database, key_id=other.id)) == 1
    assert count(host.database, uploads) == 0


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("forged", ["campaign_id", "enrolment_id", "key_fingerprint"])
def test_an_event_of_nobody_changes_nothing(host: Host, kind: EventKind, forged: str) -> None:
    """Campaign, enrolment and key have to belong together; nobody is mailed on a forger's word."""
    other = enrol(host.database, add_campaign(host.database))
    host.tell(kind, **{forged: getattr(other, "fingerprint" if forged == "key_fingerprint" else forged)})
    take_in(host.intake())
    assert (count(host.database, uploads), jobs_of(host.database)) == (0, {})
    assert [key.last_used_at for key in list_keys(host.database)] == [None, None]
    assert list(host.spool.events.iterdir()) == []


def test_a_refusal_of_a_deleted_campaign_is_nobodys(host: Host) -> None:
    """There is nobody to tell any more."""
    host.tell(EventKind.REFUSED)
    change(host.database, campaigns, host.key.campaign_id, deleted_at=NOW)
    take_in(host.intake())
    assert (count(host.database, uploads), list(host.spool.events.iterdir())) == (0, [])


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"kind": "refused"}', "[" * 50_000, '{"kind": 1, "at": 2}']
)
def test_a_broken_event_is_set_aside(host: Host, content: str) -> None:
    """And the one after it is heard."""
    (host.spool.events / "0-broken.json").write_text(content)
    event = host.tell(EventKind.REFUSED)
    take_in(host.intake())
    assert [upload.id for upload in list_uploads(host.database)] == [event.event_id]
    assert [path.name.startswith("0-broken.json") for path in host.spool.quarantine.iterdir()] == [True]


# Watching


async def test_what_comes_later_is_taken_in(host: Host) -> None:
    """What was there at the start and what the gate hands over meanwhile, until told to stop."""
    first, stop = host.accept(), asyncio.Event()
    watching = asyncio.create_task(watch_spool(host.intake(), stop))
    await until_async(lambda: host.stored(first), "the first upload")
    host.accept()
    await until_async(lambda: count(host.database, uploads) == 2, "the second upload")
    host.tell(EventKind.REFUSED)
    await until_async(lambda: count(host.database, uploads) == 3, "the refusal")
    stop.set()
    await asyncio.wait_for(watching, 10)


# The keyring


@pytest.fixture
async def keyring(host: Host) -> Any:
    """What the gate reads, kept true until the end of the test: the fingerprints of a campaign."""
    path = host.settings.gate_folder / "keyring.json"
    stop = asyncio.Event()
    keeping = asyncio.create_task(keep_keyring(host.intake(), stop))
    await until_async(path.exists, "the keyring")
    yield lambda campaign_id: [entry.fingerprint for entry in read_keyring(path).campaigns.get(campaign_id, ())]
    stop.set()
    await asyncio.wait_for(keeping, 10)


def new_public_key() -> bytes:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key()


Fingerprints = Callable[[str], list[str]]


async def test_an_enrolled_key_gets_into_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """With all that the gate needs, beside those that are there."""
    expiry = NOW + timedelta(days=1)
    (key,) = enrolment.enrol(
        host.database,
        campaign_id=host.key.campaign_id,
        key_texts=[new_public_key()],
        email=OWNER,
        sources=["192.0.2.7"],
        expires_at=expiry,
        actor="operator",
        now=NOW,
    )
    await until_async(lambda: key.fingerprint in keyring(key.campaign_id), "the key")
    assert set(keyring(key.campaign_id)) == {host.key.fingerprint, key.fingerprint}
    entries = read_keyring(host.settings.gate_folder / "keyring.json").campaigns[key.campaign_id]
    (entry,) = [entry for entry in entries if entry.fingerprint == key.fingerprint]
    assert (entry.public_key, entry.enrolment_id) == (key.public_key, key.enrolment_id)
    assert (entry.sources, entry.expires_at) == (["192.0.2.7/32"], expiry.isoformat())


async def test_a_revoked_key_leaves_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """Within a moment."""
    assert keyring(host.key.campaign_id) == [host.key.fingerprint]
    revoke_key(host.database, host.key.id, reason="lost", actor="operator", now=NOW)
    await until_async(lambda: keyring(host.key.campaign_id) == [], "the key to go", patience=5)


async def test_an_expired_key_leaves_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """When its time has come, without anybody doing anything; the ledger says so."""
    key = enrol(host.database, add_campaign(host.database), expires_at=NOW + SECOND)
    await until_async(lambda: keyring(key.campaign_id) == [key.fingerprint], "the key")
    host.clock.advance(1)
    await until_async(lambda: keyring(key.campaign_id) == [], "the key to go", patience=5)
    assert list_keys(host.database, key_id=key.id)[0].status is KeyStatus.EXPIRED
    assert keyring(host.key.campaign_id) == [host.key.fingerprint]


async def test_the_keyring_stays_while_the_database_is_away(
    postgresql: Cluster, postgresql_url: str, tmp_path: Path
) -> None:
    """Logins go on by what is known, and changes are made up for."""
    name = sa.make_url(postgresql_url).database
    with host_on(postgresql_url, tmp_path / "home") as host:
        path = host.settings.gate_folder / "keyring.json"
        stop = asyncio.Event()
        keeping = asyncio.create_task(keep_keyring(host.intake(), stop))
        await until_async(path.exists, "the keyring")
        before = path.read_bytes()
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        postgresql.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
        done, _pending = await asyncio.wait([keeping], timeout=1.2)
        assert (done, path.read_bytes()) == (set(), before)
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        key = enrol(host.database, add_campaign(host.database))
        await until_async(lambda: key.campaign_id in read_keyring(path).campaigns, "the new key")
        stop.set()
        await asyncio.wait_for(keeping, 10)


def test_old_uploads_are_forgotten(host: Host) -> None:
    """A session sees the last day; what is older is removed from disk as well."""
    sidecar = host.accept()
    take_in(host.intake())
    (kept,) = host.spool.recent.glob("*/*.json")
    host.clock.now = host.clock.now.fromtimestamp(kept.stat().st_mtime, tz=NOW.tzinfo) + timedelta(hours=25)
    take_in(host.intake())
    assert not kept.exists()
    assert host.spool.recent_uploads(sidecar.campaign_id, host.clock.now) == []
