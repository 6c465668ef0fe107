"""A Postern that dies at a step: the gate's acceptance, intake, worker and web in one process, composed as ever.

Started as `python -m support.mortal HOME`; settings come from the environment as ever. It takes orders from files
`HOME/orders/<number>.json`: accept a file as the gate does on an orderly close, and die at a step of what follows.
Steps are found, not listed: every commit that writes (before it and after it, named by the tables), every file that
is renamed or removed under the spool and the blobs, every call of a validating process and of the clerk. It notes each
step that it comes to in `HOME/steps`, and each accepted file in `HOME/answered`, in single writes that a kill cannot
tear.

Only here are parts of the product replaced: smaller commits and chunks, so that a small file takes several.
"""

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

import pipeline.batches
import storage.ledger.batches
import storage.ledger.cancelling
import storage.ledger.message_index
import storage.ledger.retry_slices
from dispatch.twilio import Twilio
from pipeline.watched import WatchedProcess
from postern.cli import compose
from postern.logs import set_up_logs
from postern.model import IdKind, new_id
from postern.settings import ServeSettings
from postern.times import iso, utc_now
from storage.clerk import Clerk
from storage.spool import Spool
from storage.spool_records import Sidecar

SMALL = 20  # rows of a commit, and messages of a chunk
_WRITES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+(?:\"?\w+\"?\.)?\"?(\w+)", re.IGNORECASE)
_COPIES = re.compile(r"\s*COPY\s+\"?(\w+)")
_MARKS = {"insert into": "+", "update": "~", "delete from": "-"}
_NOISE = {"keys~", "rates+", "queues+", "queues~", "application_versions+", "application_versions~"}
_ID = re.compile(r"[a-z-]+_[0-9a-f]{8}-[0-9a-f-]{27}|\.upload_[0-9a-f-]+|\d{4}-\d\d-\d\dT[^/]*")


class Steps:
    """The steps that this process comes to, and the one that it dies at."""

    def __init__(self, home: Path) -> None:
        self._home = str(home)
        self._journal = os.open(home / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._seen: Counter[str] = Counter()
        self._last: tuple[str, int] | None = None
        self._always = os.environ.get("MORTAL_ALWAYS", "")  # a step that it dies at, whenever it comes there
        self._is_on = False
        self._lock = threading.RLock()
        self._writes: dict[int, set[str]] = {}

    def begin(self, last: tuple[str, int] | None) -> None:
        """Count from here, and die at the step of that name when it comes for that time."""
        with self._lock:
            self._seen.clear()
            self._last, self._is_on = last, True

    def reach(self, name: str) -> None:
        """Come to a step."""
        with self._lock:
            if not self._is_on and not self._always:
                return
            self._seen[name] += 1
            os.write(self._journal, f"{name}\n".encode())
            if name == self._always or self._last == (name, self._seen[name]):
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Find the steps."""
        self._watch_commits()
        self._watch_children()
        self._watch_clerk()
        sys.addaudithook(self._on_audit)

    def _watch_commits(self) -> None:
        commit = DefaultDialect.do_commit

        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def note(_conn: Any, cursor: Any, statement: str, *_rest: Any) -> None:
            match = _WRITES.match(statement)
            if match:
                mark = f"{match[2].lower()}{_MARKS[match[1].lower()]}"
                self._writes.setdefault(id(cursor.connection), set()).add(mark)

        copy = psycopg.Cursor.copy

        def noted_copy(cursor: Any, statement: Any, *rest: Any, **options: Any) -> Any:
            match = _COPIES.match(str(statement))
            if match:
                self._writes.setdefault(id(cursor.connection), set()).add(f"{match[1]}+")
            return copy(cursor, statement, *rest, **options)

        psycopg.Cursor.copy = noted_copy  # type: ignore[method-assign]

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            raw = getattr(connection, "dbapi_connection", connection)
            marks = self._writes.pop(id(raw), set()) - _NOISE
            name = " ".join(sorted(marks))
            if name:
                self.reach(f"before commit of {name}")
            commit(dialect, connection)
            if name:
                self.reach(f"after commit of {name}")

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

    def _watch_children(self) -> None:
        ask = WatchedProcess.ask

        def watched(process: WatchedProcess, request: Any) -> Any:
            what = "workbook" if "workbook" in request else "verdict"
            self.reach(f"before the {what} is made")
            answer = ask(process, request)
            self.reach(f"after the {what} is made")
            return answer

        WatchedProcess.ask = watched  # type: ignore[method-assign]

    def _watch_clerk(self) -> None:
        call = Clerk.call

        async def watched(clerk: Clerk, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
            what = function.__name__
            self.reach(f"before the clerk's {what}")
            answer = asyncio.create_task(call(clerk, function, *arguments, **keywords))
            await asyncio.sleep(0.003)
            self.reach(f"amid the clerk's {what}")  # which is committed, or is not
            found = await answer
            self.reach(f"after the clerk's {what}")
            return found

        Clerk.call = watched  # type: ignore[method-assign,assignment]

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.remove", "shutil.rmtree"}:
            path = str(arguments[1] if event == "os.rename" else arguments[0])
            for folder in ("spool", "blobs"):
                start = f"{self._home}/{folder}/"
                if path.startswith(start) and "keyring" not in path:
                    self.reach(f"before {event.rpartition('.')[2]} of {folder}/{_ID.sub('*', path[len(start) :])}")


class Gate:
    """Accepts files as the gate does: when it has noted the answer, the upload must never be lost."""

    def __init__(self, home: Path, steps: Steps) -> None:
        self._orders = home / "orders"
        self._answered = os.open(home / "answered", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._spool = Spool(home / "spool")
        self._steps = steps

    async def serve(self, stop: asyncio.Event) -> None:
        """Carry orders out until told to stop."""
        while not stop.is_set():
            for order in sorted(self._orders.glob("*.json")):
                wanted = json.loads(order.read_text())
                order.unlink()
                last = wanted["last"]
                self._steps.begin(tuple(last) if last else None)
                await asyncio.to_thread(self._accept, wanted)
            await asyncio.sleep(0.02)

    def _accept(self, wanted: dict[str, Any]) -> None:
        data = wanted["content"].encode()
        upload_id = new_id(IdKind.UPLOAD)
        path = self._spool.begin(upload_id)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._steps.reach("accept: the bytes are on disk")
        self._spool.accept(
            Sidecar(
                upload_id=upload_id,
                file_name=wanted["name"],
                size=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                peer="192.0.2.1",
                received_at=str(iso(utc_now(), ServeSettings().timezone)),
                **wanted["key"],
            )
        )
        self._steps.reach("accept: before the answer")
        os.write(self._answered, f"{wanted['name']}\n".encode())
        self._steps.reach("accept: after the answer")


async def serve(home: Path) -> None:
    """All of it, until SIGTERM."""
    settings = ServeSettings.load()
    set_up_logs("mortal", "INFO")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    steps = Steps(home)
    steps.watch()
    Spool(home / "spool").prepare()
    Spool(home / "spool").sweep()
    await asyncio.gather(
        compose.run_intake(settings, stop),
        compose.run_worker(settings, [], stop),
        compose.run_web(settings, stop),
        Gate(home, steps).serve(stop),
    )


def make_small() -> None:
    """Let a small file take several commits and several chunks."""
    pipeline.batches.ROWS_A_COMMIT = SMALL  # type: ignore[attr-defined]
    storage.ledger.message_index._IDS_A_COMMIT = 2 * SMALL  # type: ignore[attr-defined]
    storage.ledger.batches._LARGEST_CHUNK = SMALL
    storage.ledger.cancelling._SPAN = SMALL
    storage.ledger.retry_slices._SLICE = SMALL
    Twilio.looks = (0.2, 1.0)


if __name__ == "__main__":
    make_small()
    asyncio.run(serve(Path(sys.argv[1])))
