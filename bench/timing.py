"""How it is measured: wall and CPU time of this process, side by side, and the peak of a fresh validating process.

Ways are taken in turn, round after round, so that whatever else the machine does meets all of them alike. Medians are
what is told; the first round warms up and is not counted.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.files import Sample
from pipeline.ruleset import to_json

ROOT = Path(__file__).resolve().parents[1]


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


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Time several ways, each once a round, after a round that is not counted."""
    times = {name: Times() for name in ways}
    for attempt in range(rounds + 1):
        for name, work in ways.items():
            wall, cpu = timed(work)
            if attempt:
                times[name].walls.append(wall)
                times[name].cpus.append(cpu)
    return times


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of wall time, and of CPU time over all threads."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    taken = (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3
    del result  # freeing it is the caller's business, not the way's
    return taken


def fresh_process(sample: Sample, folder: Path) -> Fresh:
    """Judge a file in a new `pipeline.child`, as a worker would, with report and messages."""
    request = {
        "data": str(sample.path),
        "report": str(folder / "report.csv"),
        "messages": str(folder / "messages"),
        "rules": to_json(sample.rules),
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)},
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        ready = _peak(child.pid)
        start = time.perf_counter()
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
        answer: dict[str, Any] = json.loads(child.stdout.readline())
        wall = (time.perf_counter() - start) * 1e3
        peak = _peak(child.pid)
    if "bug" in answer:
        raise RuntimeError(answer["bug"])
    return Fresh(wall=wall, ready=ready, peak=peak)


def _peak(pid: int) -> float:
    """MiB of resident memory of a process at its highest (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kibibytes) / 1024
