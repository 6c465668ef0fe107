"""A worker for tests: the real engine and the real take-over, with jobs that do what their argument says.

Started as `python -m support.worker HOME DATABASE_URL`; the test side is `Worker`. Every start and end of a job is a
line in `HOME/journal`. Commands are `note`, `die` (SIGKILL to itself), `wait` (until the file `HOME/go` is there),
`hang` (pauses for ever, as a job does whose mail server is away), `spin` (asks without a pause),
`work` (never pauses), `raise`, `later` (leaves its work undone).
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from support.waiting import PATIENCE, until

from postern.cli import compose
from postern.errors import PosternError
from postern.settings import WorkerSettings
from storage.database import Database
from storage.engine import pause, persistently
from storage.jobs import PROCESS_UPLOAD, SEND_CHUNK, SEND_NOTICE, Queue

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A worker process under a home of its own or a shared one."""

    def __init__(self, home: Path, database_url: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        command = [sys.executable, "-m", "support.worker", str(home), database_url]
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        with (home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=ROOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition, for a bounded time, while the worker lives."""
        until(lambda: condition() or self.process.poll() is not None, f"{what}\n{log_of(self.home)}", patience)
        assert condition(), f"the worker ended with status {self.process.poll()}:\n{log_of(self.home)}"

    def until_ready(self) -> None:
        """Wait until it takes jobs."""
        self.until((self.home / f"ready-{self.process.pid}").exists, "the worker to be ready")

    def stop(self) -> int:
        """Tell it to stop, and wait; returns its exit status."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(PATIENCE)


def journal(home: Path) -> list[str]:
    """What jobs did under a home, in order."""
    path = home / "journal"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def log_of(home: Path) -> str:
    """What workers under a home said."""
    return (home / "log").read_text(errors="replace")


class Jobs:
    """What the jobs of this worker do."""

    def __init__(self, home: Path) -> None:
        self._home = home

    async def run(self, name: str, command: str) -> bool:
        """One job."""
        self.note(f"{name} starts")
        try:
            await self._do(command)
        except asyncio.CancelledError:
            self.note(f"{name} stops")
            raise
        self.note(f"{name} ends")
        return command != "later"

    def note(self, line: str) -> None:
        """Add a line to the journal."""
        with (self._home / "journal").open("a") as file:
            file.write(f"{line}\n")

    async def _do(self, command: str) -> None:
        await {
            "note": self._go_on,
            "later": self._go_on,
            "die": self._die,
            "wait": self._wait,
            "hang": self._hang,
            "spin": self._spin,
            "work": self._work,
            "raise": self._raise,
        }[command]()

    async def _go_on(self) -> None:
        await asyncio.sleep(0)

    async def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def _wait(self) -> None:
        while not (self._home / "go").exists():
            await persistently(time.sleep, 0.01)

    async def _hang(self) -> None:
        await pause(3600)

    async def _spin(self) -> None:
        while True:
            await pause(0)

    async def _work(self) -> None:
        while True:
            await persistently(time.sleep, 0.05)

    async def _raise(self) -> None:
        raise ValueError("a bug")


async def serve(home: Path, database_url: str) -> None:
    """Take jobs until SIGTERM, put together as `postern worker` is."""
    settings = WorkerSettings(home=home, database_url=database_url, drain_timeout=3)
    database, jobs, stop = Database(settings.database), Jobs(home), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def process_upload(name: str, command: str) -> bool:
        return await jobs.run(name, command)

    async def send_chunk(name: str, command: str, _last_row: int) -> None:
        await jobs.run(name, command)

    async def send_notice(name: str, command: str) -> None:
        await jobs.run(name, command)

    async with compose._engine(settings, database) as engine:
        engine.register(PROCESS_UPLOAD, process_upload)
        engine.register(SEND_CHUNK, send_chunk)
        engine.register(SEND_NOTICE, send_notice)
        await engine.launch(list(Queue))
        (home / f"ready-{os.getpid()}").touch()
        await stop.wait()
        await engine.stop(settings.drain_timeout)
        jobs.note("worker stopped")


if __name__ == "__main__":
    try:
        asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
    except PosternError as error:
        sys.exit(str(error))
