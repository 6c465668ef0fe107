"""The records in the spool, small JSON files, and how they are read: as if somebody hostile had written them."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from postern.errors import PosternError
from postern.model import IdKind, is_id
from postern.times import from_iso

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
    is_cut_off: bool = False  # whether its end looks as if the client had been interrupted


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


def read_event(path: Path) -> Event:
    """An event; see `read_record`."""
    event = read_record(path, Event)
    if not is_id(IdKind.UPLOAD, event.event_id) or not is_id(IdKind.CAMPAIGN, event.campaign_id):
        raise SpoolError(f"{path.name}: ids of the wrong form")
    return event


def read_record(path: Path, record: type[R]) -> R:
    """A small file of ours, whoever wrote it.

    Raises:
        SpoolError: a link, a pipe, something huge, or not exactly the fields of the record, each of its kind.
        FileNotFoundError: it is gone.
    """
    try:
        with opened_file(path) as descriptor:
            text = os.read(descriptor, _LARGEST_RECORD + 1)
        if len(text) > _LARGEST_RECORD:
            raise SpoolError(f"{path.name}: a huge file")
        content = json.loads(text.decode())
        return record(**{name: _checked(name, value) for name, value in content.items()})
    except (PermissionError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SpoolError(f"{path.name}: cannot be read ({type(error).__name__})") from error


@contextmanager
def opened_file(path: Path | str, folder: int | None = None) -> Iterator[int]:
    """A plain file, opened without following a link and without waiting for whoever is at the other end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EACCES, errno.ENODEV}:
            raise SpoolError(f"{Path(path).name}: no plain file ({error.strerror})") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SpoolError(f"{Path(path).name}: no plain file")
        yield descriptor
    finally:
        os.close(descriptor)


def _checked(name: str, value: object) -> object:
    """A value of the kind that its field has, fit to be stored: databases take no NUL, half character or huge size."""
    if name in {"size", "write_block"}:
        if type(value) is not int or not 0 <= value < _LARGEST_SIZE:
            raise TypeError(name)
        return value
    if name == "is_cut_off":
        if type(value) is not bool:
            raise TypeError(name)
        return value
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(name)
    value.encode()
    if name in {"at", "received_at"}:
        from_iso(value)
    return EventKind(value) if name == "kind" else value
