"""Where records end: a line feed ends one where the quotation marks before it are even in number.

In a file with malformed quotes that may be wrong; who parses what was cut finds out.
"""

import numpy as np
import numpy.typing as npt

LF, QUOTE = b'\n"'
_WINDOW = 1 << 16  # bytes that are looked at at once where quotes are counted


def record_end(data: bytes, start: int, size: int, most: int) -> int:
    """Where to cut a file: the offset behind a record that starts at `start` or later.

    Args:
        data: the whole file.
        start: where a record starts.
        size: bytes from there to the end that is wanted, about; a longer record is taken as a whole.
        most: lines that there should be at most; their number can be exceeded by those of a window.
    """
    while True:
        end = _near(data, start, start + size)
        lines = np.count_nonzero(np.frombuffer(data, np.uint8, end - start, start) == LF)
        if lines <= most or size <= _WINDOW:
            return end
        size = max(_WINDOW, min(size, end - start) // 2)


def _near(data: bytes, start: int, wanted: int) -> int:
    """The end of the last record before `wanted`, or else of the first one behind it."""
    if wanted >= len(data):
        return len(data)
    if data.find(b'"', start, wanted) < 0:
        end = data.rfind(b"\n", start, wanted) + 1
        return end or _following(data, wanted, is_open=False)
    quotes = int(np.count_nonzero(np.frombuffer(data, np.uint8, wanted - start, start) == QUOTE))
    behind = 0  # quotes between the window and `wanted`
    for at in range(wanted, start, -_WINDOW):
        window = np.frombuffer(data, np.uint8, min(_WINDOW, at - start), max(start, at - _WINDOW))
        inside = int(np.count_nonzero(window == QUOTE))
        ends = feeds_outside(window, is_open=bool((quotes - behind - inside) % 2))
        if ends.size:
            return max(start, at - _WINDOW) + int(ends[-1]) + 1
        behind += inside
    return _following(data, wanted, is_open=bool(quotes % 2))


def _following(data: bytes, start: int, *, is_open: bool) -> int:
    for at in range(start, len(data), _WINDOW):
        window = np.frombuffer(data, np.uint8, min(_WINDOW, len(data) - at), at)
        ends = feeds_outside(window, is_open=is_open)
        if ends.size:
            return at + int(ends[0]) + 1
        is_open ^= bool(np.count_nonzero(window == QUOTE) % 2)
    return len(data)


def feeds_outside(window: npt.NDArray[np.uint8], *, is_open: bool = False) -> npt.NDArray[np.intp]:
    """The places of the line feeds outside quotes; `is_open` says whether quotes are open before the window."""
    feeds, quotes = np.flatnonzero(window == LF), np.flatnonzero(window == QUOTE)
    if quotes.size == 0:
        return feeds[:0] if is_open else feeds
    is_outside = (np.searchsorted(quotes, feeds) + is_open) % 2 == 0
    return feeds[np.flatnonzero(is_outside)]
