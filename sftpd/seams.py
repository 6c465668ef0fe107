"""Everything that the gate takes from inside asyncssh, each with its reason, and a check that it is still there.

asyncssh is pinned to 2.24.x for the sake of this module; no other module of the gate touches a private name
of it. The gate starts only where `check_seams` passes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from types import SimpleNamespace
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import asyncssh
from asyncssh.connection import SSHServerConnection
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

_RSA = "ssh-rsa"
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
    def _get_next_handle(self) -> bytes:
        if len(self._dir_handles) >= MAX_HANDLES:
            raise asyncssh.SFTPFailure("Too many open folders.")
        return super()._get_next_handle()

    async def _process_gate_limits(self, packet: SSHPacket) -> asyncssh.SFTPLimits:
        packet.check_end()
        return asyncssh.SFTPLimits(MAX_PACKET, MAX_WRITE, MAX_WRITE, MAX_HANDLES)


def _table() -> dict[int | bytes, Any]:
    theirs: dict[int | bytes, Any] = {**SFTPServerHandler._packet_handlers}  # noqa: SLF001
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
        on_data: Callable[[], None],
    ) -> None:
        super().__init__(None)
        self._serve = serve
        self._on_task = on_task
        self._on_data = on_data

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
        self._on_data()
        super().data_received(data, datatype)


def host_key_pairs(keys: Sequence[asyncssh.SSHKey]) -> list[asyncssh.SSHKeyPair]:
    """Host keys for the listener, without the SHA-1 signatures that asyncssh offers for RSA.

    Each RSA algorithm gets a pair of its own: asyncssh notes the negotiated algorithm in the pair, which all
    connections share, so that two handshakes at once could sign with each other's.
    """
    pairs: list[asyncssh.SSHKeyPair] = []
    for key in keys:
        algorithms = _RSA_HOST_ALGORITHMS if key.get_algorithm() == _RSA else (key.algorithm,)
        for algorithm in algorithms:
            (pair,) = asyncssh.load_keypairs([key])
            pair.host_key_algorithms = (algorithm,)
            pairs.append(pair)
    return pairs


def forbid_sha1(key: asyncssh.SSHKey) -> None:
    """Make a client's key refuse SHA-1 signatures: `signature_algs` limits only what is announced."""
    key.all_sig_algorithms = set(key.all_sig_algorithms) - _SHA1_SIGNATURES


def limit_failures(connection: SSHServerConnection, most: int) -> None:
    """Disconnect a client at failure `most` + 1. The first failure is every client's opening `none`.

    Wraps the one method through which every failed try of any kind is answered; no public hook sees tries
    with methods that are switched off.
    """
    answer = connection.send_userauth_failure
    failures = 0

    def counted(partial_success: bool) -> None:  # noqa: FBT001 - asyncssh's signature
        nonlocal failures
        failures += 1
        if failures > most:
            connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
        else:
            answer(partial_success)

    connection.send_userauth_failure = counted  # type: ignore[method-assign]


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
        "send_userauth_failure": SSHServerConnection,
        "session_started": SSHServerStreamSession,
        "all_sig_algorithms": asyncssh.SSHKey,
    }
    for name, owner in owners.items():
        if not hasattr(owner, name):
            raise SeamError(f"asyncssh {asyncssh.__version__} has no {name}; install asyncssh~=2.24.1")
    missing = OPERATIONS.keys() - GateHandler._packet_handlers.keys()  # noqa: SLF001
    if missing:
        raise SeamError(f"asyncssh {asyncssh.__version__} does not know the operations {missing}")
    _rehearse_ending()


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
