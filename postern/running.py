"""What a running role tells the others on its machine: a small file `run/<role>.json` while it is ready."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def announced(run_folder: Path, role: str, **details: Any) -> Iterator[None]:
    """Say that this process is ready, with its id and `details` (such as `port`), until the block ends."""
    run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = run_folder / f"{role}.json"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), **details}), encoding="utf-8")
    temporary.rename(path)
    try:
        yield
    finally:
        said = _read(path)
        if said is not None and said["pid"] == os.getpid():
            path.unlink(missing_ok=True)


def announcement(run_folder: Path, role: str) -> Mapping[str, Any] | None:
    """What a role that is alive says of itself, or None."""
    details = _read(run_folder / f"{role}.json")
    return details if details is not None and _is_alive(details["pid"]) else None


def _read(path: Path) -> Mapping[str, Any] | None:
    """What the file says, or None: it may go, or be replaced, at any time."""
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
        return details if type(details["pid"]) is int and details["pid"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
