"""What stands between a connection and its bytes. asyncssh copies and talks more than a busy gate can afford."""

from typing import Any, Self

from asyncssh.logging import SSHLogger
from typing_extensions import override


class Inbox:
    """Bytes that came and were not read yet, in place of the `bytes` that asyncssh cuts each packet off.

    Cutting a packet off the front of `bytes` copies all that is behind it, twice for each packet; the kernel gives
    256 KiB at a time, which are eight packets of a put. asyncssh does four things with its buffer: it appends to it,
    asks for its length, takes a piece from the front, and keeps what follows a place; that one is not a copy here.
    """

    __slots__ = ("_data", "_start")

    def __init__(self) -> None:
        self._data = b""
        self._start = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def __iadd__(self, more: bytes) -> Self:
        self._data = self._data[self._start :] + more if len(self) else more
        self._start = 0
        return self

    def __getitem__(self, part: slice) -> Self | bytes:
        if part.stop is None:
            self._start += part.start
            if self._start == len(self._data):
                self._data, self._start = b"", 0  # else each idle session would keep what it read last
            return self
        return self._data[self._start + (part.start or 0) : self._start + part.stop]

    def find(self, what: bytes, start: int, end: int) -> int:
        """As `bytes.find`; the version line is looked for with it."""
        return self._data[self._start :].find(what, start, end)


class QuietLogger(SSHLogger):
    """asyncssh's logger, which puts nothing into words that is not logged, and has no children to find and keep.

    asyncssh's own turns all arguments into text before it asks for the level, several times for each packet.
    """

    @override
    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            super().log(level, msg, *args, **kwargs)

    @override
    def get_child(self, child: str = "", context: str = "") -> SSHLogger:
        return self
