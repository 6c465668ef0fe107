"""How long a worker's event loop is held up while it judges a full file and writes its batch.

    python -P bench/loop.py [--rounds 5]

A loop sleeps 5 milliseconds, again and again, and notes how much later than asked it woke up: alone, beside a
validation (which runs in a process of its own; a thread here waits for it), and beside the writing of the batch on
SQLite (a thread of the worker's own). Prints a table in Markdown, and never fails because something was slow.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # -P leaves it out; last, so that it hides nothing

from bench.files import ROWS, make_samples
from pipeline.batches import write_batch
from pipeline.validator import Validator
from postern.model import IdKind, derived_id, new_id
from storage.database import Database
from storage.migrate import migrate

_PAUSE = 0.005  # seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    rounds = parser.parse_args().rounds
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, {rounds} rounds.\n")
    print("| beside | wall ms | woke up late: median ms | 99% | longest |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        asyncio.run(_measure(Path(name), rounds))


async def _measure(folder: Path, rounds: int) -> None:
    sample = next(sample for sample in make_samples(folder) if sample.name == "a")
    validator = Validator(timeout=120, memory=1 << 30)
    path = folder / "postern.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    rows = folder / "messages"

    def judge() -> None:
        validator.validate(sample.path, sample.rules, report=folder / "report.csv", messages=rows)

    def write() -> None:
        extent = (ROWS, 2, ROWS + 1)
        upload_id = _batch(path, ROWS)
        write_batch(database, upload_id=upload_id, campaign_id="none", rows=rows, extent=extent, now=datetime.now(UTC))

    await asyncio.to_thread(judge)  # warms up
    await _row("nothing", lambda: asyncio.sleep(1), rounds)
    await _row("a validation", lambda: asyncio.to_thread(judge), rounds)
    await _row("the batch's messages, SQLite", lambda: asyncio.to_thread(write), rounds)
    validator.close()
    database.dispose()


async def _row(title: str, work: Callable[[], Awaitable[None]], rounds: int) -> None:
    late: list[float] = []
    walls = []
    for _ in range(rounds):
        watching = asyncio.create_task(_watch(late))
        start = time.perf_counter()
        await work()
        walls.append(time.perf_counter() - start)
        watching.cancel()
    late.sort()
    figures = (statistics.median(walls), statistics.median(late), late[int(len(late) * 0.99)], late[-1])
    print(f"| {title} | {' | '.join(f'{figure * 1e3:,.1f}' for figure in figures)} |", flush=True)


async def _watch(late: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(_PAUSE)
        late.append(time.perf_counter() - start - _PAUSE)


def _batch(database: Path, rows: int) -> str:
    """A batch without upload or campaign, which the bare driver does not ask for; returns the upload's id."""
    upload_id = new_id(IdKind.UPLOAD)
    batch_id = derived_id(IdKind.BATCH, upload_id, "batch")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO batches (id, number, upload_id, campaign_id, status, total, first_row, last_row, created_at, "
            "updated_at) SELECT ?, count(*) + 1, ?, 'none', 'messages_enqueuing', ?, 2, ?, '2026-01-01', '2026-01-01' "
            "FROM batches",
            (batch_id, upload_id, rows, rows + 1),
        )
    return upload_id


if __name__ == "__main__":
    main()
