"""The clerk: does what a sending worker asks of the ledger all the time, in a process of its own.

A thread that waits for a database lets go of the interpreter's lock, and a busy event loop takes it: from then on it
wakes the thread at each of its own requests, mostly in vain. Beside hand-overs, claims and records so took three times
what they take alone (docs/benchmarks.md). In a process of their own they disturb nobody.

It is spawned, never forked, and asked over its standard input (`storage.clerk_process`). It leaves when that ends, so
it does not outlive its worker. Should it die itself, nobody knows what was committed of what it was asked, just as
when a server goes away; the next call starts another one.
"""

import asyncio
import itertools
import os
import pickle
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from typing_extensions import override

from postern.errors import PosternError, TransientError
from postern.logs import get_logger
from storage.database import Database

HEADER = struct.Struct("!Q")  # how many bytes follow; they are pickled
DONE, AWAY, BUG = "done", "away", "bug"  # what comes of a call
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
        self._is_leaving = True
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=_PATIENCE)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._hearing is not None:
            await self._hearing

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
        number = next(self._numbers)
        question = pickle.dumps((number, function, arguments, keywords), pickle.HIGHEST_PROTOCOL)
        process = self._process or await self._running()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        _send(process, question)
        return await answer

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None:
                self._process = await self._started()
                self._hearing = asyncio.create_task(self._hear(self._process))
            return self._process

    async def _started(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-P", "-m", "storage.clerk_process")
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=_environment())
        except OSError as error:  # no process or memory to be had now
            raise TransientError(f"The clerk's process cannot be started: {error.strerror}.") from error
        _send(process, pickle.dumps(self._url))
        if await _answer_of(process) is None:
            raise TransientError(f"The clerk's process ended with status {await process.wait()} when it was started.")
        return process

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        while (answer := await _answer_of(process)) is not None:
            number, what, value = answer
            if not (call := self._calls.pop(number)).done():  # whoever called may wait no more
                _settle(call, what, value)
        status = await process.wait()
        calls, self._calls, self._process = self._calls, {}, None
        if not self._is_leaving:
            log.error("clerk.ended", status=status, calls=len(calls))
        for call in calls.values():
            if not call.done():
                _settle(call, AWAY, f"The clerk's process ended with status {status}.")


def _environment() -> dict[str, str]:
    """Ours without settings and their secrets: it is told which database, and needs nothing else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}


def _send(process: asyncio.subprocess.Process, pickled: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(HEADER.pack(len(pickled)) + pickled)


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
