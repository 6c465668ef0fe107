"""How fast the gate is beside this machine's own sshd with `internal-sftp`: the same clients, in one run.

    python -P bench/gate.py [--rounds 3] [--json FILE]

Real processes on loopback, Postern's gate with all that it does for a file: SHA-256, fsync, sidecar, rename. What is
measured is taken in another order in each round. Prints tables in Markdown, and never fails because something was slow.
Without sshd it says so, and measures ours alone.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # -P leaves it out; last, so that it hides nothing

from bench.gate_clients import PROCESSES, Crowd, log_in, negotiated, put, warm_up
from bench.gate_processes import descendants, memory, peak
from bench.gate_servers import SSHD, Server, find_sshd, gate, make_key, sshd

_MB = 1_000_000
_LARGE = 30 * _MB - 1  # bytes; a file must be smaller than 30 MB
_ROW = b"6591234567,english,Ann,2026-12-01,10:30\n"
_LOGINS = 320
_CROWDS = (0, 64, 256)  # idle sessions, from none to many
_AES128 = ("-c", "aes128-gcm@openssh.com")
_AES256 = ("-c", "aes256-gcm@openssh.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something to do to a server: returns how many seconds it took."""

    title: str
    work: Callable[[Server], float]
    target: str  # of the ratio; in brackets what to reach for
    amount: float = 0.0  # of what is told per second; 0: the seconds themselves are told
    unit: str = "s"
    cpu_per: float = 0.0  # MB or logins that the CPU time is shared out to; 0: too short to be told
    cpu_target: str = ""


@dataclass(slots=True)
class Taken:
    """What one case took on one server, round by round."""

    walls: list[float] = field(default_factory=list)  # seconds
    cpus: list[float] = field(default_factory=list)  # seconds of the server's

    def value(self, case: Case) -> float:
        """Seconds, or what was done in one."""
        wall = statistics.median(self.walls)
        return case.amount / wall if case.amount else wall

    def cpu(self, case: Case) -> float:
        """Milliseconds of CPU time per MB or login."""
        return statistics.median(self.cpus) * 1e3 / case.cpu_per if case.cpu_per else 0.0


def main() -> None:
    """Measure and print."""
    options = _options()
    program = find_sshd()
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.split(",")[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, {version}, "
          f"medians of {options.rounds} rounds in random order.")  # fmt: skip
    if os.getloadavg()[0] > 1:
        print("\nThe machine is busy: one process of Postern's gets a smaller share of it than sshd's many.")
    if program is None:
        print("\nThere is no sshd on this machine (Debian: openssh-server): Postern alone is measured.")
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        key = make_key(folder / "key")
        servers = [stack.enter_context(gate(folder, key)), stack.enter_context(gate(folder, key, processes=2))]
        if program is not None:
            servers.append(stack.enter_context(sshd(program, folder, key)))
        pool = stack.enter_context(ProcessPoolExecutor(PROCESSES, get_context("spawn")))
        warm_up(pool)
        cases = _cases(_file(folder / "large.csv", _LARGE), _file(folder / "small.csv", _MB), pool)
        tables = {
            "What the stock client agrees on": [_agreed(server) for server in servers],
            "Idle sessions with an open file": _crowds(servers),
            "Time": _table(cases, _measured(cases, servers, options.rounds)),
        }
        highest = sum(peak(pid) for pid in (servers[0].pid, *descendants(servers[0].pid)))
    tables["Idle sessions with an open file"].append(
        {"sessions": "highest of the whole run, all processes", f"{servers[0].title}: RSS, MiB": round(highest, 1)}
    )
    for title, table in tables.items():
        _print(title, table)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured on each server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def _file(path: Path, size: int) -> Path:
    path.write_bytes((_ROW * (size // len(_ROW) + 1))[-size:])
    return path


def _cases(large: Path, small: Path, pool: ProcessPoolExecutor) -> Sequence[Case]:
    def one(title: str, *options: str) -> Case:
        return Case(
            title=f"1 × 30 MB{title}", work=lambda server: put(server, large, 1, *options), target="≤ 0.45 (0.30)"
        )

    def many(title: str, *options: str) -> Case:
        return Case(
            title=f"16 × 30 MB at once{title}",
            work=lambda server: put(server, large, 16, *options),
            target="≥ 1.8 (2.4)",
            amount=16 * _LARGE / _MB,
            unit="MB/s",
            cpu_per=16 * _LARGE / _MB,
            cpu_target="≤ 2.8 (1.6)",
        )

    return (
        one(""),
        one(", aes128-gcm", *_AES128),
        one(", aes256-gcm", *_AES256),
        many(""),
        many(", aes128-gcm", *_AES128),
        Case(
            title="64 × 1 MB at once",
            work=lambda server: put(server, small, 64),
            target="≥ 4 (5.4)",
            amount=64,
            unit="MB/s",
            cpu_per=64,
        ),
        Case(
            title=f"{_LOGINS} logins (libssh2)",
            work=lambda server: log_in(pool, server, _LOGINS),
            target="≥ 4.5 (8.5)",
            amount=_LOGINS,
            unit="a second",
            cpu_per=_LOGINS,
        ),
    )


def _agreed(server: Server) -> dict[str, Any]:
    return {
        "server": server.title,
        "as it comes": negotiated(server),
        "-c aes128-gcm": negotiated(server, *_AES128),
        "-c aes256-gcm": negotiated(server, *_AES256),
    }


def _measured(cases: Sequence[Case], servers: Sequence[Server], rounds: int) -> dict[tuple[str, str], Taken]:
    """By case and server."""
    taken = {(case.title, server.title): Taken() for case in cases for server in servers}
    order = [(case, server) for case in cases for server in servers]
    for server in servers:
        cases[0].work(server)  # the first one warms up
        server.clear()
    for _round in range(rounds):
        random.shuffle(order)
        for case, server in order:
            before = server.cpu()
            found = taken[case.title, server.title]
            found.walls.append(case.work(server))
            found.cpus.append(server.cpu() - before)
            server.clear()
    return taken


def _crowds(servers: Sequence[Server]) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = [
        {"sessions": size} | ({"target for RSS": "≤ 150 MiB"} if size == 64 else {}) for size in _CROWDS
    ]
    for server in servers:
        asyncio.run(_watch_crowd(server, table))
        server.clear()
    return [{"sessions": row.pop("sessions"), **row} for row in table]


async def _watch_crowd(server: Server, table: list[dict[str, Any]]) -> None:
    crowd = Crowd(server)
    for row in table:
        await crowd.grow(row["sessions"])
        found = memory(server.pid)
        row[f"{server.title}: RSS, MiB"] = round(found.resident, 1)
        row[f"{server.title}: PSS, MiB"] = round(found.proportional, 1)
    await crowd.leave()
    server.cpu()  # waits until they are gone


def _table(cases: Sequence[Case], taken: dict[tuple[str, str], Taken]) -> list[dict[str, Any]]:
    return [
        _row(case, {server: found for (title, server), found in taken.items() if title == case.title}) for case in cases
    ]


def _row(case: Case, taken: dict[str, Taken]) -> dict[str, Any]:
    """One case: all servers, the ratios to sshd, and the CPU time of each."""
    row: dict[str, Any] = {"case": case.title, "unit": case.unit}
    row |= {server: round(found.value(case), 3 if case.unit == "s" else 1) for server, found in taken.items()}
    *ours, last = taken
    if last == SSHD:
        row |= {f"{server}: ratio": round(taken[server].value(case) / taken[last].value(case), 2) for server in ours}
    row["target of the ratio"] = case.target
    if case.cpu_per:
        per = "login" if case.unit == "a second" else "MB"
        row |= {f"{server}: CPU, ms": f"{found.cpu(case):.2f} / {per}" for server, found in taken.items()}
        row["target of the CPU"] = case.cpu_target
    return row


def _print(title: str, table: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    print(f"\n### {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in table:
        print(f"| {' | '.join(str(row.get(name, '')) for name in names)} |")


if __name__ == "__main__":
    main()
