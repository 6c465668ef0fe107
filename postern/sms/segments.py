"""How many segments a text takes, exact at every boundary.

GSM-7: 160 septets in one segment, 153 each in several; an extension character takes two and is never split.
UCS-2: 70 and 67 UTF-16 units; a surrogate pair is never split (3GPP TS 23.038 and 23.040). Division alone is
wrong for that reason: 81 euro signs take two segments, and 152 letters, a euro sign and 152 letters take three.
"""

from enum import StrEnum

from postern.sms.characters import GSM_EXTENSION, is_gsm

GSM_SINGLE, GSM_PART = 160, 153
UCS2_SINGLE, UCS2_PART = 70, 67
_BEYOND_BMP = 0xFFFF


class Encoding(StrEnum):
    """How a text travels."""

    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


def encoding_of(text: str) -> Encoding:
    """GSM-7 where every character is in its alphabet, else UCS-2 for all of the text."""
    return Encoding.GSM_7 if is_gsm(text) else Encoding.UCS_2


def count_segments(text: str) -> int:
    """The number of segments of a text; an empty one takes one."""
    if encoding_of(text) is Encoding.GSM_7:
        return _count([2 if character in GSM_EXTENSION else 1 for character in text], GSM_SINGLE, GSM_PART)
    return _count([2 if ord(character) > _BEYOND_BMP else 1 for character in text], UCS2_SINGLE, UCS2_PART)


def _count(widths: list[int], single: int, part: int) -> int:
    if sum(widths) <= single:
        return 1
    segments, room = 1, part
    for width in widths:
        if width > room:
            segments, room = segments + 1, part
        room -= width
    return segments
