"""A network that misbehaves: a TCP proxy in front of the gate that does one thing to a client's bytes, once.

It acts after a given number of bytes from the client: cuts the connection, falls silent, turns one byte over,
says that the client has nothing more to send, or only becomes slow. Its buffers are small, so that a client is
really in the middle of its put when the middle has been reached.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from time import sleep

from clients.gate import Gate

BLOCK = 16_384  # bytes
BUFFER = 65_536  # bytes of a socket's buffer
SLOW = 2_000_000  # bytes a second
PATIENCE = 60.0  # seconds without a byte


class Mishap(StrEnum):
    """What happens to a connection."""

    SLOW = "from here on the network is slow"
    CUT = "both ends see a reset"
    SILENT = "nothing comes through any more, and nobody says so"
    FLIPPED = "one bit is turned over"
    HALF_CLOSED = "the gate sees that the client will send nothing more"


class Proxy:
    """Listens on a free port of its own and passes connections on to the gate."""

    def __init__(self, gate: Gate, mishap: Mishap, after: int) -> None:
        self._gate = gate
        self._mishap = mishap
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Before listening sockets are accepted from: a window is agreed on at the start of a connection.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.reached = threading.Event()  # so many bytes have come through
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def serving(self) -> Iterator["Proxy"]:
        """Pass on, until the block ends."""
        self._gate.know_port(self.port)
        self._start(self._accept)
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for each in self._sockets:
                _reset(each)
            for thread in self._threads:
                thread.join(PATIENCE)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                gate = socket.create_connection(("127.0.0.1", self._gate.port))
                for each in (client, gate):
                    each.settimeout(PATIENCE)
                self._sockets += [client, gate]
                self._start(self._upstream, client, gate)
                self._start(self._downstream, client, gate)

    def _start(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _upstream(self, client: socket.socket, gate: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := client.recv(BLOCK):
                passed += len(data)
                if passed >= self._after:
                    first = not self.reached.is_set()
                    self.reached.set()
                    if not self._happen(client, gate, data, is_first=first):
                        return
                else:
                    gate.sendall(data)
            gate.shutdown(socket.SHUT_WR)

    def _happen(self, client: socket.socket, gate: socket.socket, data: bytes, *, is_first: bool) -> bool:
        """Do to the bytes what is to happen; whether the connection goes on."""
        match self._mishap:
            case Mishap.SLOW:
                sleep(len(data) / SLOW)
                gate.sendall(data)
            case Mishap.FLIPPED:
                middle = len(data) // 2
                flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
                gate.sendall(flipped if is_first else data)
            case Mishap.CUT:
                _reset(client)
                _reset(gate)
                return False
            case Mishap.HALF_CLOSED:
                gate.shutdown(socket.SHUT_WR)
                return False
            case Mishap.SILENT:
                return False
        return True

    def _downstream(self, client: socket.socket, gate: socket.socket) -> None:
        with suppress(OSError):
            while data := gate.recv(BLOCK):
                if self._mishap is Mishap.SILENT and self.reached.is_set():
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def _reset(each: socket.socket) -> None:
    """Close without a farewell (SO_LINGER 0 sends RST)."""
    with suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)
    each.close()
