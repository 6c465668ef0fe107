"""Where the time of a validation goes, from inside one: clocks around its two dear functions, and what lies between.

Only `pipeline.chunks.chunks` and `pipeline.rules.judge` are known by name; a clock stands in for each wherever the
pipeline has imported it. Should one have been renamed, its stage is told as not measured, and the whole all the same.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.files import Sample
from bench.timing import interleaved
from pipeline.validate import validate

Mark = tuple[float, float]  # wall and CPU time, seconds


@dataclass(slots=True)
class _Clock:
    """The times of one validation."""

    opened: Mark | None = None  # when the first chunk was asked for
    spent: dict[str, list[Mark]] = field(default_factory=lambda: {"chunks": [], "judge": []})

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = _now()
            try:
                return work(*args, **kwargs)
            finally:
                self.spent[name].append(_since(start))

        return timed

    def around_each(self, name: str, work: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            self.opened = _now()
            source = iter(work(*args, **kwargs))
            following = self.around(name, lambda: next(source, self))
            while (found := following()) is not self:
                yield found

        return timed

    def total(self, name: str) -> Mark:
        return sum(wall for wall, _ in self.spent[name]), sum(cpu for _, cpu in self.spent[name])


def stages(sample: Sample, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """What each stage takes, in milliseconds: medians, and differences of medians for what is left behind."""
    data = sample.path.read_bytes()
    parts: list[dict[str, Mark]] = []
    times = interleaved(_ways(data, sample, folder, parts), rounds)
    told = [_told(name, *_median([part[name] for part in parts[-rounds:]])) for name in parts[0]]
    whole = times.pop("verdict")
    told.append(_told("verdict: all of the above", whole.wall, whole.cpu))
    told += [_told(f"{name} (the difference)", it.wall - whole.wall, it.cpu - whole.cpu) for name, it in times.items()]
    return told


def _told(name: str, wall: float, cpu: float) -> dict[str, Any]:
    return {"stage": name, "wall": round(wall, 1), "CPU": round(cpu, 1)}


def _median(marks: list[Mark]) -> Mark:
    return statistics.median(wall * 1e3 for wall, _ in marks), statistics.median(cpu * 1e3 for _, cpu in marks)


def _parts(data: bytes, sample: Sample) -> dict[str, Mark]:
    """The stages of one validation, without report and messages."""
    clock = _Clock()
    with _standing_in(clock):
        start = _now()
        validate(data, sample.rules, report=None, messages=None)
        end = _now()
    if clock.opened is None or not clock.spent["judge"]:
        return {"parts: not measured, their functions have other names now": (0.0, 0.0)}
    cut, judged = clock.total("chunks"), clock.total("judge")
    rest = _less(_less(_less(end, clock.opened), cut), judged)
    return {
        "open and check": _less(clock.opened, start),
        "cut, parse, account": cut,
        "judge": judged,
        "duplicates, counts, verdict (the rest)": rest,
    }


@contextmanager
def _standing_in(clock: _Clock) -> Iterator[None]:
    """Let the clock stand before the functions it times, in all modules of the pipeline."""
    replaced: list[tuple[Any, str, Any]] = []
    for module, name, wrap in (("chunks", "chunks", clock.around_each), ("rules", "judge", clock.around)):
        work: Any = getattr(import_module(f"pipeline.{module}"), name, None)
        holders = [held for path, held in sys.modules.items() if path.startswith("pipeline.")]
        for holder in [held for held in holders if work is not None and vars(held).get(name) is work]:
            replaced.append((holder, name, work))
            setattr(holder, name, wrap(name, work))
    try:
        yield
    finally:
        for holder, name, work in replaced:
            setattr(holder, name, work)


def _ways(data: bytes, sample: Sample, folder: Path, parts: list[dict[str, Mark]]) -> dict[str, Callable[[], object]]:
    """The verdict by the stages, and a validation that leaves something behind."""
    report, messages = folder / "report.csv", folder / "messages"

    def in_parts() -> None:
        parts.append(_parts(data, sample))

    def with_messages() -> None:
        shutil.rmtree(messages, ignore_errors=True)
        validate(data, sample.rules, report=None, messages=messages)

    def with_report() -> None:
        validate(data, sample.rules, report=report, messages=None)

    is_valid = validate(data, sample.rules, report=None, messages=None).verdict.is_valid
    beside: dict[str, Callable[[], object]] = {"messages": with_messages} if is_valid else {"report": with_report}
    return {"verdict": in_parts, **beside}


def _now() -> Mark:
    return time.perf_counter(), time.process_time()


def _since(start: Mark) -> Mark:
    return _less(_now(), start)


def _less(one: Mark, other: Mark) -> Mark:
    return one[0] - other[0], one[1] - other[1]
