"""How long a file takes to validate, and how much memory: ours, the stages of it, other ways, growth.

    python -P bench/validate.py [--rounds 7] [--sizes 1,5,30,300] [--no-rivals] [--json FILE]

Prints tables in Markdown, and never fails because something was slow. What the figures mean stands in
`docs/benchmarks.md`.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # -P leaves it out; last, so that it hides nothing

from bench.files import Sample, make_samples, make_valid
from bench.rivals import Rival, parse_only, rivals
from bench.stages import stages
from bench.timing import Times, fresh_process, interleaved
from pipeline.validate import Outcome, validate

Table = list[dict[str, Any]]


def main() -> None:
    """Measure and print."""
    options = _options()
    found: dict[str, Any] = {"machine": _machine(), "rounds": options.rounds}
    print(f"{found['machine']}. Load {os.getloadavg()[0]:.1f} at the start, medians of {options.rounds} rounds.")
    print("Times in milliseconds, MB of 10^6 bytes, memory in MiB.")
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        folder = Path(name)
        samples = make_samples(folder)
        by_name = {sample.name: sample for sample in samples}
        sections: dict[str, Callable[[], Table]] = {
            "Validation": lambda: [row for sample in samples for row in _ours(sample, folder, options.rounds)],
            "Stages": lambda: [row for key in "ab" for row in _stages(by_name[key], folder, options.rounds)],
            "Memory of a fresh process": lambda: [_memory(sample, folder) for sample in samples],
            "Growth": lambda: [_growth(size, folder, options.rounds) for size in options.sizes],
        }
        if options.rivals:
            sections["Other ways, file b"] = lambda: _rivals(by_name["b"], options.rounds)
        for title, measure in sections.items():
            found[title] = measure()
            _print(title, found[title])
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed")
    parser.add_argument("--sizes", type=_sizes, default=[1, 5, 30, 300], help="megabytes, for the growth")
    parser.add_argument("--rivals", action=argparse.BooleanOptionalAction, default=True, help="time other ways, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {_version(name)}" for name in ("polars", "numpy"))
    return f"{cores} cores ({model}), Python {platform.python_version()}, {packages}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _ours(sample: Sample, folder: Path, rounds: int) -> Table:
    """Parsing alone, and validation with what it can leave behind, from the file to the verdict."""
    outcome = _validated(sample)
    ways: dict[str, Callable[[], object]] = {
        "parse only": partial(parse_only, sample.path),
        "verdict": partial(_validated, sample),
    }
    if outcome.verdict.is_valid:
        ways["verdict and messages"] = partial(_validated, sample, messages=folder / "messages")
    else:
        ways["verdict and report"] = partial(_validated, sample, report=folder / "report.csv")
    times = interleaved(ways, rounds)
    verdict = outcome.verdict
    about = {
        "file": sample.name,
        "what": sample.what,
        "MB": round(sample.megabytes, 1),
        "rows": verdict.total_rows,
        "bad": verdict.num_rows,
    }
    return [about | {"way": name} | _figures(times[name], times["parse only"]) for name in ways]


def _validated(sample: Sample, *, report: Path | None = None, messages: Path | None = None) -> Outcome:
    if messages is not None:
        shutil.rmtree(messages, ignore_errors=True)  # a worker gives a new folder; this takes about a millisecond
    return validate(sample.path.read_bytes(), sample.rules, report=report, messages=messages)


def _figures(times: Times, least: Times | None = None) -> dict[str, Any]:
    figures = {"wall": round(times.wall, 1), "best": round(times.best, 1), "CPU": round(times.cpu, 1)}
    if least is None:
        return figures
    return figures | {"× parse only": round(times.wall / least.wall, 1), "in CPU": round(times.cpu / least.cpu, 1)}


def _stages(sample: Sample, folder: Path, rounds: int) -> Table:
    return [{"file": sample.name, **row} for row in stages(sample, folder, rounds)]


def _memory(sample: Sample, folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder / "messages", ignore_errors=True)
    fresh = fresh_process(sample, folder)
    figures = {"ready": round(fresh.ready), "peak": round(fresh.peak), "grown by": round(fresh.peak - fresh.ready)}
    return {"file": sample.name, "MB": round(sample.megabytes, 1), **figures, "first answer": round(fresh.wall)}


def _growth(size: int, folder: Path, rounds: int) -> dict[str, Any]:
    """A valid file of so many megabytes: the verdict alone here, the peak in a fresh process with messages."""
    sample = make_valid(folder / "growth.csv", size * 1_000_000)
    data = [sample.path.read_bytes()]  # in a list, to be emptied before the fresh process needs the room
    ways = {"": lambda: validate(data[0], sample.rules, report=None, messages=None)}
    times = interleaved(ways, rounds if size <= 30 else min(rounds, 3))[""]
    total = ways[""]().verdict.total_rows
    data.clear()
    memory = _memory(sample, folder)
    sample.path.unlink()
    per_megabyte = {"wall per MB": round(times.wall / size, 2), "CPU per MB": round(times.cpu / size, 2)}
    return {"MB": size, "rows": total, **_figures(times), **per_megabyte, "peak": memory["peak"]}


def _rivals(sample: Sample, rounds: int) -> Table:
    """Ours and whatever of the others is installed, in turn."""
    others = rivals()
    ways: dict[str, Callable[[], object]] = {
        "parse only": partial(parse_only, sample.path),
        "Postern": partial(_validated, sample),
    }
    ways |= {rival.title: partial(rival.judge, sample.path) for rival in others if rival.is_installed}
    times = interleaved(ways, rounds)
    verdict = _validated(sample).verdict
    table: Table = [
        _compared("parse only", "nothing", 0, times["parse only"], times),
        _compared("Postern", "all rules, every byte accounted for", verdict.num_rows, times["Postern"], times),
    ]
    return table + [_rival(rival, sample, verdict.total_rows, times) for rival in others]


def _rival(rival: Rival, sample: Sample, rows: int, times: Mapping[str, Times]) -> dict[str, Any]:
    if not rival.is_installed:
        return {"way": rival.title, "checks": "not installed"}
    bad = rival.judge(sample.path)
    if rival.rows is None:
        return _compared(rival.title, rival.checks, bad, times[rival.title], times)
    share = rows / rival.rows
    taken = times[rival.title]
    whole = Times(walls=[wall * share for wall in taken.walls], cpus=[cpu * share for cpu in taken.cpus])
    checks = f"{rival.checks}; {rival.rows:,} rows judged, times extrapolated"
    return _compared(rival.title, checks, bad, whole, times)


def _compared(name: str, checks: str, bad: int, taken: Times, times: Mapping[str, Times]) -> dict[str, Any]:
    figures = _figures(taken, times["parse only"])
    return {
        "way": name,
        "checks": checks,
        "bad": bad,
        **figures,
        "× Postern": round(taken.wall / times["Postern"].wall, 1),
    }


def _print(title: str, table: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    print(f"\n### {title}\n")
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in table:
        print("| " + " | ".join(_cell(row.get(name, "–")) for name in names) + " |", flush=True)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    main()
