"""The reader of SFTP requests: our table of operations instead of asyncssh's, and one service behind it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import asyncssh
from asyncssh.constants import FXP_WRITE
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.sftp import SFTPServerHandler
from typing_extensions import override

from sftpd.operations import EXTENSIONS, LIMITS, OPERATIONS, Operation

GarbledPacketError = PacketDecodeError  # what a request that cannot be parsed raises; it has no public name

# What OpenSSH's own server answers to limits@openssh.com (its PROTOCOL, 4.8). Fewer, larger writes are faster.
MAX_PACKET = 256 * 1024
MAX_WRITE = MAX_PACKET - 1024
MAX_HANDLES = 64
TURN = 0.002  # seconds that a session's requests are served before others get a turn
MAX_UNREAD = 64 * 1024  # bytes of answers that a client has left unread before it is listened to again

Result = TypeVar("Result")
Process: TypeAlias = Callable[["GateHandler", SSHPacket], Awaitable[object]]


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
    def log_received_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """Nothing: asyncssh would put each packet into words for a log that is off."""

    @override
    def log_sent_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """As `log_received_packet`."""

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
    async def _process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Serve a request, and let go of its bytes: asyncssh's loop holds on to it until the next one comes."""
        await super()._process_packet(pkttype, pktid, packet)
        packet._packet = b""  # noqa: SLF001 - up to 256 KiB for each session that falls silent

    @override
    def _get_next_handle(self) -> bytes:
        if len(self._dir_handles) >= MAX_HANDLES:
            raise asyncssh.SFTPFailure("Too many open folders.")
        return super()._get_next_handle()

    async def _process_gate_write(self, packet: SSHPacket) -> int:
        """Read a WRITE as OpenSSH's server does: what stands behind its data is ignored.

        rclone before 1.63 sends the rest of a buffer there after it has read less than a block.
        """
        handle, offset, size = packet.get_string(), packet.get_uint64(), packet.get_uint32()
        start = len(packet.get_consumed_payload())
        data = memoryview(packet.get_full_payload())[start : start + size]  # 255 KiB; get_string would copy them
        if len(data) < size:
            raise GarbledPacketError("Incomplete packet")
        file = self._file_handles.get(handle)
        if file is None:
            raise asyncssh.SFTPInvalidHandle("Invalid file handle")
        return cast(int, self._server.write(file, offset, cast(bytes, data)))

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
