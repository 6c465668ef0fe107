"""How long a full file takes from CLOSE to its batch committed, stage by stage, on SQLite and on PostgreSQL.

    python -P bench/upload.py [--rounds 5] [--json FILE]

A real installation (`postern serve`) of the bench's own, one for each database; both take the file in turn, round
after round. The times of stages are those of the roles' own logs. Meanwhile another writer asks for SQLite's write
lock, or updates a row on PostgreSQL, every 20 milliseconds: its longest wait is told. Prints a table in Markdown,
and never fails because something was slow.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

sys.path.append(str(Path(__file__).resolve().parents[1]))  # -P leaves it out; last, so that it hides nothing

import psycopg

from bench.files import Sample, make_samples
from bench.installation import Installation, moment, until
from bench.postgresql import find_binaries, postgresql

_PAUSE = 0.02  # seconds between two tries of the other writer
STAGES = (
    ("CLOSE answered", "closed"),
    ("bytes stored, upload and job in the ledger", "upload.received"),
    ("job begun", "upload.judging"),
    ("verdict", "upload.judged"),
    ("batch started", "batch.started"),
    ("messages written", "batch.written"),
    ("messages_enqueued committed", "upload.accepted"),
    ("behind it: the index of ids written", "batch.indexed"),
)
_COLUMNS = '"batch", "row", "recipient", "language", "values", "segments"'  # what is written of a message
_OF_BATCH = f"SELECT {_COLUMNS} FROM messages WHERE batch = (SELECT number FROM batches WHERE id = {{}}) ORDER BY row"


@dataclass(slots=True)
class Round:
    """What one upload took: seconds from CLOSE to the end of each stage."""

    ends: dict[str, float]
    rows: int
    commits: int
    longest_commit: float
    longest_wait: float = 0.0
    least: float = 0.0  # seconds of the bare insertion


@dataclass(slots=True)
class Subject:
    """One installation and what was measured on it."""

    title: str
    installation: Installation
    url: str
    campaign_id: str = ""
    key: Path = Path()
    rounds: list[Round] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    options = _options()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, "
          f"medians of {options.rounds} rounds.")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        sample = next(sample for sample in make_samples(folder) if sample.name == "a")
        subjects = [_subject("SQLite", folder, f"sqlite:///{folder}/postern.db")]
        if binaries := find_binaries():
            subjects.append(_subject("PostgreSQL", folder, stack.enter_context(postgresql(binaries))))
        for subject in subjects:
            stack.enter_context(subject.installation.serving())
            subject.campaign_id, subject.key = subject.installation.enrolled()
        for attempt in range(options.rounds + 1):
            for subject in subjects:
                found = _round(subject, sample)
                if attempt:  # the first one warms up
                    subject.rounds.append(found)
        tables = {subject.title: _table(subject) for subject in subjects}
    for title, table in tables.items():
        _print(title, table)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often the file is put on each database")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def _subject(title: str, folder: Path, url: str) -> Subject:
    (folder / title).mkdir()
    return Subject(title, Installation(folder / title, url), url)


def _round(subject: Subject, sample: Sample) -> Round:
    installation = subject.installation
    seen = len(installation.events())
    with _OtherWriter(subject.url) as other:
        sent, answered = asyncio.run(installation.put(subject.campaign_id, subject.key, sample.path.read_bytes()))
        events = until("the outcome", lambda: _finished(installation.events()[seen:]))
    batch_id = events["batch.started"]["batch_id"]
    ends = {name: moment(event) - sent for name, event in events.items()} | {"closed": answered - sent}
    found = Round(
        ends=ends,
        rows=events["batch.started"]["rows"],
        commits=events["batch.written"]["commits"],
        longest_commit=events["batch.written"]["longest_commit"],
        longest_wait=other.longest,
    )
    found.least = (_bare_sqlite if subject.url.startswith("sqlite") else _bare_postgresql)(subject.url, batch_id)
    return found


def _finished(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]] | None:
    """The event that ends each stage, once all are there. The gate, too, says `upload.accepted`."""
    found = {event["event"]: event for event in events if event.get("role") != "gate"}
    return found if all(name in found for _title, name in STAGES[1:]) else None


def _bare_sqlite(url: str, batch_id: str) -> float:
    """Seconds for the same columns in a file of their own: `executemany` of ready tuples, one transaction."""
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection:
        (schema,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'messages'").fetchone()
        rows = connection.execute(_OF_BATCH.format("?"), (batch_id,)).fetchall()
    bare = path.with_name("bare.db")
    with closing(sqlite3.connect(bare, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(schema)
        start = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO messages ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
        taken = time.perf_counter() - start
    bare.unlink()
    return taken


def _bare_postgresql(url: str, batch_id: str) -> float:
    """Seconds for the same columns in a table of their own: COPY of ready bytes, one transaction."""
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY ({_OF_BATCH.format('%s')}) TO STDOUT", (batch_id,)) as source:
            data = b"".join(source)
        connection.execute("CREATE TABLE bare (LIKE messages INCLUDING ALL)")
        start = time.perf_counter()
        with cursor.copy(f"COPY bare ({_COLUMNS}) FROM STDIN") as target:
            target.write(data)
        taken = time.perf_counter() - start
        connection.execute("DROP TABLE bare")
    return taken


class _OtherWriter:
    """Somebody who wants to write beside the load, again and again; knows the longest that it took."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sqlite if url.startswith("sqlite") else self._postgresql)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _sqlite(self) -> None:
        """How long until the write lock is ours. SQLite itself would sleep longer and longer between its looks."""
        path = self._url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
            while not self._done.wait(_PAUSE):
                start = time.perf_counter()
                while not self._has_begun(connection):
                    time.sleep(0.0005)
                self.longest = max(self.longest, time.perf_counter() - start)
                connection.execute("ROLLBACK")

    @staticmethod
    def _has_begun(connection: sqlite3.Connection) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True

    def _postgresql(self) -> None:
        """How long a small transaction takes."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._done.wait(_PAUSE):
                start = time.perf_counter()
                connection.execute("INSERT INTO rates VALUES ('bench', 0) ON CONFLICT (id) DO UPDATE SET tat = 0")
                self.longest = max(self.longest, time.perf_counter() - start)


def _table(subject: Subject) -> list[dict[str, Any]]:
    """The stages, then what is said of all of them."""
    table: list[dict[str, Any]] = []
    before = [0.0] * len(subject.rounds)
    for title, event in STAGES:
        ends = [round_.ends[event] for round_ in subject.rounds]
        spans = [end - start for start, end in zip(before, ends, strict=True)]
        table.append({"stage": title, "ms": _ms(spans), "least": round(min(spans) * 1e3), "from CLOSE": _ms(ends)})
        before = ends
    writing = [one.ends["batch.written"] - one.ends["batch.started"] for one in subject.rounds]
    last = subject.rounds[-1]
    table.append({"stage": f"{last.rows:,} messages: a second", "ms": round(last.rows / statistics.median(writing))})
    table.append({"stage": "in commits", "ms": last.commits})
    table.append({"stage": "longest commit", "ms": _ms([one.longest_commit for one in subject.rounds])})
    table.append({"stage": "longest wait of another writer", "ms": _ms([one.longest_wait for one in subject.rounds])})
    bare = [one.least for one in subject.rounds]
    table.append({"stage": "the same rows, ready, in one commit", "ms": _ms(bare), "least": round(min(bare) * 1e3)})
    ratio = statistics.median(took / least for took, least in zip(writing, bare, strict=True))
    table.append({"stage": "ours, × bare", "ms": round(ratio, 2)})
    return table


def _ms(seconds: list[float]) -> int:
    return round(statistics.median(seconds) * 1e3)


def _print(title: str, table: list[dict[str, Any]]) -> None:
    names = list(table[0])
    print(f"\n### {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in table:
        print(f"| {' | '.join(_cell(row.get(name, '')) for name in names)} |")


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    main()
