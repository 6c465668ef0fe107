"""How packets are opened and sealed with AES-GCM: with one key object each way, and a file's bytes where they lie.

A put is a thousand packets of 32 KiB. asyncssh makes a key object for each, copies it seven times between the socket
and the session, and calls some forty functions for it.
"""

from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.encryption import Encryption, GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

LENGTH = 4  # bytes of a packet's length, which AES-GCM leaves readable (RFC 5647, 7.3)
TAG = 16  # bytes of its MAC

_SMALL = 1024  # bytes up to which data is copied
_DATA = 10  # where the bytes of a packet of channel data begin: padding, type, channel, their number (RFC 4254, 5.2)


class GateCipher(GCMEncryption):
    """AES-GCM in one direction, from one exchange of keys to the next. Packets come in their order."""

    def __init__(self, made: GCMEncryption) -> None:
        super().__init__(made._cipher)  # noqa: SLF001
        self._key = AESGCM(self._cipher._key)  # noqa: SLF001
        self._fixed = self._cipher._iv[:4]  # noqa: SLF001
        self._counter = int.from_bytes(self._cipher._iv[4:], "big")  # noqa: SLF001
        self._opened: bytes | None = None

    def open(self, packet: memoryview) -> bytes | None:
        """What is in a whole packet, its padding included; None where its MAC says that it is not what was sent."""
        try:
            self._opened = self._key.decrypt(self._nonce(), packet[LENGTH:], packet[:LENGTH])
        except InvalidTag:
            self._opened = None
        return self._opened

    @override
    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        """What asyncssh asks for when a packet goes its way: it has been opened."""
        return self._opened

    @override
    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        return header + self._key.encrypt(self._nonce(), packet, header), b""

    def _nonce(self) -> bytes:
        """Used once, RFC 5647, 7.1."""
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF_FFFF
        return nonce


def gate_cipher(made: Encryption | None) -> Encryption | None:
    """The gate's AES-GCM in place of asyncssh's, any other cipher as it is."""
    return GateCipher(made) if isinstance(made, GCMEncryption) else made


def channel_data(opened: bytes) -> tuple[int, bytes | memoryview] | None:
    """The channel and the bytes of a packet that is nothing but channel data; None of any other packet."""
    if len(opened) < _DATA or opened[1] != MSG_CHANNEL_DATA:
        return None
    size = int.from_bytes(opened[6:_DATA], "big")
    if _DATA + size + opened[0] != len(opened):
        return None
    # A client may send a window full of single bytes, and a view takes 400.
    data = memoryview(opened) if size > _SMALL else opened
    return int.from_bytes(opened[2:6], "big"), data[_DATA : _DATA + size]
