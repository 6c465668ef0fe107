"""asyncssh's connection, with what no option of it says: signatures, failed tries, and how its bytes come and go."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import MSG_IGNORE, MSG_KEXINIT
from asyncssh.packet import SSHPacket, SSHPacketLogger
from typing_extensions import override

from sftpd.seams.host_keys import RSA_ALGORITHMS, HostKeys
from sftpd.seams.opening import LENGTH, TAG, GateCipher, channel_data, gate_cipher
from sftpd.seams.streams import Inbox, QuietLogger

LAST_WORD = 0.05  # seconds over the time of a login
PATIENCE = 1.0  # seconds that our offer of algorithms waits for that of an OpenSSH client

_OPENSSH = b"SSH-2.0-OpenSSH_"


class GateConnection(SSHServerConnection, asyncio.BufferedProtocol):
    """asyncssh's connection, with what no option of it says.

    Made by the gate itself, not by `asyncssh.listen`, so that a connection that is turned away costs none of it.
    """

    def __init__(
        self, options: asyncssh.SSHServerConnectionOptions, keys: HostKeys, *, address: str, most_failures: int
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.set_extra_info(address=address)
        self._logger = QuietLogger()
        self._inbox = Inbox()
        self._inpbuf = cast(bytes, self._inbox)
        self._socket: socket.socket | None = None
        self._outbox: list[bytes] = []  # packets of this turn of the event loop
        self._patience: asyncio.TimerHandle | None = None  # runs while our offer waits for the client's
        self._keys = keys
        self._most_failures = most_failures
        self.failures = 0  # tries to log in; the first one is every client's opening `none`
        self.is_late = False  # whether the login used up its time, and the connection ended of that

    @override
    async def reload_config(self) -> None:
        """Nothing: asyncssh would make all options anew at each login, for a file that we do not have."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)

    @override
    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take bytes, and tell the kernel to acknowledge them at once.

        libssh, Node's ssh2 and others wait for the answer to each block, and hold back its last segment until what
        they sent before is acknowledged (Nagle, RFC 896). Linux delays that by 40 ms, and forgets this option again.
        """
        self._acknowledge()
        super().data_received(data, datatype)

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop is to put what it reads: asyncio would make new `bytes` each time."""
        return self._inbox.room()

    @override
    def buffer_updated(self, nbytes: int) -> None:
        """As `data_received`."""
        self._acknowledge()
        self._inbox.came(nbytes)
        try:
            self._recv_data()
        finally:
            self._inbox.settle()

    def _acknowledge(self) -> None:
        if self._socket is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    @override
    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        """Send a packet without the empty one that asyncssh sends ahead of each.

        That one keeps a CBC cipher from being guessed at (RFC 4251, 9.3.1), and no policy of ours has one.
        """
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    @override
    def _send(self, data: bytes) -> None:
        """Send with the other packets of this turn of the event loop and the next one.

        A call of the kernel costs more than a packet, and what is read in one turn is answered in the next.
        """
        if not self._outbox:
            self._loop.call_soon(self._loop.call_soon, self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        if data:
            super()._send(data)

    @override
    def _login_timer_callback(self) -> None:
        """Time is up; but where the gate was held up, what came in time is heard first."""
        self._login_timer = self._loop.call_later(LAST_WORD, self._end_late)

    def _end_late(self) -> None:
        self.is_late = self._transport is not None  # else it is ending of something else
        super()._login_timer_callback()

    @override
    def _force_close(self, exc: Exception | None) -> None:
        self._flush()  # the reason is in there
        super()._force_close(exc)

    @override
    def _cleanup(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super()._cleanup(exc)

    @override
    def _send_kexinit(self) -> None:
        """Offer algorithms; to OpenSSH's client first hear what it has.

        The first cipher of the client's that we have is taken, whatever our order (RFC 4253, 7.1), and OpenSSH's
        client has AES-GCM behind CTR with a MAC, which takes a third more of the gate's processor. So one that has
        GCM is offered nothing else. It sends its list without waiting for ours; whoever goes by its name and waits
        gets the whole list after a while.
        """
        if self._session_id or self._patience or not self._client_version.startswith(_OPENSSH):
            super()._send_kexinit()
        else:
            self._patience = self._loop.call_later(PATIENCE, self._offer)

    def _offer(self) -> None:
        if self._stop_waiting():
            super()._send_kexinit()

    def _stop_waiting(self) -> bool:
        was_waiting = self._patience is not None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        return was_waiting

    @override
    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        if pkttype == MSG_KEXINIT and self._patience is not None:
            self._enc_algs = preferred_ciphers(self._enc_algs, SSHPacket(packet.get_remaining_payload()))
            self._offer()
        return super().process_packet(pkttype, pktid, packet)

    @override
    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        self._send_encryption = gate_cipher(self._send_encryption)
        self._next_recv_encryption = gate_cipher(self._next_recv_encryption)

    @override
    def _recv_pkthdr(self) -> bool:
        """Begin with the next packet: hand a file's bytes to their channel at once, all else goes asyncssh's way."""
        encryption, inbox = self._recv_encryption, self._inbox
        if not isinstance(encryption, GateCipher):
            return super()._recv_pkthdr()
        if len(inbox) < self._recv_blocksize:
            return False
        length = int.from_bytes(inbox.view(LENGTH), "big")
        if length > self._max_recv_pktlen:
            return super()._recv_pkthdr()  # which refuses it
        size = LENGTH + length + TAG
        if len(inbox) < size:
            return False
        opened = encryption.open(inbox.view(size))
        found = channel_data(opened) if opened and self._auth_final else None
        channel = self._channels.get(found[0]) if found else None
        if channel is None or found is None or not _takes(channel, len(found[1])):
            return super()._recv_pkthdr()
        inbox.skip(size)
        self._recv_seq = (self._recv_seq + 1) & 0xFFFF_FFFF
        channel._accept_data(cast(bytes, found[1]))  # noqa: SLF001
        return True

    @override
    def log_received_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """Nothing, as `QuietLogger`."""

    @override
    def log_sent_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """Nothing, as `QuietLogger`."""

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
        other = RSA_ALGORITHMS[chosen == RSA_ALGORITHMS[0]]
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
        waiting += sum(len(data) for data in self._outbox)
        return waiting + (self._transport.get_write_buffer_size() if self._transport else 0)


def _takes(channel: "SSHChannel[bytes]", size: int) -> bool:
    """Whether asyncssh would take so many bytes for the channel; what it says otherwise is its own business."""
    return bool(channel._recv_state == "open" and size <= channel._recv_window)  # noqa: SLF001


def preferred_ciphers(ours: Sequence[bytes], offer: SSHPacket) -> Sequence[bytes]:
    """Those of our ciphers that a client is to choose from: GCM alone where it has that in both directions.

    Args:
        ours: our ciphers.
        offer: what stands behind the type in the client's KEXINIT (RFC 4253, 7.1).
    """
    offer.get_bytes(16)  # cookie
    exchanges, _host_keys = offer.get_namelist(), offer.get_namelist()
    theirs = set(offer.get_namelist()) & set(offer.get_namelist())
    gcm = [cipher for cipher in ours if b"-gcm@" in cipher]
    # ssh-audit goes by the name of OpenSSH, too, and is to see all; it knows no extensions (RFC 8308).
    return gcm if b"ext-info-c" in exchanges and theirs.intersection(gcm) else ours
