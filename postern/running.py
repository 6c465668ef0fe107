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
        if _pid(path) == os.getpid():
            path.unlink(missing_ok=True)


def announcement(run_folder: Path, role: str) -> Mapping[str, Any] | None:
    """What a role that is alive says of itself, or None."""
    path = run_folder / f"{role}.json"
    pid = _pid(path)
    if pid is None or not _is_alive(pid):
        return None
    details: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return details


def _pid(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
