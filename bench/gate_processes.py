"""What a server and all its children take of the machine, from /proc (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """MiB of resident memory, summed over processes."""

    resident: float  # RSS: a page that several share counts for each
    proportional: float  # PSS: such a page counts once


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of those children that it has waited for, in steps of a hundredth of a second."""
    return sum(int(field) for field in _stat(pid)[11:15]) / _TICK


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents.setdefault(int(_stat(int(path.name))[1]), []).append(int(path.name))
        except (OSError, ValueError):
            continue  # gone meanwhile
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def memory(pid: int) -> Memory:
    """What a process and all its descendants have in memory now."""
    rows = [_rollup(each) for each in (pid, *descendants(pid))]
    return Memory(
        resident=sum(row.get("Rss", 0) for row in rows) / 1024,
        proportional=sum(row.get("Pss", 0) for row in rows) / 1024,
    )


def peak(pid: int) -> float:
    """MiB of resident memory of one process at its highest (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def _rollup(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return {}
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


def _stat(pid: int) -> list[str]:
    """What stands behind the name: the state, the parent, and so on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
