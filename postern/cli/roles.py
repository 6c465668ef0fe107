"""`postern gate | intake | worker | web`: one role in this process, until SIGTERM or SIGINT."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from postern.cli import compose
from postern.cli.output import refusals
from postern.errors import PosternError
from postern.logs import get_logger, set_up_logs
from postern.misspelled import misspelled_settings
from postern.settings import GateSettings, IntakeSettings, Settings, WebSettings, WorkerSettings

LIFELINE = "POSTERN_LIFELINE"  # a file descriptor that ends when the supervisor does
QUEUES = ("files", "workbooks", "otp", "single", "batch", "decisions", "doubts", "notices", "indexes")

S = TypeVar("S", bound=Settings)

log = get_logger(__name__)


def gate() -> None:
    """Run the SFTP gate on this host."""
    _run("gate", GateSettings, compose.run_gate)


def intake() -> None:
    """Run intake: from this host's spool to the ledger, and the gate's keyring."""
    _run("intake", IntakeSettings, compose.run_intake)


def worker(
    queues: Annotated[str, typer.Option(help=f"Take jobs of these queues only: {','.join(QUEUES)}.")] = "",
) -> None:
    """Run a worker: validation, batches, dispatch, mails."""
    names = [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUEUES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(QUEUES)}", param_hint="--queues")
    _run("worker", WorkerSettings, lambda settings, stop: compose.run_worker(settings, names, stop))


def web() -> None:
    """Run the web role: report links, health, metrics."""
    _run("web", WebSettings, compose.run_web)


def _run(role: str, kind: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    with refusals():
        settings = kind.load()
        set_up_logs(role, settings.log_level)
        if LIFELINE not in os.environ:  # else our supervisor has said it
            warn_of_misspelled(settings.home)
        try:
            asyncio.run(_until_told(serve, settings))
        except OSError as error:  # a port that is taken, a folder that cannot be written
            raise PosternError(f"The {role} cannot run: {error.strerror or error}") from error


def warn_of_misspelled(home: Path) -> None:
    """Name the variables that look like settings and that nobody reads."""
    for found in misspelled_settings(home):
        log.warning("settings.unknown", name=found.name, nearest=found.nearest, problem=str(found))


async def _until_told(serve: Callable[[S, asyncio.Event], Awaitable[None]], settings: S) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline = os.environ.get(LIFELINE)
    if lifeline is not None:
        # The supervisor holds the other end: when it is gone, however that came about, there is something to
        # read (the end), and this role leaves in order instead of running on unsupervised.
        loop.add_reader(int(lifeline), _supervisor_gone, loop, int(lifeline), stop)
    await serve(settings, stop)


def _supervisor_gone(loop: asyncio.AbstractEventLoop, lifeline: int, stop: asyncio.Event) -> None:
    loop.remove_reader(lifeline)
    stop.set()
