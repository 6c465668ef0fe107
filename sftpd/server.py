"""The gate as a process: listens, watches the keyring, and leaves without losing an upload that is under way.

A start clears away what a gate that died left in `incoming/`; a lock keeps a second gate off the same spool,
whose unfinished uploads that would remove. Told to stop, the gate takes no more connections and no more
files, lets the files under way end for a set time, and then ends what is left: such a client sees a broken
connection, never an OK.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path

import asyncssh

from postern.errors import PosternError
from postern.logs import get_logger
from postern.running import announced
from postern.settings import GateSettings
from postern.times import utc_now
from sftpd.access import Access
from sftpd.algorithms import algorithm_options
from sftpd.connections import Connection
from sftpd.hostkeys import load_host_keys
from sftpd.paths import NameRules
from sftpd.records import Client, login_event
from sftpd.seams import check_seams, host_key_pairs
from sftpd.session_uploads import Terms
from storage.spool import Event, Spool

KEYRING = "keyring.json"
HOST_KEYS = "host_keys"

LOOK_EVERY = 0.3  # seconds between looks at the keyring and at the connections
KEEPALIVE = 30.0  # seconds of silence before a client is asked; after three without an answer it is gone
GOODBYE = 2.0  # seconds for clients that have their OK to close their session, scp's exit status included
CLEAR_UP = 10.0  # seconds for ended sessions to remove their files

_log = get_logger(__name__)


class Gate:
    """What all connections of a gate share, and the list of them."""

    def __init__(self, settings: GateSettings, clock: Callable[[], datetime] = utc_now) -> None:
        self._settings = settings
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.access = Access(settings.gate_folder / KEYRING)
        self.terms = Terms(
            spool=Spool(settings.spool_folder),
            names=NameRules(settings.temporary_suffixes),
            max_file_size=settings.max_file_size,
            zone=settings.timezone,
            clock=clock,
        )

    def prepare(self) -> list[asyncssh.SSHKeyPair]:
        """Make folders and host keys, clear away leftovers, read the keyring. Slow: not for the event loop."""
        check_seams()
        self.terms.spool.prepare()
        swept = self.terms.spool.sweep()
        if swept:
            _log.warning("spool.swept", leftovers=swept)
        self.access.refresh()
        return host_key_pairs(load_host_keys(self._settings.gate_folder / HOST_KEYS))

    async def watch(self) -> None:
        """Keep the keys true and end the connections whose key or time has run out."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.to_thread(self.access.refresh)
            now = self.terms.clock()
            for connection in list(self._connections):
                connection.check(now=now, idle_timeout=self._settings.idle_timeout)

    async def drain(self) -> None:
        """Let the files under way end, then end everything."""
        self._is_stopping = True
        deadline = time.monotonic() + self._settings.drain_timeout
        await _until(lambda: not any(each.in_flight for each in self._connections), deadline)
        await _until(
            lambda: not any(each.is_serving for each in self._connections),
            min(deadline, time.monotonic() + GOODBYE),
        )
        for connection in list(self._connections):
            connection.end("stopping", "The gate is being restarted.")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEAR_UP)

    # What connections ask of it

    def is_stopping(self) -> bool:
        return self._is_stopping

    def enter(self, connection: Connection) -> None:
        self._connections.add(connection)

    def leave(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def log_in(self, client: Client) -> None:
        event = login_event(client, at=self.terms.clock(), zone=self.terms.zone)
        _log.info(
            "login.accepted",
            campaign_id=client.campaign_id,
            enrolment_id=client.enrolment_id,
            fingerprint=client.key_fingerprint,
            peer=client.peer,
        )
        self.keep(asyncio.create_task(self._tell(event)))

    def keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, event: Event) -> None:
        try:
            await asyncio.to_thread(self.terms.spool.tell, event)
        except OSError as error:
            _log.error("event.lost", kind=event.kind, event_id=event.event_id, errno=error.errno)


async def serve_gate(settings: GateSettings, stop: asyncio.Event) -> None:
    """Run the gate until `stop` is set.

    Raises:
        PosternError: another gate runs here, or asyncssh is not the one this was written for.
        OSError: the port is taken.
    """
    gate = Gate(settings)
    with _sole_gate(settings.gate_folder):
        pairs = await asyncio.to_thread(gate.prepare)
        async with _listening(gate, settings, pairs) as listener, asyncio.TaskGroup() as group:
            watcher = group.create_task(gate.watch())
            port = listener.get_port()
            _log.info("gate.listening", host=settings.sftp_host, port=port)
            with announced(settings.run_folder, "gate", host=settings.sftp_host, port=port):
                await stop.wait()
                listener.close()
            _log.info("gate.draining")
            await gate.drain()
            watcher.cancel()
    _log.info("gate.stopped")


@asynccontextmanager
async def _listening(
    gate: Gate, settings: GateSettings, pairs: list[asyncssh.SSHKeyPair]
) -> AsyncIterator[asyncssh.SSHAcceptor]:
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: Connection(gate),
        server_host_keys=pairs,
        server_version="Postern",
        login_timeout=settings.login_timeout,
        keepalive_interval=KEEPALIVE,
        **_only_sftp(),
        **algorithm_options(),
    )
    listener = await asyncssh.listen(settings.sftp_host, settings.sftp_port, options=options, config=None)
    try:
        yield listener
    finally:
        listener.close()
        await listener.wait_closed()


def _only_sftp() -> dict[str, object]:
    """A public key and SFTP: everything else that asyncssh offers is off."""
    return {
        "config": None,  # no sshd_config of the machine
        "public_key_auth": True,
        "password_auth": False,
        "kbdint_auth": False,
        "host_based_auth": False,
        "gss_host": None,
        "x509_trusted_certs": None,
        "allow_pty": False,
        "agent_forwarding": False,
        "x11_forwarding": False,
        "line_editor": False,
        "encoding": None,
    }


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


async def _until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - many conditions, and only at the end
        await asyncio.sleep(0.02)
