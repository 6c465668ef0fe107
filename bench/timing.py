"""How it is measured: wall and CPU time, side by side, and the peak of a fresh validating process.

Validation runs where it does in a worker: in a warm `pipeline.child`. Ways are taken in turn, round after round, so
that whatever else the machine does meets all of them alike. Medians are what is told; the first round warms up and is
not counted.
"""

import gc
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.files import Sample
from pipeline.ruleset import to_json
from pipeline.watched import spawn


@dataclass(slots=True)
class Times:
    """What one way took in each round, in milliseconds."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def best(self) -> float:
        return min(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What a fresh process took for its first file."""

    wall: float  # milliseconds from request to answer
    ready: float  # MiB at its peak before the request
    peak: float  # MiB at its peak behind the answer


Mark = tuple[float, float]  # wall and CPU time, seconds


def now(child: int | None = None) -> Mark:
    """The clocks: of this process, and of a child as far as it is told (proc(5), stat; in hundredths of a second)."""
    return time.perf_counter(), time.process_time() + (0.0 if child is None else _cpu(child))


def less(one: Mark, other: Mark) -> Mark:
    """What lies between two marks."""
    return one[0] - other[0], one[1] - other[1]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int, *, child: int | None = None) -> dict[str, Times]:
    """Time several ways, each once a round, after a round that is not counted; `child` may do the work."""
    times = {name: Times() for name in ways}
    for attempt in range(rounds + 1):
        for name, work in ways.items():
            wall, cpu = timed(work, child)
            if attempt:
                times[name].walls.append(wall)
                times[name].cpus.append(cpu)
    return times


def timed(work: Callable[[], object], child: int | None = None) -> tuple[float, float]:
    """Milliseconds of wall time, and of CPU time over all threads."""
    gc.collect()
    start = now(child)
    result = work()
    wall, cpu = less(now(child), start)
    del result  # freeing it is the caller's business, not the way's
    return wall * 1e3, cpu * 1e3


class Child:
    """A warm validating process."""

    def __init__(self) -> None:
        self._process = spawn("pipeline.child")
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def validate(self, sample: Sample, folder: Path | None = None) -> dict[str, Any]:
        """Judge a file as a worker does; leave its report or its messages in a folder."""
        request = {"data": str(sample.path), "report": None, "messages": None, "rules": to_json(sample.rules)}
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            request |= {"report": str(folder / "report.csv"), "messages": str(folder / "messages")}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        return answer

    @property
    def peak(self) -> float:
        """MiB of resident memory at its highest (proc(5), VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def fresh_process(sample: Sample, folder: Path) -> Fresh:
    """Judge a file in a new process, with report or messages."""
    child = Child()
    ready, start = child.peak, time.perf_counter()
    child.validate(sample, folder / "out")
    wall, peak = (time.perf_counter() - start) * 1e3, child.peak
    child.close()
    return Fresh(wall=wall, ready=ready, peak=peak)
