"""The spool: acceptance in its order, and nothing hostile in it that stops intake or leads it astray."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from postern.model import IdKind, new_id
from storage.spool import Spool, sync_folder
from storage.spool_records import Event, EventKind, RecentUpload, Sidecar, SpoolError

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
CAMPAIGN = new_id(IdKind.CAMPAIGN)
CONTENT = b"recipient,language\n6591234567,english\n"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def sidecar_for(upload_id: str, **changes: Any) -> Sidecar:
    sidecar = Sidecar(
        upload_id=upload_id,
        campaign_id=CAMPAIGN,
        enrolment_id=new_id(IdKind.ENROLMENT),
        file_name="péople 人.csv",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        key_fingerprint="SHA256:x",
        peer="192.0.2.1",
        received_at=NOW.isoformat(),
    )
    return replace(sidecar, **changes)


def event(**changes: Any) -> Event:
    told = Event(
        kind=EventKind.REFUSED,
        event_id=new_id(IdKind.UPLOAD),
        campaign_id=CAMPAIGN,
        enrolment_id=new_id(IdKind.ENROLMENT),
        key_fingerprint="SHA256:x",
        peer="192.0.2.1",
        at=NOW.isoformat(),
        file_name="people.txt",
        size=12,
        reason="not a .csv file",
    )
    return replace(told, **changes)


def begun(spool: Spool) -> str:
    """An upload whose bytes have been written."""
    upload_id = new_id(IdKind.UPLOAD)
    spool.begin(upload_id).write_bytes(CONTENT)
    return upload_id


def accepted(spool: Spool, **changes: Any) -> str:
    """An upload that was accepted, with this in its sidecar."""
    upload_id = begun(spool)
    spool.accept(sidecar_for(upload_id, **changes))
    return upload_id


def forge(spool: Spool, content: str | bytes) -> str:
    """An accepted upload whose sidecar somebody else wrote."""
    upload_id = accepted(spool)
    path = spool.accepted / upload_id / "upload.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return upload_id


def forge_event(spool: Spool, content: str | bytes, name: str = "a.json") -> Path:
    path = spool.events / name
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return path


def calls_of(function: Callable[[], None]) -> list[str]:
    """What a function asks of the kernel, in order, with the files concerned."""
    asked: list[str] = []

    def watch(frame: FrameType, what: str, called: Any) -> None:
        if what == "c_call" and called in {os.fsync, os.rename}:
            names = frame.f_locals
            descriptor = names["file"].fileno() if "file" in names else names.get("descriptor")
            on = Path(f"/proc/self/fd/{descriptor}").readlink().name if descriptor is not None else ""
            asked.append(f"{called.__name__} {on}".strip())

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return asked


# Acceptance


def test_the_folders_are_for_their_owner_only(spool: Spool) -> None:
    """And making them twice is harmless."""
    spool.prepare()
    folders = [spool.root, spool.incoming, spool.accepted, spool.events, spool.recent, spool.quarantine]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def test_an_accepted_upload_waits_whole(spool: Spool) -> None:
    """Bytes and sidecar are those that were given."""
    upload_id = begun(spool)
    assert spool.waiting() == []
    sidecar = sidecar_for(upload_id)
    spool.accept(sidecar)
    assert spool.waiting() == [upload_id]
    read, data = spool.read(upload_id)
    assert (read, data.read_bytes()) == (sidecar, CONTENT)
    assert (data.parent / "upload.json").stat().st_mode & 0o777 == 0o600
    assert list(spool.incoming.iterdir()) == []


def test_acceptance_goes_by_its_order(spool: Spool) -> None:
    """Sidecar and its folder are on disk before the rename, both parents after it."""
    upload_id = begun(spool)
    asked = calls_of(lambda: spool.accept(sidecar_for(upload_id)))
    assert asked == ["fsync upload.json", f"fsync {upload_id}", "rename", "fsync accepted", "fsync incoming"]


def failing_sync(monkeypatch: pytest.MonkeyPatch, folder: Path, meanwhile: Callable[[], object] = int) -> None:
    """Let the disk fail where a folder is put on it, after something else has happened."""
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == folder:
            meanwhile()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_what_cannot_be_put_on_disk_is_taken_back(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told that it was not accepted, and so it is."""
    upload_id = begun(spool)
    failing_sync(monkeypatch, spool.accepted)
    with pytest.raises(OSError, match="Input/output error"):
        spool.accept(sidecar_for(upload_id))
    assert (spool.waiting(), spool.is_waiting(upload_id)) == ([], False)
    assert [path.name for path in spool.incoming.iterdir()] == [upload_id]


def test_what_intake_has_finished_is_accepted(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the ledger; whether its folder got onto this disk does not matter any more."""
    upload_id = begun(spool)
    failing_sync(monkeypatch, spool.accepted, lambda: spool.finish(upload_id))
    spool.accept(sidecar_for(upload_id))
    assert list(spool.incoming.iterdir()) == []


def test_the_folder_that_it_came_from_decides_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that is durable where it is, is accepted."""
    upload_id = begun(spool)
    failing_sync(monkeypatch, spool.incoming)
    spool.accept(sidecar_for(upload_id))
    assert spool.waiting() == [upload_id]


def test_the_folders_survive_a_power_cut(tmp_path: Path) -> None:
    """Each that is made is on disk in the one above it."""
    root = tmp_path / "home" / "spool"
    asked = calls_of(Spool(root).prepare)
    assert sorted(asked) == sorted(["fsync spool", "fsync home", f"fsync {tmp_path.name}"])


def test_bytes_that_are_replaced_are_still_those_that_were_checked(spool: Spool, tmp_path: Path) -> None:
    """Whoever may write to the spool: intake reads the file that it opened."""
    upload_id = accepted(spool)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with spool.opened(upload_id) as (sidecar, path):
        data = spool.accepted / upload_id / "data"
        data.unlink()
        data.symlink_to(secret)
        assert path.read_bytes() == CONTENT
        assert sidecar.upload_id == upload_id
    with pytest.raises(SpoolError), spool.opened(upload_id):
        raise AssertionError


def test_an_event_is_on_disk_when_it_is_told(spool: Spool) -> None:
    """The file, its name and then the folder."""
    asked = calls_of(lambda: spool.tell(event()))
    assert [step.split()[0] for step in asked] == ["fsync", "rename", "fsync"]
    assert asked[-1] == "fsync events"


def test_a_sidecar_that_cannot_be_written_accepts_nothing(spool: Spool) -> None:
    """The upload stays where it was."""
    upload_id = begun(spool)
    (spool.incoming / upload_id / "upload.json").mkdir()
    with pytest.raises(OSError, match=r"upload\.json"):
        spool.accept(sidecar_for(upload_id))
    assert spool.waiting() == []
    assert (spool.incoming / upload_id / "data").read_bytes() == CONTENT


def test_an_upload_is_never_accepted_over_another(spool: Spool) -> None:
    """The one that is there stays as it is."""
    upload_id = accepted(spool)
    spool.begin(upload_id).write_bytes(b"other")
    with pytest.raises(OSError, match="not empty"):
        spool.accept(sidecar_for(upload_id, size=5))
    assert spool.read(upload_id)[1].read_bytes() == CONTENT


def test_an_id_is_used_once(spool: Spool) -> None:
    """Two uploads never share a folder."""
    upload_id = begun(spool)
    with pytest.raises(FileExistsError):
        spool.begin(upload_id)


def test_an_abandoned_upload_is_gone(spool: Spool) -> None:
    """Twice is harmless, and an accepted one is out of reach."""
    first, second = begun(spool), accepted(spool)
    for upload_id in (first, first, second):
        spool.abandon(upload_id)
    assert list(spool.incoming.iterdir()) == []
    assert spool.waiting() == [second]


def test_a_sidecar_is_not_written_through_a_link(spool: Spool, tmp_path: Path) -> None:
    """Whoever may write to the spool must not make the gate write elsewhere."""
    target = tmp_path / "target"
    target.write_text("precious", encoding="utf-8")
    upload_id = begun(spool)
    (spool.incoming / upload_id / "upload.json").symlink_to(target)
    with pytest.raises(OSError, match=r"upload\.json"):
        spool.accept(sidecar_for(upload_id))
    assert target.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("step", ["begun", "written", "sidecar"])
def test_a_crash_before_the_rename_leaves_nothing_after_the_sweep(spool: Spool, step: str) -> None:
    """Nobody was told OK for it."""
    upload_id = new_id(IdKind.UPLOAD)
    data = spool.begin(upload_id)
    if step != "begun":
        data.write_bytes(CONTENT)
    if step == "sidecar":
        (data.parent / "upload.json").write_text(json.dumps(asdict(sidecar_for(upload_id))), encoding="utf-8")
    assert spool.sweep() == 1
    assert list(spool.incoming.iterdir()) == spool.waiting() == []


def test_a_sweep_leaves_what_was_accepted_and_told(spool: Spool) -> None:
    """It removes the unfinished only, and says how many."""
    upload_id = accepted(spool)
    spool.tell(event())
    begun(spool)
    forge_event(spool, "{", name=f".{NOW:%Y}.json.123")
    assert spool.sweep() == 2
    assert spool.waiting() == [upload_id]
    assert len(list(spool.pending_events())) == 1
    assert spool.sweep() == 0


def test_a_sweep_takes_odd_things_as_well(spool: Spool, tmp_path: Path) -> None:
    """Files and links where folders should be go, and nothing behind a link does."""
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    (spool.incoming / "file").write_text("x", encoding="utf-8")
    (spool.incoming / "link").symlink_to(target)
    (spool.incoming / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(spool.incoming / "pipe")
    (spool.events / ".folder").mkdir()
    assert spool.sweep() == 5
    assert list(spool.incoming.iterdir()) == list(spool.events.iterdir()) == []
    assert (target / "inner").is_dir()


# Waiting uploads, treated as hostile


def test_uploads_wait_oldest_first(spool: Spool) -> None:
    """By the time of their acceptance, not by their ids."""
    ids = sorted((accepted(spool) for _ in range(4)), reverse=True)
    for age, upload_id in enumerate(reversed(ids)):
        os.utime(spool.accepted / upload_id, (NOW.timestamp() - age, NOW.timestamp() - age))
    assert spool.waiting() == ids


@pytest.mark.parametrize(
    "name",
    [
        "x",
        ".hidden",
        "upload_",
        "upload_1",
        "UPLOAD_0F9A8B7C-1D2E-4F30-8A4B-5C6D7E8F9A0B",
        "upload_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b\n",
        "upload_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b.csv",
        "campaign_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b",
        "upload_..",
        "-rf",
        "\udcff",
    ],
)
def test_names_that_are_no_ids_are_left_alone(spool: Spool, name: str) -> None:
    """They never become paths, ids or log lines."""
    (spool.accepted / name).mkdir()
    upload_id = accepted(spool)
    assert spool.waiting() == [upload_id]


def test_an_upload_that_somebody_finished_is_missing(spool: Spool) -> None:
    """Which is different from being odd; finishing twice is harmless."""
    upload_id = accepted(spool)
    spool.finish(upload_id)
    spool.finish(upload_id)
    with pytest.raises(FileNotFoundError):
        spool.read(upload_id)


def test_a_link_in_place_of_a_folder_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    """Even if all is right behind it."""
    upload_id = accepted(spool)
    (spool.accepted / upload_id).rename(tmp_path / "elsewhere")
    (spool.accepted / upload_id).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError):
        spool.read(upload_id)


def test_a_file_in_place_of_a_folder_is_odd(spool: Spool) -> None:
    """It would be looked at for ever otherwise."""
    upload_id = new_id(IdKind.UPLOAD)
    (spool.accepted / upload_id).write_text("x", encoding="utf-8")
    with pytest.raises(SpoolError):
        spool.read(upload_id)


@pytest.mark.parametrize("name", ["data", "upload.json"])
@pytest.mark.parametrize("kind", ["missing", "link", "dangling", "pipe", "folder"])
def test_an_upload_holds_plain_files_only(spool: Spool, tmp_path: Path, name: str, kind: str) -> None:
    """Nothing is read through a link, and no pipe is waited for."""
    upload_id = accepted(spool)
    path = spool.accepted / upload_id / name
    path.rename(tmp_path / "moved")
    if kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(SpoolError, match=rf"{upload_id}: {name}"):
        spool.read(upload_id)


FORGERIES: dict[str, Any] = {
    "upload_id": ["upload_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b", "x", "", None, 1],
    "campaign_id": ["x", "", "campaign_../../x", "upload_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b", None, 1, [CAMPAIGN]],
    "enrolment_id": [None, 1, {}],
    "file_name": [None, 5, ["x.csv"], "\udc80.csv", "a\0.csv"],
    "size": [None, "12", 1.5, True, -1, 1 << 63, 10**400],
    "is_cut_off": [None, 0, 1, "true"],
    "sha256": [None, 0],
    "key_fingerprint": [None, {}],
    "peer": [None, 1, "\ud800"],
    "received_at": [
        None,
        0,
        "",
        "now",
        "2026-11-20T08:30:00",
        "0001-01-01T00:00:00+08:00",
        "9999-12-31T23:59:59-08:00",
        "9999-12-31T23:59:59+00:00",
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FORGERIES.items() for value in values])
def test_a_forged_sidecar_is_refused(spool: Spool, name: str, value: Any) -> None:
    """Values of another kind, of another upload, or that a database would choke on."""
    upload_id = forge(spool, "")
    content = {**asdict(sidecar_for(upload_id)), name: value}
    (spool.accepted / upload_id / "upload.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SpoolError):
        spool.read(upload_id)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '"x"',
        "{}",
        '{"upload_id": "x"}',
        b"\xff\xfe",
        "[" * 60_000,
        '{"a":' * 10_000,
        json.dumps({**asdict(sidecar_for("x")), "more": "x"}),
        json.dumps({**asdict(sidecar_for("x")), "__class__": "x"}),
        " " * 70_000 + json.dumps(asdict(sidecar_for("x"))),
        "9" * 10_000,
    ],
)
def test_a_sidecar_that_is_none_is_refused(spool: Spool, content: str | bytes) -> None:
    """However it is broken, deep or long."""
    with pytest.raises(SpoolError):
        spool.read(forge(spool, content))


def test_a_huge_sidecar_is_not_read(spool: Spool) -> None:
    """It costs no memory: a terabyte of nothing is told by its size."""
    upload_id = accepted(spool)
    os.truncate(spool.accepted / upload_id / "upload.json", 1 << 40)
    with pytest.raises(SpoolError, match="huge"):
        spool.read(upload_id)


def test_an_odd_upload_is_set_aside(spool: Spool) -> None:
    """For a person to look at; twice the same id is no trouble."""
    upload_id = forge(spool, "{")
    path = spool.accepted / upload_id
    spool.set_aside(path, "a forgery")
    path.symlink_to("/")
    spool.set_aside(path, "a link\nwith two lines")
    assert spool.waiting() == []
    reasons = sorted((place / "reason").read_text() for place in spool.quarantine.iterdir())
    assert reasons == [f"'{upload_id}'\n'a forgery'\n", f"'{upload_id}'\n'a link\\nwith two lines'\n"]
    with pytest.raises(FileNotFoundError):
        spool.set_aside(path, "gone")
    assert len(list(spool.quarantine.iterdir())) == 2


# Events


def test_events_come_oldest_first(spool: Spool) -> None:
    """As they were told."""
    told = [event(at=(NOW - timedelta(minutes=age)).isoformat()) for age in (2, 0, 1)]
    for one in told:
        spool.tell(one)
    assert [found for _path, found in spool.pending_events()] == [told[0], told[2], told[1]]


def test_an_event_stays_until_it_is_removed(spool: Spool) -> None:
    """By whoever has dealt with it."""
    spool.tell(event(kind=EventKind.LOGIN))
    for path, found in spool.pending_events():
        assert found.kind is EventKind.LOGIN
        path.unlink()
    assert list(spool.pending_events()) == []


def test_a_half_written_event_is_no_event_yet(spool: Spool) -> None:
    """Nor is it moved away from whoever writes it."""
    half = forge_event(spool, "{", name=".a.json.123")
    assert list(spool.pending_events()) == []
    assert half.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "party"),
        ("kind", None),
        ("event_id", "x"),
        ("event_id", "campaign_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b"),
        ("campaign_id", "../.."),
        ("enrolment_id", 1),
        ("at", "now"),
        ("at", "0001-01-01T00:00:00+08:00"),
        ("at", 5),
        ("file_name", 5),
        ("file_name", "\ud800"),
        ("reason", {"a": 1}),
        ("reason", "a\0"),
        ("size", "12"),
        ("size", 1 << 64),
        ("more", "x"),
    ],
)
def test_a_forged_event_is_moved_aside(spool: Spool, name: str, value: Any) -> None:
    """And those after it are still found."""
    path = forge_event(spool, json.dumps({**asdict(event()), name: value}))
    spool.tell(event())
    assert len(list(spool.pending_events())) == 1
    assert not path.exists()
    assert len(list(spool.quarantine.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 60_000, b"\xff", "null"])
def test_an_event_that_is_none_is_moved_aside(spool: Spool, content: str | bytes) -> None:
    """However it is broken."""
    forge_event(spool, content)
    assert list(spool.pending_events()) == []
    assert list(spool.events.iterdir()) == []


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "huge"])
def test_an_event_is_a_plain_file(spool: Spool, tmp_path: Path, kind: str) -> None:
    """Nothing is read through a link, no pipe is waited for, and nothing huge is loaded."""
    path = spool.events / "a.json"
    if kind == "link":
        path.symlink_to(forge_event(spool, json.dumps(asdict(event())), name="../../real"))
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    assert list(spool.pending_events()) == []
    assert list(spool.events.iterdir()) == []
    assert len(list(spool.quarantine.iterdir())) == 1


def test_what_is_moved_aside_replaces_nothing(spool: Spool) -> None:
    """The same name twice is two things to look at."""
    for _ in range(2):
        forge_event(spool, "{")
        assert list(spool.pending_events()) == []
    assert len(list(spool.quarantine.iterdir())) == 2


# Recent uploads


def recent(**changes: Any) -> RecentUpload:
    return replace(RecentUpload(file_name="x.csv", size=1, received_at=NOW.isoformat()), **changes)


def test_an_accepted_upload_is_recent_before_intake_has_seen_it(spool: Spool) -> None:
    """And once only when it has."""
    upload_id = accepted(spool)
    expected = [RecentUpload(file_name="péople 人.csv", size=len(CONTENT), received_at=NOW.isoformat())]
    assert spool.recent_uploads(CAMPAIGN, NOW) == expected
    spool.remember(CAMPAIGN, upload_id, expected[0])
    assert spool.recent_uploads(CAMPAIGN, NOW) == expected
    spool.finish(upload_id)
    assert spool.recent_uploads(CAMPAIGN, NOW) == expected


def test_a_session_sees_its_own_campaign_only(spool: Spool) -> None:
    """Waiting uploads and remembered ones."""
    upload_id = accepted(spool)
    spool.remember(CAMPAIGN, upload_id, recent())
    assert spool.recent_uploads(new_id(IdKind.CAMPAIGN), NOW) == []


def test_what_waits_for_intake_is_read_once(spool: Spool) -> None:
    """Each list would read all sidecars of all campaigns; one never changes, and goes with its folder."""
    upload_id = accepted(spool)
    seen = spool.recent_uploads(CAMPAIGN, NOW)
    (spool.accepted / upload_id / "upload.json").write_text("x", encoding="utf-8")
    assert len(seen) == 1
    assert spool.recent_uploads(CAMPAIGN, NOW) == seen
    spool.finish(upload_id)
    assert spool.recent_uploads(CAMPAIGN, NOW) == []


def test_recent_uploads_are_sorted_by_time(spool: Spool) -> None:
    """Whatever offset their times are written with."""
    times = ["2026-11-20T08:00:00+08:00", "2026-11-20T01:00:00+00:00", "2026-11-20T00:30:00-08:00"]
    for at in reversed(times):
        spool.remember(CAMPAIGN, new_id(IdKind.UPLOAD), recent(received_at=at))
    assert [upload.received_at for upload in spool.recent_uploads(CAMPAIGN, NOW)] == times


@pytest.mark.parametrize(("age", "seen"), [(timedelta(hours=24), True), (timedelta(hours=24, seconds=1), False)])
def test_uploads_are_recent_for_a_day(spool: Spool, age: timedelta, seen: bool) -> None:
    """To the second."""
    spool.remember(CAMPAIGN, new_id(IdKind.UPLOAD), recent(received_at=(NOW - age).isoformat()))
    assert bool(spool.recent_uploads(CAMPAIGN, NOW)) is seen


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "[" * 60_000, json.dumps(asdict(recent(received_at="now"))), b"\xff"]
)
def test_a_broken_record_of_a_recent_upload_is_passed_over(spool: Spool, content: str | bytes) -> None:
    """The others are still listed: it is only a listing."""
    spool.remember(CAMPAIGN, new_id(IdKind.UPLOAD), recent())
    path = spool.recent / CAMPAIGN / f"{new_id(IdKind.UPLOAD)}.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert spool.recent_uploads(CAMPAIGN, NOW) == [recent()]


def test_a_broken_waiting_upload_is_passed_over(spool: Spool) -> None:
    """A session's listing never fails for it."""
    forge(spool, "{")
    upload_id = accepted(spool)
    assert len(spool.recent_uploads(CAMPAIGN, NOW)) == 1
    assert spool.waiting().count(upload_id) == 1


def test_old_records_are_forgotten(spool: Spool) -> None:
    """Those of the last day stay."""
    old, new = new_id(IdKind.UPLOAD), new_id(IdKind.UPLOAD)
    for upload_id, age in ((old, timedelta(hours=24, seconds=1)), (new, timedelta(hours=24))):
        spool.remember(CAMPAIGN, upload_id, recent())
        time = (NOW - age).timestamp()
        os.utime(spool.recent / CAMPAIGN / f"{upload_id}.json", (time, time))
    spool.forget_old(NOW)
    assert [path.stem for path in (spool.recent / CAMPAIGN).iterdir()] == [new]


def test_forgetting_passes_over_odd_things(spool: Spool, tmp_path: Path) -> None:
    """Nothing behind a link is removed, and a link to nowhere or a folder stops nobody."""
    precious = tmp_path / "elsewhere" / "upload_precious.json"
    precious.parent.mkdir()
    precious.write_text("{}", encoding="utf-8")
    os.utime(precious, (0, 0))
    (spool.recent / "campaign_link").symlink_to(precious.parent)
    (spool.recent / "campaign_file").write_text("x", encoding="utf-8")
    folder = spool.recent / CAMPAIGN
    folder.mkdir()
    (folder / "upload_dangling.json").symlink_to(tmp_path / "nowhere")
    (folder / "upload_folder.json").mkdir()
    os.utime(folder / "upload_folder.json", (0, 0))
    old = folder / "upload_old.json"
    old.write_text("{}", encoding="utf-8")
    os.utime(old, (0, 0))
    spool.forget_old(NOW)
    assert precious.exists()
    assert not old.exists()


def test_nothing_is_remembered_behind_a_link(spool: Spool, tmp_path: Path) -> None:
    """Whoever may write to the spool must not make intake write elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (spool.recent / CAMPAIGN).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError):
        spool.remember(CAMPAIGN, new_id(IdKind.UPLOAD), recent())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_is_none_is_not_synced(spool: Spool, tmp_path: Path) -> None:
    """A file in its place is told."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


def test_a_gate_that_is_killed_has_accepted_all_or_nothing(spool: Spool) -> None:
    """A process killed in the midst of many acceptances leaves whole uploads and rubbish, nothing between."""
    script = """
import sys
from dataclasses import replace
from pathlib import Path
from postern.model import IdKind, new_id
from storage.spool import Spool
from storage.spool_records import Sidecar
spool = Spool(Path(sys.argv[1]))
while True:
    upload_id = new_id(IdKind.UPLOAD)
    spool.begin(upload_id).write_bytes(b"x")
    spool.accept(Sidecar(upload_id=upload_id, campaign_id=sys.argv[2], enrolment_id="e", file_name="x.csv", size=1,
        sha256="", key_fingerprint="", peer="", received_at="2026-11-20T08:30:00+00:00"))
    print(upload_id, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script, spool.root, CAMPAIGN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = {process.stdout.readline().strip() for _ in range(20)}
    process.kill()
    answered |= {line.strip() for line in process.communicate()[0].splitlines()}
    spool.sweep()
    waiting = set(spool.waiting())
    assert answered <= waiting
    assert {spool.read(upload_id)[1].read_bytes() for upload_id in waiting} == {b"x"}
