"""What stands between a connection and its bytes. asyncssh copies and talks more than a busy gate can afford."""

import threading
from typing import Any, Self, overload

from asyncssh.logging import SSHLogger
from typing_extensions import override

_READ = 256 * 1024  # bytes that are asked of the kernel at a time, as asyncio does
_MOST_KEPT = 64 * 1024  # bytes that are copied back into the shared memory; asyncssh's packets are half as large


class _Memory(threading.local):
    """What the event loop of a thread reads into: it reads for one connection at a time."""

    def __init__(self) -> None:
        self.shared = memoryview(bytearray(_MOST_KEPT + _READ))


_memory = _Memory()


class Inbox:
    """Bytes that came and were not read yet, in place of the `bytes` that asyncssh cuts each packet off.

    Cutting a packet off the front of `bytes` copies all that is behind it, twice for each packet; the kernel gives
    256 KiB at a time, which are eight packets of a put. asyncssh does four things with its buffer: it appends to it,
    asks for its length, takes a piece from the front, and keeps what follows a place; that one is not a copy here.

    The kernel writes into memory that all connections of an event loop share. What of it could not be read is copied
    out before the next one's turn: the front of a packet, 16 KiB on the average.
    """

    __slots__ = ("_data", "_end", "_start")

    def __init__(self) -> None:
        self._data: bytes | memoryview = b""
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def __iadd__(self, more: bytes) -> Self:
        self._keep(self[: len(self)] + more if len(self) else more)
        return self

    @overload
    def __getitem__(self, part: "slice[int | None, int, None]") -> bytes: ...

    @overload
    def __getitem__(self, part: "slice[int, None, None]") -> Self: ...

    def __getitem__(self, part: "slice[Any, Any, None]") -> Self | bytes:
        if part.stop is None:
            self.skip(part.start)
            return self
        return bytes(self._data[self._start + (part.start or 0) : min(self._start + part.stop, self._end)])

    def view(self, size: int) -> memoryview:
        """So many bytes at the front, where they lie; until the next turn."""
        return memoryview(self._data)[self._start : self._start + size]

    def skip(self, size: int) -> None:
        """Take so many bytes off the front."""
        self._start += size
        if self._start == self._end:
            self._keep(b"")  # else each idle session would keep what it read last

    def find(self, what: bytes, start: int, end: int) -> int:
        """As `bytes.find`; the version line is looked for with it."""
        return self[: len(self)].find(what, start, end)

    def room(self) -> memoryview:
        """Where the kernel may write what comes next. Used at once, and then `came` is called."""
        shared, kept = _memory.shared, len(self)
        if kept > _MOST_KEPT:
            return shared
        shared[:kept] = self._data[self._start : self._end]
        return shared[kept:]

    def came(self, size: int) -> None:
        """So many bytes were written into `room`. Until `settle` they stay there."""
        if len(self) > _MOST_KEPT:  # while asyncssh waits for something and reads nothing
            self._keep(self[: len(self)] + _memory.shared[:size])
        else:
            self._data, self._start, self._end = _memory.shared, 0, len(self) + size

    def settle(self) -> None:
        """Keep what was not read: what is shared is another connection's now."""
        if isinstance(self._data, memoryview):
            self._keep(self[: len(self)])

    def _keep(self, data: bytes) -> None:
        self._data, self._start, self._end = data, 0, len(data)


class QuietLogger(SSHLogger):
    """asyncssh's logger, which puts nothing into words that is not logged, and has no children to find and keep.

    asyncssh's own turns all arguments into text before it asks for the level, several times for each packet.
    """

    @override
    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            super().log(level, msg, *args, **kwargs)

    @override
    def debug1(self, msg: str, *args: Any, **kwargs: object) -> None:
        """Nothing: asyncssh's debug log is never on here (`postern/logs.py`), and most of what it says goes there."""

    @override
    def debug2(self, msg: str, *args: Any, **kwargs: object) -> None:
        """As `debug1`."""

    @override
    def get_child(self, child: str = "", context: str = "") -> SSHLogger:
        return self
