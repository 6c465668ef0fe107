"""Everything that the gate takes from inside asyncssh, each with its reason, and a check that it is still there.

asyncssh is pinned to 2.24.x for the sake of this module; no other module of the gate touches a private name
of it. The gate starts only where `check_seams` passes.
"""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import asyncssh
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import FXP_WRITE
from asyncssh.kex import get_kex_algs
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.sftp import SFTPServerHandler
from asyncssh.stream import SSHServerStreamSession
from typing_extensions import override

from postern.errors import PosternError
from sftpd.operations import EXTENSIONS, LIMITS, OPERATIONS, Operation

GarbledPacketError = PacketDecodeError  # what a request that cannot be parsed raises; it has no public name

# What OpenSSH's own server answers to limits@openssh.com (its PROTOCOL, 4.8). Fewer, larger writes are faster.
MAX_PACKET = 256 * 1024
MAX_WRITE = MAX_PACKET - 1024
MAX_HANDLES = 64

# What a client may send ahead of what was read; more makes nothing faster, and each session may fill it.
WINDOW = 1024 * 1024
TURN = 0.002  # seconds that a session's requests are served before others get a turn
MAX_UNREAD = 64 * 1024  # bytes of answers that a client has left unread before it is listened to again

_RSA = b"ssh-rsa"
_RSA_HOST_ALGORITHMS = (b"rsa-sha2-512", b"rsa-sha2-256")
_SHA1_SIGNATURES = frozenset({b"ssh-rsa", b"rsa1024-sha1"})

Result = TypeVar("Result")
Process: TypeAlias = Callable[["GateHandler", SSHPacket], Awaitable[object]]


class SeamError(PosternError):
    """The installed asyncssh is not the one that the gate was written for."""


class Service(Protocol):
    """What serves a session: the methods that `OPERATIONS` names, and these."""

    async def perform(self, operation: Operation, serve: Callable[[], Awaitable[Result]]) -> Result:
        """Judge one request, carry it out with `serve`, and map what goes wrong to a status."""

    def session_ends(self) -> None:
        """Hear that from now on files are closed by the teardown, not by the client."""


def _guarded(operation: Operation, process: Process) -> Process:
    @wraps(process)  # asyncssh names an operation by its function
    async def guarded(handler: "GateHandler", packet: SSHPacket) -> object:
        return await handler.service.perform(operation, lambda: process(handler, packet))

    return guarded


class GateHandler(SFTPServerHandler):
    """asyncssh's reader of SFTP requests, with our table instead of its own.

    Subclassed because no public hook sees every request before it is served, or tells a client's CLOSE from
    the teardown that closes what is left open: `_cleanup` runs before each teardown, and only then.
    """

    def __init__(
        self, service: Service, reader: "asyncssh.SSHReader[bytes]", writer: "asyncssh.SSHWriter[bytes]"
    ) -> None:
        # The service has no base class: asyncssh.SFTPServer's methods work on the real file system.
        super().__init__(cast(asyncssh.SFTPServer, service), reader, writer, asyncssh.sftp.MIN_SFTP_VERSION)
        self.service = service
        self._is_torn_down = False
        self._turn_began = time.monotonic()

    @override
    async def run(self) -> None:
        """Serve to the end, and clear up whatever the end was: asyncssh does so after some exceptions only."""
        try:
            with suppress(EOFError):  # gone before its first packet: asyncssh would call that an internal error
                await super().run()
        finally:
            if not self._is_torn_down:
                await self._cleanup(None)

    @override
    async def _cleanup(self, exc: Exception | None) -> None:
        self._is_torn_down = True
        self.service.session_ends()
        await super()._cleanup(exc)

    @override
    async def recv_packet(self) -> SSHPacket:
        """Read a request, once the client has taken the answers to earlier ones.

        It may be as large as OpenSSH's server takes; asyncssh takes 4 MiB, and many sessions could each hold one.
        A client can send thousands of requests ahead, which asyncssh would serve without a look at anybody else.
        """
        if time.monotonic() - self._turn_began > TURN:
            await asyncio.sleep(0)
            self._turn_began = time.monotonic()
        if self._reader is None or self._writer is None:
            raise EOFError
        if self._writer.channel.get_write_buffer_size() > MAX_UNREAD:
            await self._writer.drain()
        length = int.from_bytes(await self._reader.readexactly(4), "big")
        if length > MAX_PACKET:
            raise asyncssh.SFTPBadMessage("Too large a request")
        return SSHPacket(await self._reader.readexactly(length))

    @override
    def _get_next_handle(self) -> bytes:
        if len(self._dir_handles) >= MAX_HANDLES:
            raise asyncssh.SFTPFailure("Too many open folders.")
        return super()._get_next_handle()

    async def _process_gate_write(self, packet: SSHPacket) -> int:
        """Read a WRITE as OpenSSH's server does: what stands behind its data is ignored.

        rclone before 1.63 sends the rest of a buffer there after it has read less than a block.
        """
        handle, offset, data = packet.get_string(), packet.get_uint64(), packet.get_string()
        file = self._file_handles.get(handle)
        if file is None:
            raise asyncssh.SFTPInvalidHandle("Invalid file handle")
        return cast(int, self._server.write(file, offset, data))

    async def _process_gate_limits(self, packet: SSHPacket) -> asyncssh.SFTPLimits:
        packet.check_end()
        return asyncssh.SFTPLimits(MAX_PACKET, MAX_WRITE, MAX_WRITE, MAX_HANDLES)


def _table() -> dict[int | bytes, Any]:
    theirs: dict[int | bytes, Any] = {**SFTPServerHandler._packet_handlers}  # noqa: SLF001
    theirs[FXP_WRITE] = GateHandler._process_gate_write  # noqa: SLF001
    theirs[LIMITS] = GateHandler._process_gate_limits  # noqa: SLF001
    return {key: _guarded(operation, theirs[key]) for key, operation in OPERATIONS.items() if key in theirs}


GateHandler._packet_handlers = _table()  # noqa: SLF001
GateHandler._extensions = list(EXTENSIONS)  # noqa: SLF001


class SftpSession(SSHServerStreamSession[bytes]):
    """A session that runs the SFTP subsystem and nothing else: no shell, no command, no terminal.

    Subclassed because `sftp_factory=` bypasses `session_requested`, where sessions are limited, and keeps the
    task that serves the session to itself: the gate has to wait for it before it leaves.
    """

    def __init__(
        self,
        *,
        serve: "Callable[[asyncssh.SSHServerChannel[bytes]], Service]",
        on_task: "Callable[[asyncio.Task[None]], None]",
        on_data: Callable[[int], None],
        on_end: "Callable[[SftpSession], None]",
    ) -> None:
        super().__init__(None)
        self._serve = serve
        self._on_task = on_task
        self._on_data = on_data
        self._on_end = on_end

    @override
    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    @override
    def exception_received(self, exc: Exception) -> None:
        """Signals, breaks and terminal sizes mean nothing here; asyncssh would end the connection with a fault."""

    @override
    def session_started(self) -> None:
        channel = cast("asyncssh.SSHServerChannel[bytes]", self._chan)
        handler = GateHandler(
            self._serve(channel), asyncssh.SSHReader(self, channel), asyncssh.SSHWriter(self, channel)
        )
        self._on_task(channel.get_connection().create_task(handler.run(), channel.logger))

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._on_data(len(data))
        super().data_received(data, datatype)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_end(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """The host keys that a listener uses, and those that it announces: these, and the ones that come next."""

    used: Sequence[asyncssh.SSHKeyPair]
    announced: Sequence[asyncssh.SSHKeyPair]


def host_key_pairs(keys: Sequence[asyncssh.SSHKey]) -> list[asyncssh.SSHKeyPair]:
    """Host keys for the listener, without the SHA-1 signatures that asyncssh offers for RSA.

    Each RSA algorithm gets a pair of its own: asyncssh notes the negotiated algorithm in the pair, which all
    connections share, so that two handshakes at once could sign with each other's.
    """
    pairs: list[asyncssh.SSHKeyPair] = []
    for key in keys:
        algorithms = _RSA_HOST_ALGORITHMS if key.algorithm == _RSA else (key.algorithm,)
        for algorithm in algorithms:
            (pair,) = asyncssh.load_keypairs([key])
            pair.host_key_algorithms = (algorithm,)
            pair.set_sig_algorithm(algorithm)
            pairs.append(pair)
    return pairs


class GateConnection(SSHServerConnection):
    """asyncssh's connection, with what no option of it says.

    Made by the gate itself, not by `asyncssh.listen`, so that a connection that is turned away costs none of it.
    """

    def __init__(
        self, options: asyncssh.SSHServerConnectionOptions, keys: HostKeys, *, address: str, most_failures: int
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.set_extra_info(address=address)
        self._keys = keys
        self._most_failures = most_failures
        self.failures = 0  # tries to log in; the first one is every client's opening `none`

    @override
    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take bytes, and tell the kernel to acknowledge them at once.

        libssh, Node's ssh2 and others wait for the answer to each block, and hold back its last segment until what
        they sent before is acknowledged (Nagle, RFC 896). Linux delays that by 40 ms, and forgets this option again.
        """
        self._acknowledge()
        super().data_received(data, datatype)

    def _acknowledge(self) -> None:
        connected = self._transport and self._transport.get_extra_info("socket")
        if connected and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    @override
    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        """Choose what to sign with, also where keys are announced and the client asks for a proof.

        asyncssh would do that with any of RSA's algorithms; OpenSSH's client takes only the one that it
        negotiated, if that was one of RSA's.
        """
        if not super().choose_server_host_key(peer_host_key_algs):
            return False
        assert self._server_host_key is not None
        (chosen,) = self._server_host_key.host_key_algorithms
        other = _RSA_HOST_ALGORITHMS[chosen == _RSA_HOST_ALGORITHMS[0]]
        self._all_server_host_keys = OrderedDict(
            (pair.public_data, pair) for pair in self._keys.announced if other not in pair.host_key_algorithms
        )
        return True

    @override
    def send_userauth_failure(self, partial_success: bool) -> None:
        """Disconnect a client that has failed too often.

        Every failed try of any kind is answered here; no public hook sees those with methods that are switched off.
        """
        self.failures += 1
        if self.failures > self._most_failures:
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
        else:
            super().send_userauth_failure(partial_success)

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read them. asyncssh takes no notice of a connection that is full."""
        waiting = sum(len(part) for _type, parts in self._deferred_packets for part in parts)
        return waiting + (self._transport.get_write_buffer_size() if self._transport else 0)


def bare_channel(connection: SSHServerConnection) -> "asyncssh.SSHServerChannel[bytes]":
    """A channel for SFTP. It takes no environment: asyncssh would keep all that a client sends."""
    channel = connection.create_server_channel(encoding=None, window=WINDOW)
    vars(channel)["_process_env_request"] = lambda _packet: False
    return channel


def forbid_sha1(key: asyncssh.SSHKey) -> None:
    """Make a client's key refuse SHA-1 signatures: `signature_algs` limits only what is announced."""
    key.all_sig_algorithms = set(key.all_sig_algorithms) - _SHA1_SIGNATURES


def available_key_exchanges(wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that this installation has: post-quantum ones depend on the cryptography library."""
    available = {name.decode("ascii") for name in get_kex_algs()}
    return [name for name in wanted if name in available]


def check_seams() -> None:
    """Make sure that asyncssh still is what the gate was written against.

    Raises:
        SeamError: it is not; says what is missing.
    """
    owners: Mapping[str, object] = {
        "_cleanup": SFTPServerHandler,
        "_get_next_handle": SFTPServerHandler,
        "_extensions": SFTPServerHandler,
        "recv_packet": SFTPServerHandler,
        "choose_server_host_key": SSHServerConnection,
        "send_userauth_failure": SSHServerConnection,
        "_process_hostkeys_prove_00_at_openssh_dot_com_global_request": SSHServerConnection,
        "session_started": SSHServerStreamSession,
        "_process_env_request": asyncssh.SSHServerChannel,
        "all_sig_algorithms": asyncssh.SSHKey,
    }
    for name, owner in owners.items():
        if not hasattr(owner, name):
            raise SeamError(f"asyncssh {asyncssh.__version__} has no {name}; install asyncssh~=2.24.1")
    missing = OPERATIONS.keys() - GateHandler._packet_handlers.keys()  # noqa: SLF001
    if missing:
        raise SeamError(f"asyncssh {asyncssh.__version__} does not know the operations {missing}")
    _rehearse_ending()
    asyncio.run(_rehearse_connection())


class _Rehearsal:
    """Stands in for a service, to see in which order a teardown calls it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def perform(self, operation: Operation, serve: Callable[[], Awaitable[Result]]) -> Result:
        self.calls.append(operation.name)
        return await serve()

    def session_ends(self) -> None:
        self.calls.append("session_ends")

    def close(self, _file: object) -> None:
        self.calls.append("close")

    def exit(self) -> None:
        self.calls.append("exit")


def _rehearse_ending() -> None:
    """Tear down a session with one open file: were the order another, a lost connection could accept a file."""
    quiet = SimpleNamespace(info=lambda *_words: None)
    quiet.get_child = lambda _name: quiet
    service = _Rehearsal()
    handler = GateHandler(
        service, cast(Any, SimpleNamespace(logger=quiet)), cast(Any, SimpleNamespace(close=lambda: None))
    )
    handler._file_handles[b"1"] = object()  # noqa: SLF001
    _run_at_once(handler._cleanup(None))  # noqa: SLF001
    if service.calls != ["session_ends", "close", "exit"]:
        raise SeamError(f"asyncssh {asyncssh.__version__} ends a session in another order: {service.calls}")


def _run_at_once(work: Coroutine[Any, Any, None]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise SeamError(f"asyncssh {asyncssh.__version__} waits while it ends a session")


async def _rehearse_connection() -> None:
    """Make a connection that nobody is at: what is read and set in one has to be there."""
    keys = host_key_pairs([asyncssh.generate_private_key("ssh-ed25519")])
    options = asyncssh.SSHServerConnectionOptions(config=None, server_host_keys=keys, gss_host=None, login_timeout=0)
    connection = GateConnection(options, HostKeys(used=keys, announced=keys), address="", most_failures=0)
    names = ("_transport", "_deferred_packets", "_server_host_key", "_all_server_host_keys")
    missing = [name for name in names if not hasattr(connection, name)]
    if missing or not connection.choose_server_host_key([keys[0].algorithm]) or connection.unread:
        raise SeamError(f"asyncssh {asyncssh.__version__} makes another kind of connection (without {missing})")
