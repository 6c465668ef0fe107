"""The rehearsal of packets: which take the short way to their channel, and what becomes of a forged one."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_DEBUG
from asyncssh.encryption import Encryption, get_encryption
from asyncssh.packet import Boolean, Byte, String, UInt32

from postern.errors import PosternError
from sftpd.seams.connections import GateConnection
from sftpd.seams.opening import TAG, gate_cipher

_CIPHER = b"aes128-gcm@openssh.com"
_KEY, _IV = bytes(16), bytes(12)


class SeamError(PosternError):
    """The installed asyncssh is not the one that the gate was written for."""


class Wire:
    """Stands in for a transport, to see what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.is_aborted = True


class _Channel:
    """Stands in for a channel, to see what it is given."""

    _recv_state = "open"

    def __init__(self, connection: GateConnection) -> None:
        self._connection = connection
        self._recv_window = 1_000
        self.data: list[tuple[int, bytes]] = []

    def _accept_data(self, data: bytes) -> None:
        self.data.append((self._connection._recv_seq, bytes(data)))  # noqa: SLF001


async def flushed() -> None:
    """Wait until what was sent is on its way, as `GateConnection._send` has it."""
    for _turn in range(2):
        await asyncio.sleep(0)


async def rehearse_packets(connection: GateConnection) -> None:
    """Read data, something else, data and a forged packet, in pieces; answer, and have asyncssh open the answer."""
    wire, channel = Wire(), _Channel(connection)
    connection.connection_made(cast(asyncio.Transport, wire))
    connection.data_received(b"SSH-2.0-Other\r\n")
    await flushed()
    wire.sent.clear()
    # As it is once a client is logged in:
    connection._recv_encryption = gate_cipher(_cipher())  # noqa: SLF001
    connection._send_encryption = gate_cipher(_cipher())  # noqa: SLF001
    connection._recv_blocksize, connection._recv_macsize, connection._recv_seq = 16, TAG, 0  # noqa: SLF001
    connection._auth_complete = connection._auth_final = True  # noqa: SLF001
    connection._channels[0] = cast(Any, channel)  # noqa: SLF001
    for packet in _packets():
        for start in range(0, len(packet), 30):
            _give(connection, packet[start : start + 30])
    connection._channels.clear()  # noqa: SLF001 - before it is told of the end
    connection._flush()  # noqa: SLF001
    sealed = b"".join(wire.sent)
    answer = _cipher().decrypt_packet(0, sealed[:4], sealed[4:-TAG], 4, sealed[-TAG:])
    connection.abort()
    await asyncio.sleep(0)
    taken = [(1, b"first"), (3, b"second")]
    if channel.data != taken or not wire.is_aborted or b"MAC verification failed" not in (answer or b""):
        raise SeamError(f"asyncssh {asyncssh.__version__} reads packets in another way: {channel.data}")


def _give(connection: GateConnection, data: bytes) -> None:
    """As the event loop does."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


def _packets() -> Iterator[bytes]:
    cipher = _cipher()
    data = Byte(MSG_CHANNEL_DATA) + UInt32(0)
    other = Byte(MSG_DEBUG) + Boolean(False) + String(b"") * 2  # noqa: FBT003
    for payload in (data + String(b"first"), other, data + String(b"second")):
        yield _sealed(cipher, payload)
    forged = bytearray(_sealed(cipher, data + String(b"third")))
    forged[-1] ^= 1
    yield bytes(forged)


def _sealed(cipher: Encryption, payload: bytes) -> bytes:
    padding = 4 + -(1 + len(payload) + 4) % 16
    packet = Byte(padding) + payload + bytes(padding)
    return b"".join(cipher.encrypt_packet(0, UInt32(len(packet)), packet))


def _cipher() -> Encryption:
    """What asyncssh makes of keys that were exchanged."""
    return get_encryption(_CIPHER, _KEY, _IV)
