"""The gate as a process: listens, watches the keyring, and leaves without losing an upload that is under way.

A start clears away what a gate that died left in `incoming/`; a lock keeps a second gate off the same spool,
whose unfinished uploads that would remove. Told to stop, the gate takes no more connections and no more
files, lets the files under way end for a set time, and then ends what is left: such a client sees a broken
connection, never an OK.

Several processes may be one gate (`postern/cli/gates.py`). They share the listening socket and the lock, which is
free only when the last of them is gone; each has a number, a lock and a folder of unfinished uploads of its own.
"""

import asyncio
import fcntl
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from postern.errors import PosternError
from postern.logs import get_logger
from postern.running import announced
from postern.settings import GateSettings
from sftpd.door import Door
from sftpd.gate import Gate
from sftpd.hostkeys import make_host_keys
from sftpd.members import MemberSpool, member_name
from sftpd.sockets import BACKLOG, address_of, open_listeners
from storage.spool import Spool

_log = get_logger(__name__)


async def serve_gate(settings: GateSettings, stop: asyncio.Event) -> None:
    """Run the gate in this process alone until `stop` is set.

    Raises:
        PosternError: another gate runs here, the port is taken, or asyncssh is not the one this was written for.
    """
    with sole_gate(settings.gate_folder):
        gate = Gate(settings, Spool(settings.spool_folder))
        await asyncio.to_thread(gate.prepare)
        with gate.metrics.served(settings.gate_metrics_port):
            await _serve(gate, open_listeners(settings), stop, name="gate", at_once=BACKLOG)
    _log.info("gate.stopped")


async def serve_member(
    settings: GateSettings, number: int, listeners: Sequence[socket.socket], stop: asyncio.Event
) -> None:
    """Run one process of a gate that has several, until `stop` is set. It closes the sockets.

    Raises:
        PosternError: as `serve_gate`, or that process of the gate is running.
    """
    structlog.contextvars.bind_contextvars(process=number)
    name = member_name(number)
    with _locked(settings.gate_folder / f"lock.{name}", f"Process {number} of the gate runs already."):
        gate = Gate(settings, MemberSpool(settings.spool_folder, number))
        await asyncio.to_thread(gate.prepare)
        port = settings.gate_metrics_port and settings.gate_metrics_port + number - 1
        with gate.metrics.served(port):
            # One connection a turn: else the first to wake up would take all that wait.
            await _serve(gate, listeners, stop, name=name, at_once=1)
    _log.info("gate.stopped")


@contextmanager
def sole_gate(folder: Path) -> Iterator[int]:
    """Hold the lock that keeps other gates away from this home.

    Whoever inherits the descriptor that this gives holds the lock, too: it is free when all of them are gone.

    Raises:
        PosternError: another gate, or a process of one, is still there.
    """
    with _locked(folder / "lock", f"Another gate runs on {folder}.") as descriptor:
        yield descriptor


def prepare_home(settings: GateSettings) -> None:
    """Clear away all leftovers and make the host keys, for several processes. Needs the lock; slow."""
    spool = Spool(settings.spool_folder)
    spool.prepare()
    swept = spool.sweep()
    if swept:
        _log.warning("spool.swept", leftovers=swept)
    make_host_keys(settings.host_key_folder)


async def _serve(
    gate: Gate, listeners: Sequence[socket.socket], stop: asyncio.Event, *, name: str, at_once: int
) -> None:
    _allow_many_files()
    settings = gate.settings
    host, port = address_of(listeners)
    async with asyncio.TaskGroup() as group, _listening(gate, settings, listeners, at_once) as stop_listening:
        watcher = group.create_task(gate.watch())
        _log.info("gate.listening", host=host, port=port)
        with announced(settings.run_folder, name, host=host, port=port):
            await stop.wait()
            stop_listening()
        _log.info("gate.draining")
        await gate.drain()
        watcher.cancel()


@asynccontextmanager
async def _listening(
    gate: Gate, settings: GateSettings, listeners: Sequence[socket.socket], at_once: int
) -> AsyncIterator[Callable[[], None]]:
    """Take connections, so many at a time, until the block ends or what it gives is called."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []

    def stop_listening() -> None:
        for server in servers:
            server.close()

    try:
        for listener in listeners:
            servers.append(
                await loop.create_server(
                    lambda: Door(proxies=settings.proxy_from, let_in=gate.let_in), sock=listener, backlog=at_once
                )
            )
            listener.listen(BACKLOG)  # asyncio takes the number at a time for the system's queue, too
        yield stop_listening
    finally:
        stop_listening()
        for server in servers:
            await server.wait_closed()


@contextmanager
def _locked(path: Path, otherwise: str) -> Iterator[int]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PosternError(otherwise) from None
        yield descriptor
    finally:
        os.close(descriptor)


def _allow_many_files() -> None:
    """Each connection and each file takes a descriptor; the soft limit of many systems is 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
