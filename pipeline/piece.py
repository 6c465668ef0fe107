"""Some bytes of a file, and what can be counted in them before and after they are parsed."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.cut import count, feeds_outside

_LF, _CR, _QUOTE, _COMMA, _SPACE = b'\n\r", '
_WINDOW = 1 << 16  # bytes that are looked at at once
_EXTENSION = tuple(bytes((code,)) for code in b"[\\]^{|}~\f")
_EURO = "€".encode()
_OTHER = (b"`", b"\x7f")
_ODD_ASCII = (*(character for character in _EXTENSION if character >= b" "), *_OTHER)
_FIRST_OF_FOUR = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")  # bytes of a character in UTF-8 (RFC 3629, 4)
_FIRST_OF_TWO = 0xC0  # and of more
_C1 = b"\xc2"  # starts U+0080 to U+00BF, the second control characters among them


class Alphabet(NamedTuple):
    """Which kinds of characters some bytes may have; where one is False there are none of the kind."""

    has_non_ascii: bool = True
    has_control: bool = True  # besides the line feed, and the carriage return before it
    has_extension: bool = True  # of the GSM alphabet
    has_astral: bool = True  # beyond U+FFFF
    has_other: bool = True  # ASCII, but in no GSM alphabet

    @property
    def has_odd_ascii(self) -> bool:
        """Whether some may be ASCII and yet not plain."""
        return self.has_control or self.has_extension or self.has_other

    @property
    def is_plain(self) -> bool:
        """Whether all characters are in the GSM alphabet, without its extension, and ASCII."""
        return not any(self)


class Piece:
    """Records of a file behind a header line of our own, which keeps polars from sniffing the first bytes."""

    def __init__(self, header: bytes, records: memoryview) -> None:
        """Copy the records, once, behind the header (a line with its end)."""
        self.text = b"".join((header, records))
        self.window = np.frombuffer(self.text, np.uint8, offset=len(header))
        self.feeds = count(self.text, _LF, len(header), len(self.text))
        self.returns = self.text.count(b"\r") if b"\r" in self.text else 0
        self.quotes = count(self.text, _QUOTE, len(header), len(self.text)) if b'"' in self.text else 0

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return self.window.size

    @property
    def lines(self) -> int:
        """Line feeds, and a last line without one."""
        return self.feeds + (self.size > 0 and not self.text.endswith(b"\n"))

    @property
    def has_lone_return(self) -> bool:
        """Whether a carriage return stands anywhere but before a line feed."""
        return self.returns > 0 and self.returns != self.text.count(b"\r\n")

    def alphabet(self) -> Alphabet:
        """The kinds of its characters; there is no lone carriage return."""
        text, is_ascii = self.text, self.text.isascii()
        low = int(np.count_nonzero(self.window < _SPACE)) if is_ascii else self._low.size
        controls = low - self.feeds - self.returns
        return Alphabet(
            has_non_ascii=not is_ascii,
            has_control=controls > 0 or b"\x7f" in text or (not is_ascii and _C1 in text),
            has_extension=any(map(text.__contains__, _EXTENSION)) or _has_euro(text),
            has_astral=not is_ascii and any(map(text.__contains__, _FIRST_OF_FOUR)),
            has_other=any(map(text.__contains__, _OTHER)),
        )

    @cached_property
    def _low(self) -> npt.NDArray[np.intp]:
        """Where control characters stand, line ends among them."""
        return np.flatnonzero(self.window < _SPACE)

    def ends(self) -> npt.NDArray[np.intp]:
        """Where its records end, blank ones too; their quotes are legal."""
        feeds = feeds_outside(self.window) if self.quotes else self._low[self.window[self._low] == _LF]
        ends = feeds + 1
        return ends if self.text.endswith(b"\n") else np.append(ends, self.size)

    def odd(self, ends: npt.NDArray[np.intp], alphabet: Alphabet) -> npt.NDArray[np.bool_]:
        """Which records have characters that are not plain; `ends` are those of the records."""
        if alphabet.is_plain:
            return np.zeros(ends.size, bool)
        places = np.sort(np.concatenate(list(self._odd_places(alphabet))))
        return np.diff(np.searchsorted(places, ends), prepend=0) > 0

    def _odd_places(self, alphabet: Alphabet) -> Iterator[npt.NDArray[np.intp]]:
        if alphabet.has_non_ascii:
            yield np.flatnonzero(self.window >= _FIRST_OF_TWO)
        if alphabet.has_control:
            codes = self.window[self._low]
            yield self._low[(codes != _LF) & (codes != _CR)]
        for character in _ODD_ASCII:
            if character in self.text:
                yield np.flatnonzero(self.window == character[0])

    def quotes_are_legal(self) -> bool:
        """Whether every quote opens a field, closes one, or is half of an escaped one (RFC 4180, 2.5 to 2.7)."""
        if not self.quotes:
            return True
        last, is_open = self.size - 1, 0
        before_first = len(self.text) - self.size - 1  # the line feed of the header
        text = np.frombuffer(self.text, np.uint8, offset=before_first)
        for start in range(0, self.size, _WINDOW):
            quotes = np.flatnonzero(self.window[start : start + _WINDOW] == _QUOTE) + start
            opening, closing = quotes[is_open::2], quotes[1 - is_open :: 2]
            before = text[opening]
            opens = (before == _COMMA) | (before == _LF) | (before == _QUOTE)  # behind one that closes: an escaped one
            after, behind = self.window[np.minimum(closing + 1, last)], self.window[np.minimum(closing + 2, last)]
            ends = (after == _COMMA) | (after == _LF) | (after == _QUOTE) | ((after == _CR) & (behind == _LF))
            if not (opens.all() and (ends | (closing == last)).all()):
                return False
            is_open ^= quotes.size % 2
        return not is_open


def _has_euro(text: bytes) -> bool:
    return _EURO[-1:] in text and _EURO in text  # one byte is looked for much faster than three
