"""How many segments a text takes, exact at every boundary.

GSM-7: 160 septets in one segment, 153 each in several; an extension character takes two and is never split.
UCS-2: 70 and 67 UTF-16 units; a surrogate pair is never split (3GPP TS 23.038 and 23.040). Division alone is
wrong for that reason: 81 euro signs take two segments, and 152 letters, a euro sign and 152 letters take three.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from postern.sms.characters import GSM_EXTENSION, is_gsm

GSM_SINGLE, GSM_PART = 160, 153
UCS2_SINGLE, UCS2_PART = 70, 67
_ESCAPE = b"\x1b"
_EXTENDED = re.compile("[" + "".join(map(re.escape, sorted(GSM_EXTENSION))) + "]")


class Encoding(StrEnum):
    """How a text travels."""

    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One segment of a text."""

    start: int  # in characters of the text
    end: int
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A text as it travels."""

    encoding: Encoding
    units: int  # septets, or UTF-16 units
    parts: Sequence[Part]


def encoding_of(text: str) -> Encoding:
    """GSM-7 where every character is in its alphabet, else UCS-2 for all of the text."""
    return Encoding.GSM_7 if is_gsm(text) else Encoding.UCS_2


def count_segments(text: str) -> int:
    """The number of segments of a text; an empty one takes one."""
    if encoding_of(text) is Encoding.GSM_7:
        septets = _EXTENDED.sub("\x1b.", text).encode("ascii", "replace")  # a byte each; which one does not matter
        return _count(len(septets), lambda last: septets.startswith(_ESCAPE, last), GSM_SINGLE, GSM_PART)
    units = text.encode("utf-16-be", "surrogatepass")
    return _count(len(units) // 2, lambda last: units[2 * last] >> 2 == 0xD8 >> 2, UCS2_SINGLE, UCS2_PART)


def _count(size: int, is_first_half: Callable[[int], bool], single: int, part: int) -> int:
    """Segments of so many units; a segment whose last unit is the first half of a character ends before it."""
    if size <= single:
        return 1
    segments = start = 0
    while start < size:
        end = start + part
        start = end - (end < size and is_first_half(end - 1))
        segments += 1
    return segments


def split_segments(text: str) -> Segmentation:
    """The segments of a text with their boundaries. Slower than to count them; for a person who wants to see."""
    encoding = encoding_of(text)
    widths = [_width(character, encoding) for character in text]
    units = sum(widths)
    single, part = (GSM_SINGLE, GSM_PART) if encoding is Encoding.GSM_7 else (UCS2_SINGLE, UCS2_PART)
    return Segmentation(encoding=encoding, units=units, parts=list(_filled(widths, units if units <= single else part)))


def _width(character: str, encoding: Encoding) -> int:
    if encoding is Encoding.GSM_7:
        return 1 + (character in GSM_EXTENSION)
    return 1 + (character > "\uffff")


def _filled(widths: Sequence[int], room: int) -> Iterator[Part]:
    """One segment after the other; a character that does not fit begins the next one."""
    start = used = 0
    for place, width in enumerate(widths):
        if used + width > room:
            yield Part(start=start, end=place, units=used)
            start, used = place, 0
        used += width
    yield Part(start=start, end=len(widths), units=used)
