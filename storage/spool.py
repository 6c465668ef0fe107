"""The spool: the queue on disk where the gate hands uploads over to intake.

Acceptance is one point, `accept`: bytes and sidecar are on disk before the folder is renamed into
`accepted/`, and the parent folder is synced before it returns. A crash before the rename leaves
something in `incoming/` that nobody answered OK for, and that `sweep` removes at the next start; a crash
after it leaves a whole upload that intake finds. This module knows no campaign and trusts no name: every
folder is called by an id of ours.

Layout under the spool's root:
    incoming/<upload id>/data                     being received
    accepted/<upload id>/{data,upload.json}       handed over
    events/<time>-<id>.json                       what else the gate has to say
    recent/<campaign id>/<upload id>.json         what sessions see of the last 24 h; written by intake and gate
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from postern.errors import PosternError
from postern.model import IdKind, is_id, new_id
from postern.times import from_iso

RECENT_WINDOW = timedelta(hours=24)
_LARGEST_RECORD = 65_536  # bytes of a sidecar or an event
_LARGEST_SIZE = 1 << 63

R = TypeVar("R")


class SpoolError(PosternError):
    """Something in the spool is not what the gate writes there; it is set aside, never processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What the gate knows about an upload that it accepted, `upload.json`."""

    upload_id: str
    campaign_id: str
    enrolment_id: str
    file_name: str
    size: int  # bytes
    sha256: str  # lower-case hex
    key_fingerprint: str  # SHA256:…
    peer: str  # the client's address
    received_at: str  # ISO 8601 with offset
    write_block: int = 0  # bytes of each write, the last one too; 0 where they differ


class EventKind(StrEnum):
    """What an event in the spool tells."""

    REFUSED = "refused"
    LOGIN = "login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A refusal or a login, told by the gate after the fact; not an upload."""

    kind: EventKind
    event_id: str  # an upload id: a refusal becomes an upload with that id
    campaign_id: str
    enrolment_id: str
    key_fingerprint: str
    peer: str
    at: str  # ISO 8601 with offset
    file_name: str = ""
    size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentUpload:
    """What a session may see of an accepted upload of its campaign."""

    file_name: str
    size: int  # bytes
    received_at: str  # ISO 8601 with offset


class Spool:
    """The spool under one root folder. All methods are synchronous and short; fsync is the slow part."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.accepted = root / "accepted"
        self.events = root / "events"
        self.recent = root / "recent"
        self.quarantine = root / "quarantine"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only."""
        folders = (self.root, self.incoming, self.accepted, self.events, self.recent, self.quarantine)
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # The gate's side

    def sweep(self) -> int:
        """Remove what a gate that died left behind. Only for a start with no other gate on this spool.

        Returns:
            how many unfinished uploads and half-written files went.
        """
        gone = 0
        for leftover in (*self.incoming.iterdir(), *self.events.glob(".*")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
            gone += 1
        return gone

    def begin(self, upload_id: str) -> Path:
        """Make the folder of a new upload and return the path that its bytes go to."""
        folder = self.incoming / upload_id
        folder.mkdir(mode=0o700)
        return folder / "data"

    def abandon(self, upload_id: str) -> None:
        """Remove an upload that will not be accepted. Doing it twice is harmless."""
        shutil.rmtree(self.incoming / upload_id, ignore_errors=True)

    def accept(self, sidecar: Sidecar) -> None:
        """The point of acceptance. The caller has written `data` and synced it to disk.

        Sidecar, sync, rename, sync of the parent: when this returns the upload survives a power cut,
        and only then may the client be told so.

        Raises:
            OSError: the upload is not known to be on disk. Where it was the last sync that failed, intake may take
                it in all the same; the client, told of the failure, sends it again as a second upload.
        """
        folder = self.incoming / sidecar.upload_id
        _write_synced(folder / "upload.json", json.dumps(asdict(sidecar), ensure_ascii=False))
        sync_folder(folder)
        folder.rename(self.accepted / sidecar.upload_id)
        sync_folder(self.accepted)
        sync_folder(self.incoming)

    def tell(self, event: Event) -> None:
        """Append an event for intake; it is on disk when this returns."""
        name = f"{event.at.replace(':', '').replace('/', '')}-{event.event_id}.json"
        self._place(self.events / name, asdict(event))
        sync_folder(self.events)

    # What sessions see

    def remember(self, campaign_id: str, upload_id: str, upload: RecentUpload) -> None:
        """Make an accepted upload visible to the sessions of its campaign for 24 h.

        Raises:
            SpoolError: the campaign's folder is a link; nothing was written behind it.
        """
        folder = self.recent / campaign_id
        if folder.is_symlink():
            raise SpoolError(f"{campaign_id}: the folder of recent uploads is a link")
        folder.mkdir(mode=0o700, exist_ok=True)
        self._place(folder / f"{upload_id}.json", asdict(upload))

    def recent_uploads(self, campaign_id: str, now: datetime) -> list[RecentUpload]:
        """The accepted uploads of the last 24 h, oldest first; a later one of the same name stands later."""
        found: dict[str, RecentUpload] = {}
        for sidecar in self._waiting():
            if sidecar.campaign_id == campaign_id:
                found[sidecar.upload_id] = RecentUpload(
                    file_name=sidecar.file_name, size=sidecar.size, received_at=sidecar.received_at
                )
        folder = self.recent / campaign_id
        for path in folder.glob("upload_*.json") if folder.is_dir() else ():
            try:
                upload = _read_record(path, RecentUpload)
            except (OSError, SpoolError):
                continue  # being replaced, or not ours: it is only a listing
            if now - from_iso(upload.received_at) <= RECENT_WINDOW:
                found[path.stem] = upload
        return sorted(found.values(), key=lambda upload: from_iso(upload.received_at))

    def forget_old(self, now: datetime) -> None:
        """Remove what no session sees any more."""
        for folder in self.recent.iterdir():
            if folder.is_symlink():
                continue
            for path in folder.glob("upload_*.json"):
                with suppress(OSError):  # gone meanwhile, or no file
                    if now.timestamp() - path.lstat().st_mtime > RECENT_WINDOW.total_seconds():
                        path.unlink()

    # Intake's side: everything found is treated as hostile

    def waiting(self) -> list[str]:
        """The ids of accepted uploads, oldest first. Names that are no ids of ours are left alone."""
        found: list[tuple[int, str]] = []
        for entry in os.scandir(self.accepted):
            if is_id(IdKind.UPLOAD, entry.name):
                with suppress(FileNotFoundError):  # finished between the two looks
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        return [name for _time, name in sorted(found)]

    def read(self, upload_id: str) -> tuple[Sidecar, Path]:
        """The sidecar of an accepted upload and the path of its bytes.

        Raises:
            SpoolError: a link, a missing or odd file, or a sidecar that does not fit its folder.
            FileNotFoundError: the folder is gone: somebody else finished it.
        """
        folder = self.accepted / upload_id
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise SpoolError(f"{upload_id}: a link or a file where a folder should be")
        data = folder / "data"
        for path in (data, folder / "upload.json"):
            if path.is_symlink() or not path.is_file():
                raise SpoolError(f"{upload_id}: {path.name} is missing or no plain file")
        sidecar = _read_record(folder / "upload.json", Sidecar)
        if sidecar.upload_id != upload_id or not is_id(IdKind.CAMPAIGN, sidecar.campaign_id):
            raise SpoolError(f"{upload_id}: the sidecar names {sidecar.upload_id} of {sidecar.campaign_id}")
        return sidecar, data

    def finish(self, upload_id: str) -> None:
        """Remove an upload that is in the blob store and in the ledger. Doing it twice is harmless."""
        shutil.rmtree(self.accepted / upload_id, ignore_errors=True)

    def set_aside(self, upload_id: str) -> None:
        """Move something that the gate did not write out of the way, for a person to look at."""
        (self.accepted / upload_id).rename(self.quarantine / f"{upload_id}-{new_id(IdKind.SUPPORT)}")

    def pending_events(self) -> Iterator[tuple[Path, Event]]:
        """The events that wait, oldest first. What is no event of ours is moved aside."""
        for path in sorted(self.events.glob("[!.]*.json")):
            try:
                event = _read_event(path)
            except FileNotFoundError:
                continue  # another look finished it
            except SpoolError:
                path.rename(self.quarantine / f"{path.name}-{new_id(IdKind.SUPPORT)}")
                continue
            yield path, event

    def _waiting(self) -> Iterator[Sidecar]:
        for upload_id in self.waiting():
            try:
                yield self.read(upload_id)[0]
            except (SpoolError, OSError):
                continue

    def _place(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a small file so that readers see all of it or nothing."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        _write_synced(temporary, json.dumps(content, ensure_ascii=False))
        temporary.rename(path)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk: a rename is durable only after this (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_event(path: Path) -> Event:
    event = _read_record(path, Event)
    if not is_id(IdKind.UPLOAD, event.event_id) or not is_id(IdKind.CAMPAIGN, event.campaign_id):
        raise SpoolError(f"{path.name}: ids of the wrong form")
    return event


def _read_record(path: Path, record: type[R]) -> R:
    """A small file of ours, whoever wrote it.

    Raises:
        SpoolError: a link, a pipe, something huge, or not exactly the fields of the record, each of its kind.
        FileNotFoundError: it is gone.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECORD:
        raise SpoolError(f"{path.name}: no plain file, or a huge one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return record(**{name: _checked(name, value) for name, value in content.items()})
    except (PermissionError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SpoolError(f"{path.name}: cannot be read ({type(error).__name__})") from error


def _checked(name: str, value: object) -> object:
    """A value of the kind that its field has, fit to be stored: databases take no NUL, half character or huge size."""
    if name in {"size", "write_block"}:
        if type(value) is not int or not 0 <= value < _LARGEST_SIZE:
            raise TypeError(name)
        return value
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(name)
    value.encode()
    if name in {"at", "received_at"}:
        from_iso(value)
    return EventKind(value) if name == "kind" else value
