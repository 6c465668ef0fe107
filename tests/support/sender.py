"""A worker for tests that only sends, by what the environment says: `python -m support.sender`."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dispatch import timers
from dispatch.twilio import Twilio
from postern.cli.compose import run_worker
from postern.logs import set_up_logs
from postern.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
QUEUES = ["otp", "single", "batch", "doubts"]


@contextmanager
def sender(home: Path, database_url: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends until it is told to stop, or killed; its log is `HOME/log`. SIGUSR1 breaks it down."""
    home.mkdir(parents=True, exist_ok=True)
    environ = {
        **os.environ,
        **environment,
        "POSTERN_HOME": str(home),
        "POSTERN_DATABASE_URL": database_url,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    with (home / "log").open("ab") as log:
        command = [sys.executable, "-m", "support.sender"]
        process = subprocess.Popen(command, env=environ, cwd=home, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _main() -> None:
    stop, broken, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, broken.set)

    async def break_down(*_arguments: object) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (stop, broken)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if broken.is_set():
            raise RuntimeError("told to break down")

    timers.keep_asking = break_down  # which has nothing to do for hours
    await run_worker(WorkerSettings.load(), QUEUES, stop)


if __name__ == "__main__":
    Twilio.looks = (0.2, 1.0)
    set_up_logs("worker", "WARNING")
    asyncio.run(_main())
