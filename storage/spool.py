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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from postern.logs import get_logger
from postern.model import IdKind, is_id, new_id
from postern.times import from_iso
from storage.spool_records import Event, RecentUpload, Sidecar, SpoolError, opened_file, read_event, read_record

RECENT_WINDOW = timedelta(hours=24)
_FILES = ("data", "upload.json")  # of an accepted upload

log = get_logger(__name__)


class Spool:
    """The spool under one root folder. All methods are synchronous and short; fsync is the slow part."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.accepted = root / "accepted"
        self.events = root / "events"
        self.recent = root / "recent"
        self.quarantine = root / "quarantine"
        self._sidecars: Mapping[str, Sidecar | None] = {}  # of what waited at the last look; None: not ours

    def prepare(self) -> None:
        """Make the folders, readable by their owner only."""
        folders = (self.root, self.incoming, self.accepted, self.events, self.recent, self.quarantine)
        made = [parent for parent in (self.root, *self.root.parents) if not parent.exists()]
        for folder in folders:
            folder.mkdir(mode=shared(folder.parent, 0o700), parents=True, exist_ok=True)
        for parent in (self.root, *(folder.parent for folder in made)):
            sync_folder(parent)  # else a power cut could take the folders, with all that was accepted into them

    # The gate's side

    def sweep(self) -> int:
        """Remove what a gate that died left behind. Only for a start with no other gate on this spool.

        Returns:
            how many unfinished uploads and half-written files went.
        """
        return remove_leftovers((*self.incoming.iterdir(), *self.events.glob(".*")))

    def begin(self, upload_id: str) -> Path:
        """Make the folder of a new upload and return the path that its bytes go to."""
        folder = self.incoming / upload_id
        folder.mkdir(mode=shared(folder.parent, 0o700))
        return folder / "data"

    def abandon(self, upload_id: str) -> None:
        """Remove an upload that will not be accepted. Doing it twice is harmless."""
        shutil.rmtree(self.incoming / upload_id, ignore_errors=True)

    def accept(self, sidecar: Sidecar) -> None:
        """The point of acceptance. The caller has written `data` and synced it to disk.

        Sidecar, sync, rename, sync of the parent: when this returns the upload survives a power cut,
        and only then may the client be told so. Where that last sync fails, the upload is taken back, so that it is
        what the client is told: not accepted. Intake looks for that before it records an upload; one that it has
        finished already is in the ledger, and so accepted.

        Raises:
            OSError: the upload was not accepted.
        """
        folder, place = self.incoming / sidecar.upload_id, self.accepted / sidecar.upload_id
        _write_synced(folder / "upload.json", json.dumps(asdict(sidecar), ensure_ascii=False))
        sync_folder(folder)
        folder.rename(place)
        try:
            sync_folder(self.accepted)
        except OSError:
            with suppress(FileNotFoundError):
                place.rename(folder)
                raise
        with suppress(OSError):  # it is durable where it is; this is for where it no longer is
            sync_folder(self.incoming)

    def tell(self, event: Event) -> None:
        """Append an event for intake; it is on disk when this returns."""
        name = f"{event.at.replace(':', '').replace('/', '')}-{event.event_id}.json"
        self._place(self.events / name, asdict(event), by_way_of=self.incoming)  # which a sweep clears
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
        folder.mkdir(mode=shared(folder.parent, 0o700), exist_ok=True)
        self._place(folder / f"{upload_id}.json", asdict(upload), by_way_of=folder)

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
                upload = read_record(path, RecentUpload)
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

    def strange(self) -> list[Path]:
        """What lies among accepted uploads and events and can be neither, whatever it is and is called."""
        return [
            *(Path(entry) for entry in os.scandir(self.accepted) if not is_id(IdKind.UPLOAD, entry.name)),
            *(Path(entry) for entry in os.scandir(self.events) if not entry.name.startswith(".")
              and not entry.name.endswith(".json")),
        ]  # fmt: skip

    @contextmanager
    def opened(self, upload_id: str) -> Iterator[tuple[Sidecar, Path]]:
        """The sidecar of an accepted upload and a path to its bytes that stays theirs, whatever takes their place.

        Raises:
            SpoolError, FileNotFoundError: see `read`.
        """
        sidecar, data = self.read(upload_id)
        try:
            folder = os.open(data.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError as error:
            raise SpoolError(f"{upload_id}: a link or a file where a folder should be") from error
        try:
            with opened_file(data.name, folder) as descriptor:
                status = os.fstat(descriptor)
                if status.st_nlink != 1 or status.st_size != sidecar.size:
                    raise SpoolError(f"{upload_id}: {status.st_size} bytes under {status.st_nlink} names")
                yield sidecar, Path(f"/dev/fd/{descriptor}")
        finally:
            os.close(folder)

    def is_waiting(self, upload_id: str) -> bool:
        """Whether an upload is still accepted: the gate takes back what it could not put on disk."""
        return (self.accepted / upload_id).exists()

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
        if len(list(folder.iterdir())) > len(_FILES):
            raise SpoolError(f"{upload_id}: there is more in it than {' and '.join(_FILES)}")
        sidecar = read_record(folder / "upload.json", Sidecar)
        if sidecar.upload_id != upload_id or not is_id(IdKind.CAMPAIGN, sidecar.campaign_id):
            raise SpoolError(f"{upload_id}: the sidecar names {sidecar.upload_id} of {sidecar.campaign_id}")
        return sidecar, data

    def finish(self, upload_id: str) -> None:
        """Remove an upload that is in the blob store and in the ledger. Doing it twice is harmless."""
        shutil.rmtree(self.accepted / upload_id, ignore_errors=True)

    def is_leftover(self, upload_id: str) -> bool:
        """Whether it is what is left of a folder that was being removed."""
        folder = self.accepted / upload_id
        return not folder.is_symlink() and folder.is_dir() and {path.name for path in folder.iterdir()} < set(_FILES)

    def set_aside(self, path: Path, reason: object) -> None:
        """Move something that the gate did not write out of the way, for a person to look at, with the reason beside.

        It gets a name of ours: its own may be anything, and stands in the reason.
        """
        place = self.quarantine / new_id(IdKind.SUPPORT)
        place.mkdir(mode=0o700)
        try:
            path.rename(place / "found")
        except OSError:
            place.rmdir()
            raise
        name, why = ascii(path.name), ascii(str(reason))
        (place / "reason").write_text(f"{name}\n{why}\n")
        log.critical("spool.quarantined", support_id=place.name, name=name, error=why)

    def pending_events(self) -> Iterator[tuple[Path, Event]]:
        """The events that wait, oldest first. What is no event of ours is moved aside."""
        for path in sorted(self.events.glob("[!.]*.json")):
            try:
                event = read_event(path)
            except FileNotFoundError:
                continue  # another look finished it
            except SpoolError as error:
                self.set_aside(path, error)
                continue
            yield path, event

    def _waiting(self) -> Iterable[Sidecar]:
        """What is accepted and waits for intake, of all campaigns. A sidecar never changes, so it is read once."""
        known = self._sidecars
        self._sidecars = {each: known[each] if each in known else self._sidecar(each) for each in self.waiting()}
        return [sidecar for sidecar in self._sidecars.values() if sidecar is not None]

    def _sidecar(self, upload_id: str) -> Sidecar | None:
        try:
            return self.read(upload_id)[0]
        except (SpoolError, OSError):
            return None

    def _place(self, path: Path, content: Mapping[str, Any], *, by_way_of: Path) -> None:
        """Write a small file so that readers see all of it or nothing."""
        temporary = by_way_of / f".{path.name}.{os.getpid()}"
        _write_synced(temporary, json.dumps(content, ensure_ascii=False))
        temporary.rename(path)


def remove_leftovers(leftovers: Iterable[Path]) -> int:
    """Remove folders and files, and say how many."""
    gone = 0
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
        gone += 1
    return gone


def shared(folder: Path, mode: int) -> int:
    """The mode of something new in a folder: its group may do what its owner may, if the folder hands its group on.

    That is the folder's setgid bit (mkdir(2)), by which an operator lets gate and intake be two users of one group.
    """
    is_handed_on = folder.is_dir() and folder.stat().st_mode & stat.S_ISGID
    return mode | mode >> 3 if is_handed_on else mode


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk: a rename is durable only after this (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, text: str) -> None:
    mode = shared(path.parent, 0o600)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
