"""Intake on a real spool: what the gate accepted gets into the ledger once, and what it did not write never does."""

import ast
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.domain import (
    CONTENT,
    NOW,
    SECOND,
    add_campaign,
    change,
    count,
    enrol,
    jobs_of,
    new_key,
    notice_id,
    notices_of,
)
from support.host import Host, host_on
from support.waiting import until_async

from pipeline.intake import take_in, watch_spool
from postern.model import Environment, IdKind, NoticeKind, Upload, UploadStatus, new_id
from storage.jobs import PROCESS_UPLOAD, SEND_NOTICE
from storage.ledger.enrolments import list_keys, revoke_key
from storage.ledger.notices import get_notice
from storage.ledger.uploads import get_upload, list_uploads
from storage.spool_records import EventKind, Sidecar
from storage.tables import campaigns, uploads

pytest_plugins = ["support.databases"]


@pytest.fixture
def host(sqlite_url: str, tmp_path: Path) -> Iterator[Host]:
    """A host with the embedded default."""
    with host_on(sqlite_url, tmp_path / "home") as host:
        yield host


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


def test_the_same_name_twice_is_two_uploads(host: Host) -> None:
    """Each put has its own id."""
    first, second = host.accept(), host.accept(CONTENT + b"6597654321,english,Ann\n")
    take_in(host.intake())
    assert set(jobs_of(host.database)) == {first.upload_id, second.upload_id}


def set_aside(host: Host) -> list[str]:
    """The names of what is in quarantine, as the reason beside each gives them."""
    names = []
    for place in host.spool.quarantine.iterdir():
        name, reason = (place / "reason").read_text().splitlines()
        assert os.path.lexists(place / "found")
        assert len(reason) > 10
        names.append(ast.literal_eval(name))
    return sorted(names)


def test_the_same_bytes_again_are_held(host: Host) -> None:
    """The notice tells which upload they repeat, and until when its link works; the gate's session sees both."""
    first = host.accept()
    take_in(host.intake())
    host.clock.advance(60)
    second = host.accept()
    take_in(host.intake())
    assert host.spool.waiting() == []
    held = get_upload(host.database, second.upload_id)
    assert (held.status, held.repeat_of, held.held_at) == (UploadStatus.HELD, first.upload_id, host.clock.now)
    assert set(jobs_of(host.database)) == {first.upload_id, notice_id(second.upload_id, NoticeKind.HELD)}
    context = get_notice(host.database, notice_id(second.upload_id, NoticeKind.HELD)).context
    assert (context["sha256"], context["verdict"], context["answers"]) == (second.sha256, None, None)
    assert context["hold"] == {
        "isCutOff": False,
        "writeBlock": 0,
        "lines": None,
        "repeatOf": {
            "uploadId": first.upload_id,
            "fileName": "people.csv",
            "receivedAt": "2026-11-20T16:30:00.000+08:00",
            "status": "received",
            "rows": None,
        },
        "linkExpiresAt": "2026-11-27T16:31:00.000+08:00",
    }


@pytest.mark.parametrize("environment", [Environment.TEST, Environment.LOADTEST])
def test_outside_production_the_same_bytes_are_two_uploads(host: Host, environment: Environment) -> None:
    """Whoever tries something out tries it twice."""
    host.settings = host.settings.model_copy(update={"environment": environment})
    for _ in range(2):
        host.accept()
    take_in(host.intake())
    assert [upload.status for upload in list_uploads(host.database)] == [UploadStatus.RECEIVED] * 2


def test_a_file_that_the_gate_found_cut_off_is_held(host: Host) -> None:
    """Its lines are counted, for the owner to compare."""
    sidecar = host.accept(CONTENT * 3 + b"65912", is_cut_off=True, write_block=32_768)
    take_in(host.intake())
    held = get_upload(host.database, sidecar.upload_id)
    assert (held.status, held.is_cut_off, held.repeat_of) == (UploadStatus.HELD, True, None)
    hold = get_notice(host.database, notice_id(sidecar.upload_id, NoticeKind.HELD)).context["hold"]
    assert (hold["isCutOff"], hold["lines"], hold["writeBlock"], hold["repeatOf"]) == (True, 7, 32_768, None)
    assert host.stored(sidecar) == CONTENT * 3 + b"65912"


def test_an_upload_of_a_campaign_deleted_since_is_left_to_the_worker(host: Host) -> None:
    """It was accepted while the campaign was there; the worker drops it with a mail. Nobody is asked to decide."""
    sidecar = host.accept(is_cut_off=True)
    change(host.database, campaigns, host.key.campaign_id, deleted_at=NOW)
    take_in(host.intake())
    assert get_upload(host.database, sidecar.upload_id).status is UploadStatus.RECEIVED


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


def pipe_as_data(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "data").unlink()
    os.mkfifo(host.folder(sidecar) / "data")
    return sidecar


def pipe_as_sidecar(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "upload.json").unlink()
    os.mkfifo(host.folder(sidecar) / "upload.json")
    return sidecar


def second_name(host: Host) -> Sidecar:
    sidecar = host.accept()
    os.link(host.folder(sidecar) / "data", host.home / "the same file")
    return sidecar


def more_than_data(host: Host) -> Sidecar:
    sidecar = host.accept()
    (host.folder(sidecar) / "deep" / "er").mkdir(parents=True)
    return sidecar


def grow(host: Host) -> Sidecar:
    sidecar = host.accept()
    os.truncate(host.folder(sidecar) / "data", 1 << 40)
    return sidecar


def claim_to_be_huge(host: Host) -> Sidecar:
    sidecar = host.accept(size=1 << 40)
    os.truncate(host.folder(sidecar) / "data", 1 << 40)
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
    pipe_as_data,
    pipe_as_sidecar,
    second_name,
    more_than_data,
    grow,
    claim_to_be_huge,
    spoil_sidecar,
    leave_out_sidecar,
]


OTHER = CONTENT.replace(b"6591234567", b"6597654321")


def place_again(host: Host, sidecar: Sidecar, content: bytes, **changes: Any) -> None:
    """What a gate that was taken over can do: another folder under the id of an upload that was handed over."""
    fields = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), **changes}
    told = dataclasses.replace(sidecar, **fields)
    host.folder(sidecar).mkdir()
    (host.folder(sidecar) / "data").write_bytes(content)
    (host.folder(sidecar) / "upload.json").write_text(json.dumps(dataclasses.asdict(told)))


def assert_unchanged(host: Host, before: Upload) -> None:
    """The ledger says of the upload what it said before, and there is no job, mail or upload more."""
    assert get_upload(host.database, before.id) == before
    assert count(host.database, uploads) == 1
    assert len(jobs_of(host.database)) == 1


@pytest.mark.parametrize("content", [OTHER, CONTENT + OTHER], ids=["as long", "longer"])
@pytest.mark.parametrize("status", [UploadStatus.RECEIVED, UploadStatus.HELD, UploadStatus.FAILED])
def test_a_recorded_upload_keeps_its_bytes(host: Host, status: UploadStatus, content: bytes) -> None:
    """Other bytes under its id are set aside: nobody releases or retries what was never shown to its owner."""
    sidecar = host.accept(is_cut_off=status is UploadStatus.HELD)
    take_in(host.intake())
    if status is UploadStatus.FAILED:
        change(host.database, uploads, sidecar.upload_id, status=status.value)
    before = get_upload(host.database, sidecar.upload_id)
    assert before.status is status
    place_again(host, sidecar, content)
    with capture_logs() as logs:
        take_in(host.intake())
    assert set_aside(host) == [sidecar.upload_id]
    assert [line["log_level"] for line in logs if line["event"] == "spool.quarantined"] == ["critical"]
    assert host.stored(sidecar) == CONTENT
    assert_unchanged(host, before)


def test_a_recorded_upload_keeps_its_campaign(host: Host) -> None:
    """The same bytes under its id for another campaign are set aside."""
    sidecar = host.accept()
    take_in(host.intake())
    before = get_upload(host.database, sidecar.upload_id)
    other = enrol(host.database, add_campaign(host.database))
    moved = {"campaign_id": other.campaign_id, "enrolment_id": other.enrolment_id, "key_fingerprint": other.fingerprint}
    place_again(host, sidecar, CONTENT, **moved)
    take_in(host.intake())
    assert set_aside(host) == [sidecar.upload_id]
    assert host.stored(dataclasses.replace(sidecar, campaign_id=other.campaign_id)) is None
    assert_unchanged(host, before)


def test_a_refused_file_is_no_upload(host: Host) -> None:
    """An accepted file under the id of a refusal is set aside; the refusal had no bytes."""
    event = host.tell(EventKind.REFUSED)
    take_in(host.intake())
    before = get_upload(host.database, event.event_id)
    sidecar = host.accept()
    host.spool.finish(sidecar.upload_id)
    forged = dataclasses.replace(sidecar, upload_id=event.event_id)
    place_again(host, forged, CONTENT)
    take_in(host.intake())
    assert set_aside(host) == [event.event_id]
    assert host.stored(forged) is None
    assert_unchanged(host, before)


@pytest.mark.parametrize("is_expected", [True, False])
def test_bytes_that_are_gone_are_stored_again_only_if_they_are_expected(host: Host, *, is_expected: bool) -> None:
    """What retention has removed stays removed."""
    sidecar = host.accept()
    take_in(host.intake())
    host.blobs.delete(f"uploads/{sidecar.campaign_id}/{sidecar.upload_id}.csv")
    if not is_expected:
        change(host.database, uploads, sidecar.upload_id, blob_key=None)
    before = get_upload(host.database, sidecar.upload_id)
    place_again(host, sidecar, CONTENT)
    take_in(host.intake())
    assert host.stored(sidecar) == (CONTENT if is_expected else None)
    assert (host.spool.waiting(), set_aside(host)) == ([], [])
    assert_unchanged(host, before)


@pytest.mark.parametrize("forge", HOSTILE)
def test_what_the_gate_did_not_write_is_set_aside(host: Host, forge: Callable[[Host], Sidecar]) -> None:
    """No row, no blob, no job; a person finds it in quarantine, and the next upload is taken in."""
    forged = forge(host)
    good = host.accept()
    take_in(host.intake())
    assert set_aside(host) == [forged.upload_id]
    assert host.stored(forged) is None
    host.assert_taken_in(good)


def test_whatever_lies_in_the_spool_is_set_aside(host: Host) -> None:
    """Folders, links, pipes, devices, under any name, among uploads and events; unopened, and the others go on."""
    accepted, events = host.spool.accepted, host.spool.events
    (accepted / "..data").mkdir()
    (accepted / "upload_x").symlink_to("/etc")
    (accepted / "two\nlines").write_text("x")
    (accepted / os.fsdecode(b"\xff\xfe")).write_text("x")
    (accepted / ("a" * 255)).mkdir()
    deep = accepted / "deep"
    for _ in range(500):
        deep = deep / "deep"
    deep.mkdir(parents=True)
    os.mkfifo(accepted / "pipe")
    os.mkfifo(events / "pipe.json")
    (events / "folder.json").mkdir()
    (events / "link.json").symlink_to("/etc/passwd")
    (events / "no event").write_text("{}")
    (events / "huge.json").write_bytes(b"[" * 200_000)
    with contextlib.suppress(PermissionError):  # root alone may make a device, and not in every container
        os.mknod(accepted / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    expected = sorted(path.name for folder in (accepted, events) for path in folder.iterdir())
    good = host.accept()
    with capture_logs() as logs:
        take_in(host.intake())
    host.assert_taken_in(good)
    assert set_aside(host) == expected
    assert [line["log_level"] for line in logs if line["event"] == "spool.quarantined"] == ["critical"] * len(expected)
    assert (list(accepted.iterdir()), list(events.iterdir())) == ([], [])


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
    assert set_aside(host) == ["0-broken.json"]


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


def test_old_uploads_are_forgotten(host: Host) -> None:
    """A session sees the last day; what is older is removed from disk as well."""
    sidecar = host.accept()
    take_in(host.intake())
    (kept,) = host.spool.recent.glob("*/*.json")
    host.clock.now = host.clock.now.fromtimestamp(kept.stat().st_mtime, tz=NOW.tzinfo) + timedelta(hours=25)
    take_in(host.intake())
    assert not kept.exists()
    assert host.spool.recent_uploads(sidecar.campaign_id, host.clock.now) == []
