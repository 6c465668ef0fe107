"""How long a file takes to validate, and how much memory: ours, the stages of it, other ways, growth.

    python -P bench/validate.py [--rounds 7] [--sizes 1,5,30,300] [--no-rivals] [--json FILE]

Prints tables in Markdown, and never fails because something was slow. What the figures mean stands in
`docs/benchmarks.md`.
"""

import argparse
import json
import os
import platform
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
from bench.timing import Child, Times, fresh_process, interleaved

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
        child = Child()
        sections: dict[str, Callable[[], Table]] = {
            "Validation": lambda: [row for sample in samples for row in _ours(sample, folder, child, options.rounds)],
            "Stages": lambda: [row for key in "abc" for row in _stages(by_name[key], folder, options.rounds)],
            "Memory of a fresh process": lambda: [_memory(sample, folder) for sample in samples],
            "Growth": lambda: [_growth(size, folder, child, options.rounds) for size in options.sizes],
        }
        if options.rivals:
            sections["Other ways, file b"] = lambda: _rivals(by_name["b"], child, options.rounds)
        for title, measure in sections.items():
            found[title] = measure()
            _print(title, found[title])
        child.close()
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


def _ours(sample: Sample, folder: Path, child: Child, rounds: int) -> Table:
    """Parsing alone, and validation with what it can leave behind, from the file to the verdict."""
    verdict = child.validate(sample)["verdict"]
    beside = "verdict and messages" if verdict["isValid"] else "verdict and report"
    ways: dict[str, Callable[[], object]] = {
        "parse only": partial(parse_only, sample.path),
        "verdict": partial(child.validate, sample),
        beside: partial(child.validate, sample, folder / "out"),
    }
    times = interleaved(ways, rounds, child=child.pid)
    about = {
        "file": sample.name,
        "what": sample.what,
        "MB": round(sample.megabytes, 1),
        "rows": verdict["totalRows"],
        "bad": verdict["numRows"],
    }
    return [about | {"way": name} | _figures(times[name], times["parse only"]) for name in ways]


def _figures(times: Times, least: Times | None = None) -> dict[str, Any]:
    figures = {"wall": round(times.wall, 1), "best": round(times.best, 1), "CPU": round(times.cpu, 1)}
    if least is None:
        return figures
    return figures | {"× parse only": round(times.wall / least.wall, 1), "in CPU": round(times.cpu / least.cpu, 1)}


def _stages(sample: Sample, folder: Path, rounds: int) -> Table:
    return [{"file": sample.name, **row} for row in stages(sample, folder, rounds)]


def _memory(sample: Sample, folder: Path) -> dict[str, Any]:
    fresh = fresh_process(sample, folder)
    figures = {"ready": round(fresh.ready), "peak": round(fresh.peak), "grown by": round(fresh.peak - fresh.ready)}
    return {"file": sample.name, "MB": round(sample.megabytes, 1), **figures, "first answer": round(fresh.wall)}


def _growth(size: int, folder: Path, child: Child, rounds: int) -> dict[str, Any]:
    """A valid file of so many megabytes: the verdict alone in a warm process, the peak in a fresh one with messages."""
    sample = make_valid(folder / "growth.csv", size * 1_000_000)
    ways = {"": partial(child.validate, sample)}
    times = interleaved(ways, rounds if size <= 30 else min(rounds, 3), child=child.pid)[""]
    total = ways[""]()["verdict"]["totalRows"]
    memory = _memory(sample, folder)
    sample.path.unlink()
    per_megabyte = {"wall per MB": round(times.wall / size, 2), "CPU per MB": round(times.cpu / size, 2)}
    return {"MB": size, "rows": total, **_figures(times), **per_megabyte, "peak": memory["peak"]}


def _rivals(sample: Sample, child: Child, rounds: int) -> Table:
    """Ours and whatever of the others is installed, in turn."""
    others = rivals()
    ways: dict[str, Callable[[], object]] = {
        "parse only": partial(parse_only, sample.path),
        "Postern": partial(child.validate, sample),
    }
    ways |= {rival.title: partial(rival.judge, sample.path) for rival in others if rival.is_installed}
    times = interleaved(ways, rounds, child=child.pid)
    verdict = child.validate(sample)["verdict"]
    table: Table = [
        _compared("parse only", "nothing", 0, times["parse only"], times),
        _compared("Postern", "all rules, every byte accounted for", verdict["numRows"], times["Postern"], times),
    ]
    return table + [_rival(rival, sample, verdict["totalRows"], times) for rival in others]


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
