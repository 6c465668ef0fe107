"""The clerk: does what a sending worker asks of the ledger all the time, in a process of its own.

A thread that waits for a database lets go of the interpreter's lock, and a busy event loop takes it: from then on it
wakes the thread at each of its own requests, mostly in vain. Beside hand-overs, claims and records cost a third of a
worker's time so (docs/benchmarks.md). In a process of their own they disturb nobody.

It is spawned, never forked, and asked over its standard input (`storage.clerk_process`). It ends with its worker.
Should it die alone, nobody knows what was committed of what it was asked, just as when a server goes away; the next
call starts another one.
"""

import asyncio
import contextlib
import contextvars
import itertools
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from typing_extensions import override

from postern import __version__
from postern.errors import PosternError, ProcessEndedError, TransientError
from postern.logs import get_logger
from storage.database import Database

HEADER = struct.Struct("!Q")  # how many bytes follow; they are pickled
READY = ("ready", __version__)  # its first answer
DONE, AWAY, BUG = "done", "away", "bug"  # what comes of a call
OTHER_RELEASE_STATUS = 70  # EX_SOFTWARE of sysexits.h: the supervisor starts a fresh worker
_START = 60.0  # seconds
_LONG = 60.0  # seconds for a call; mostly its database hangs
_PATIENCE = 10.0  # seconds that calls may still take when it is to leave

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)


class ClerkFailedError(PosternError):
    """A function met a bug in the clerk's process; says where, and of what kind."""


class LedgerCalls(Protocol):
    """Whoever calls functions of the ledger for an event loop."""

    async def call(
        self, function: Callable[Concatenate[Database, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Call a function with the database before its arguments; returns what it returns.

        Raises:
            TransientError: the database, or who was to do it, is away; whether it was done is not known.
        """
        ...


class InThread(LedgerCalls):
    """Calls them in a thread of this process, where no loop is busy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @override
    async def call(
        self, function: Callable[Concatenate[Database, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        return await asyncio.to_thread(partial(function, self._database, *arguments, **keywords))


class Clerk(LedgerCalls):
    """Calls them in a process of its own, several at once. A context manager, in the event loop that calls."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._calls: dict[int, asyncio.Future[Any]] = {}  # that are not answered, by number
        self._hearing: asyncio.Task[None] | None = None
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        """Start the process.

        Raises:
            TransientError: it cannot be started.
        """
        await self._running()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Let it answer what it was asked, and end it. There is no other one after it."""
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=_PATIENCE)
        self._is_leaving = True
        process, hearing = self._process, self._hearing
        if process is not None and hearing is not None:
            _close(process)
            await asyncio.wait([hearing], timeout=_PATIENCE)
            _kill(process)
            await hearing

    @property
    def pid(self) -> int | None:
        """The process's, while it runs."""
        return self._process.pid if self._process is not None else None

    @override
    async def call(
        self, function: Callable[Concatenate[Database, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """See `LedgerCalls`.

        The function is one of a module, and what it takes and returns can be pickled.

        Raises:
            ClerkFailedError: it met a bug.
        """
        question = pickle.dumps((function, arguments, keywords), pickle.HIGHEST_PROTOCOL)
        process = self._process or await self._running()
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        self._calls[number] = answer = loop.create_future()
        _send(process, (number, question))
        warning = loop.call_later(_LONG, partial(log.warning, "clerk.slow", call=function.__name__, seconds=_LONG))
        try:
            found: T = await answer
        finally:
            warning.cancel()
        return found

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._is_leaving:
                raise TransientError("The clerk's process has left.")
            if self._process is None:
                self._process = await self._started()
                hearing = self._hear(self._process)
                self._hearing = asyncio.create_task(hearing, context=contextvars.Context())  # no job's
            return self._process

    async def _started(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-P", "-m", "storage.clerk_process", str(os.getpid()))
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, env=_environment(), start_new_session=True
            )
        except OSError as error:  # no process or memory to be had now
            raise TransientError(f"The clerk's process cannot be started: {error.strerror}.") from error
        first = None
        try:
            _send(process, self._url)
            with contextlib.suppress(TimeoutError):
                first = await asyncio.wait_for(_answer_of(process), _START)
        finally:
            if first is None:
                _kill(process)
        if first is None:
            status = await _ended(process)
            raise TransientError(f"The clerk's process ended with status {status} when it was started.")
        if first != READY:  # another release was installed meanwhile: what it is sent, it may read otherwise
            log.critical("clerk.of_another_release", ours=READY[1], clerk=first)
            _kill(process)
            os._exit(OTHER_RELEASE_STATUS)
        if self._is_leaving:  # meanwhile; nobody would end it
            _kill(process)
            await _ended(process)
            raise TransientError("The clerk's process has left.")
        return process

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        try:
            await self._hear_answers(process)
        except Exception as error:  # one that cannot be understood is of no use
            log.exception("clerk.not_understood", exc_info=error)
        finally:
            _kill(process)
            calls, self._calls, self._process = self._calls, {}, None
            for call in calls.values():
                if not call.done():
                    call.set_exception(ProcessEndedError("The clerk's process ended."))
        status = await _ended(process)
        if not self._is_leaving:
            log.error("clerk.ended", status=status, calls=len(calls))

    async def _hear_answers(self, process: asyncio.subprocess.Process) -> None:
        while (answer := await _answer_of(process)) is not None:
            number, what, value = answer
            if not (call := self._calls.pop(number)).done():  # whoever called may wait no more
                _settle(call, what, value)


def _environment() -> dict[str, str]:
    """Ours without Postern's settings, among them secrets: it is told which database."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}


def _send(process: asyncio.subprocess.Process, value: Any) -> None:
    assert process.stdin is not None
    pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    process.stdin.write(HEADER.pack(len(pickled)) + pickled)  # to one that has ended it is lost; `_hear` tells


def _close(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    """Not by its own `kill`, which would take its status away from whoever waits for it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Wait for its end, and for that of its pipes; returns its status."""
    status = await process.wait()
    _close(process)
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        await process.stdin.wait_closed()
    return status


async def _answer_of(process: asyncio.subprocess.Process) -> Any:
    """The next answer; None when there will be no more."""
    assert process.stdout is not None
    try:
        (size,) = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
        return pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 - our own process wrote it
    except asyncio.IncompleteReadError:
        return None


def _settle(call: asyncio.Future[Any], what: str, value: Any) -> None:
    if what == DONE:
        call.set_result(value)
    else:
        call.set_exception(TransientError(value) if what == AWAY else ClerkFailedError(value))
