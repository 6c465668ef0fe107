"""What `postern doctor` finds: lines, and how clocks, room and what waits become lines."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from postern.errors import PosternError, SettingsError
from postern.times import utc_now

_SKEW = 2.0  # seconds
_STEP = 1000  # of units


class Status(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was found."""

    check: str
    status: Status = Status.OK
    detail: str
    advice: str = ""  # what to do; for every line that is not well


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to look at."""

    name: str
    run: Callable[[], Sequence[Line]]
    advice: str  # where it raises or does not come to an end


def failed(check: Check, error: Exception) -> Line:
    """What is said where a check could not be made."""
    said = str(error) if isinstance(error, PosternError | OSError) else f"{type(error).__name__}: a bug of Postern"
    advice = "Mend the setting" if isinstance(error, SettingsError) else check.advice
    return Line(check=check.name, status=Status.WRONG, detail=" ".join(said.split()), advice=advice)


def clock(name: str, before: datetime, told: datetime, width: timedelta) -> Line:
    """Whether a clock goes with this machine's.

    Args:
        name: of the line.
        before: when it was asked.
        told: what it said, some time between then and now.
        width: how much later it may be than it says.
    """
    after = utc_now()
    skew = max((before - told - width).total_seconds(), (told - after).total_seconds(), 0.0)
    if skew <= _SKEW:
        return Line(check=name, detail=f"within {_SKEW:g} s of this machine's")
    detail = f"{skew:.1f} s {'ahead of' if told > after else 'behind'} this machine's"
    return Line(check=name, status=Status.WARNING, detail=detail, advice="Let NTP keep both clocks (timedatectl)")


def room(name: str, folder: Path, reserve: int) -> Line:
    """Whether a disk has more bytes free than are kept back; near that is a warning."""
    free = shutil.disk_usage(folder).free
    detail = f"{_size(free)} free, of which {_size(reserve)} are kept back"
    if free > 2 * reserve:
        return Line(check=name, detail=detail)
    status = Status.WRONG if free <= reserve else Status.WARNING
    return Line(check=name, status=status, detail=detail, advice=f"Make room on the disk of {folder}")


def left_in(name: str, what: str, folder: Path, patience: timedelta | None, advice: str) -> Line:
    """What lies in a folder of the spool; None: nothing should."""
    times = []
    for entry in os.scandir(folder) if folder.is_dir() else ():
        try:
            times.append(datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC))
        except FileNotFoundError:
            continue  # intake has just taken it
    patience = timedelta() if patience is None else patience
    return waiting_line(name, what, len(times), min(times, default=None), patience, advice)


def waiting_line(
    name: str, what: str, count: int, since: datetime | None, patience: timedelta | None, advice: str
) -> Line:
    """How many things wait, and whether one does for longer than it should; None: as long as it likes."""
    if not count or since is None:
        return Line(check=name, detail="nothing")
    late = patience is not None and utc_now() - since > patience
    return Line(
        check=name,
        status=Status.WARNING if late else Status.OK,
        detail=f"{count} {what}, the oldest for {age(since)}",
        advice=advice if late else "",
    )


def modified(path: Path) -> datetime:
    """When a file was written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def age(then: datetime) -> str:
    """How long ago that was, in the largest unit that tells it well."""
    seconds = max(0, int((utc_now() - then).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < _STEP:
            return f"{count:.0f} {unit}"
        count /= _STEP
    return f"{count:.1f} TB"
