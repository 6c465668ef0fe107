"""Where records end: a line feed ends one where the quotation marks before it are even in number.

In a file with malformed quotes that may be wrong; who parses what was cut finds out.
"""

import numpy as np
import numpy.typing as npt

from pipeline.source import Data

LF, QUOTE, COMMA = b'\n",'
_WINDOW = 1 << 16  # bytes that are looked at at once where quotes are counted


def record_end(data: Data, start: int, size: int, most: int, longest: int) -> int | None:
    """Where to cut a file: the offset behind a record that starts at `start` or later.

    Args:
        data: the whole file.
        start: where a record starts.
        size: bytes from there to the end that is wanted, at most; `longest` where the first record is longer.
        most: lines that there should be at most; their number can be exceeded by those of a window.
        longest: bytes that a record may have with its line end.

    Returns:
        the offset, or None where the first record is longer than that.
    """
    while True:
        end = _near(data, start, start + size, start + longest)
        if end is None or size <= _WINDOW or count(data, LF, start, end) <= most:
            return end
        size = max(_WINDOW, min(size, end - start) // 2)


def count(data: Data, byte: int, start: int, end: int) -> int:
    """How often a byte stands between two offsets; in parts that stay in the processor's cache."""
    whole = np.frombuffer(data, np.uint8, end - start, start)
    return sum(int(np.count_nonzero(whole[at : at + _WINDOW] == byte)) for at in range(0, whole.size, _WINDOW))


def _near(data: Data, start: int, wanted: int, last: int) -> int | None:
    """The end of the last record before `wanted`, or else of the first one behind it and before `last`."""
    if wanted >= len(data):
        return len(data)
    if data.find(b'"', start, wanted) < 0:
        end = data.rfind(b"\n", start, wanted) + 1
        return end or _following(data, wanted, last, is_open=False)
    quotes = count(data, QUOTE, start, wanted)
    behind = 0  # quotes between the window and `wanted`
    for at in range(wanted, start, -_WINDOW):
        window = np.frombuffer(data, np.uint8, min(_WINDOW, at - start), max(start, at - _WINDOW))
        inside = int(np.count_nonzero(window == QUOTE))
        ends = feeds_outside(window, is_open=bool((quotes - behind - inside) % 2))
        if ends.size:
            return max(start, at - _WINDOW) + int(ends[-1]) + 1
        behind += inside
    return _following(data, wanted, last, is_open=bool(quotes % 2))


def _following(data: Data, start: int, last: int, *, is_open: bool) -> int | None:
    last = min(last, len(data))
    for at in range(start, last, _WINDOW):
        window = np.frombuffer(data, np.uint8, min(_WINDOW, last - at), at)
        ends = feeds_outside(window, is_open=is_open)
        if ends.size:
            return at + int(ends[0]) + 1
        is_open ^= bool(np.count_nonzero(window == QUOTE) % 2)
    return len(data) if last == len(data) else None


def feeds_outside(window: npt.NDArray[np.uint8], *, is_open: bool = False) -> npt.NDArray[np.intp]:
    """The places of the line feeds outside quotes; `is_open` says whether quotes are open before the window."""
    feeds, quotes = np.flatnonzero(window == LF), np.flatnonzero(window == QUOTE)
    if quotes.size == 0:
        return feeds[:0] if is_open else feeds
    is_outside = (np.searchsorted(quotes, feeds) + is_open) % 2 == 0
    return feeds[np.flatnonzero(is_outside)]
