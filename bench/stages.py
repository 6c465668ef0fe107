"""Where the time of a validation goes: its stages one after the other, which otherwise overlap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bench.files import Sample
from bench.timing import Mark, interleaved, less, now
from pipeline.chunks import SIZE, chunks
from pipeline.csvfile import Record, read_header
from pipeline.header import check_header
from pipeline.report import Report
from pipeline.rules import Judge
from pipeline.source import map_file
from pipeline.tally import Tally
from pipeline.text import check_bytes, check_utf8
from pipeline.validate import validate, write_messages

T = TypeVar("T")


class _Clock:
    """The wall and CPU times of the stages of one validation, in seconds."""

    def __init__(self) -> None:
        self.spent: dict[str, Mark] = {}

    def __call__(self, stage: str, work: Callable[..., T], *args: Any) -> T:
        start = now()
        result = work(*args)
        wall, cpu = less(now(), start)
        before = self.spent.get(stage, (0.0, 0.0))
        self.spent[stage] = before[0] + wall, before[1] + cpu
        return result


def stages(sample: Sample, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """What each stage takes, in milliseconds: the fastest of some rounds; and all of them as they are run."""
    clocks: list[_Clock] = []

    def one_by_one() -> None:
        clocks.append(_Clock())
        _validate(sample, folder, clocks[-1])

    def side_by_side() -> None:
        validate(map_file(sample.path), sample.rules, report=folder / "report.csv", messages=folder / "messages")

    times = interleaved({"one by one": one_by_one, "side by side": side_by_side}, rounds)
    least = {
        stage: tuple(min(clock.spent[stage][part] for clock in clocks) for part in (0, 1)) for stage in clocks[0].spent
    }
    told = [
        {"stage": stage, "wall": round(wall * 1e3, 1), "CPU": round(cpu * 1e3, 1)}
        for stage, (wall, cpu) in least.items()
    ]
    return told + [
        {"stage": f"all, {name}", "wall": round(taken.best, 1), "CPU": round(min(taken.cpus), 1)}
        for name, taken in times.items()
    ]


def _validate(sample: Sample, folder: Path, clock: _Clock) -> None:
    data = map_file(sample.path)
    header, columns = clock("open and check", _open, sample, data)
    offered = [language.value for language in sample.rules.templates]
    judge, tally = Judge(sample.rules, columns), Tally(columns, offered)
    report = Report(folder / "report.csv", data, header, offered, chunk_size=SIZE)
    source = chunks(data, header, header.fields)
    while (chunk := clock("cut, parse, account", next, source, None)) is not None:
        judged = clock("judge", judge, chunk)
        clock("count", tally.add, judged)
        if tally.is_valid:
            clock("write messages", write_messages, folder / "messages", judged.rows, sample.rules)
        else:
            clock("sentences and report", report.add, chunk, judged.errors)
    clock("duplicates, verdict", tally.verdict)


def _open(sample: Sample, data: Any) -> tuple[Record, list[str]]:
    check_bytes(data)
    check_utf8(data)
    header = read_header(data)
    return header, check_header(header.fields, sample.rules.parameters, row=header.row)
