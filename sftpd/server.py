"""The gate as a process: listens, watches the keyring, and leaves without losing an upload that is under way.

A start clears away what a gate that died left in `incoming/`; a lock keeps a second gate off the same spool,
whose unfinished uploads that would remove. Told to stop, the gate takes no more connections and no more
files, lets the files under way end for a set time, and then ends what is left: such a client sees a broken
connection, never an OK.
"""

import asyncio
import fcntl
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from postern.errors import PosternError
from postern.logs import get_logger
from postern.running import announced
from postern.settings import GateSettings
from sftpd.door import Door
from sftpd.gate import Gate

BACKLOG = 512  # connections that wait to be accepted; the system may allow fewer

_log = get_logger(__name__)


async def serve_gate(settings: GateSettings, stop: asyncio.Event) -> None:
    """Run the gate until `stop` is set.

    Raises:
        PosternError: another gate runs here, or asyncssh is not the one this was written for.
        OSError: the port is taken.
    """
    gate = Gate(settings)
    with _sole_gate(settings.gate_folder):
        _allow_many_files()
        await asyncio.to_thread(gate.prepare)
        async with _listening(gate, settings) as listener, asyncio.TaskGroup() as group:
            watcher = group.create_task(gate.watch())
            port = listener.sockets[0].getsockname()[1]
            _log.info("gate.listening", host=settings.sftp_host, port=port)
            with announced(settings.run_folder, "gate", host=settings.sftp_host, port=port):
                await stop.wait()
                listener.close()
            _log.info("gate.draining")
            await gate.drain()
            watcher.cancel()
    _log.info("gate.stopped")


@asynccontextmanager
async def _listening(gate: Gate, settings: GateSettings) -> AsyncIterator[asyncio.Server]:
    listener = await asyncio.get_running_loop().create_server(
        lambda: Door(proxies=settings.proxy_from, let_in=gate.let_in),
        settings.sftp_host,
        settings.sftp_port,
        backlog=BACKLOG,
    )
    try:
        yield listener
    finally:
        listener.close()
        await listener.wait_closed()


@contextmanager
def _sole_gate(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PosternError(f"Another gate runs on {folder}.") from None


def _allow_many_files() -> None:
    """Each connection and each file takes a descriptor; the soft limit of many systems is 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
