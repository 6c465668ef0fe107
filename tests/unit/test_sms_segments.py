"""Segments at every boundary, against a slow and obvious model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.reference_validator import count_segments as plainly_counted

from postern.sms.segments import Encoding, count_segments, encoding_of, split_segments

RUNS = st.builds(str.__mul__, st.sampled_from("aé\n€[汉😀"), st.integers(1, 160))
TEXTS = st.lists(RUNS, max_size=5).map("".join)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1),
        ("a", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 459, 3),
        ("a" * 460, 4),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 152, 2),
        ("€" * 153, 3),
        ("a" * 158 + "€", 1),
        ("a" * 159 + "€", 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("a" * 151 + "€" + "a" * 153, 2),
        ("汉", 1),
        ("汉" * 70, 1),
        ("汉" * 71, 2),
        ("汉" * 134, 2),
        ("汉" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),
        ("汉" * 66 + "😀" + "汉" * 66, 3),
        ("汉" * 65 + "😀" + "汉" * 67, 2),
        ("a" * 70 + "汉", 2),
        ("€" * 69 + "汉", 1),
        ("\r\n" * 80, 1),
        ("\r\n" * 80 + "a", 2),
    ],
)
def test_segments_at_a_boundary(text: str, segments: int) -> None:
    """One character less or more, and characters of two units that would straddle."""
    assert count_segments(text) == segments


@given(text=TEXTS)
def test_segments_are_those_of_the_plain_model(text: str) -> None:
    """Whatever is mixed, the count is that of filling one segment after the other."""
    assert count_segments(text) == plainly_counted(text)


@given(text=TEXTS, more=st.sampled_from("a€"))
def test_a_longer_text_never_takes_fewer_segments(text: str, more: str) -> None:
    """Adding a character that keeps the encoding never makes a message cheaper."""
    assert count_segments(text + more) >= count_segments(text)


@pytest.mark.parametrize(("text", "encoding"), [("", "GSM-7"), ("a€", "GSM-7"), ("a`", "UCS-2"), ("😀", "UCS-2")])
def test_the_encoding_of_a_text(text: str, encoding: str) -> None:
    """One character outside the alphabet decides for all of them."""
    assert encoding_of(text) is Encoding(encoding)


@given(text=TEXTS)
def test_segments_shown_are_segments_counted(text: str) -> None:
    """As many, without a gap, none over its limit, and no character that would still have fitted before."""
    found = split_segments(text)
    assert len(found.parts) == count_segments(text)
    assert "".join(text[part.start : part.end] for part in found.parts) == text
    assert found.encoding is encoding_of(text)
    assert found.units == sum(part.units for part in found.parts)
    limits = (160, 153) if found.encoding is Encoding.GSM_7 else (70, 67)
    assert max(part.units for part in found.parts) <= limits[len(found.parts) > 1]
    assert min((part.units for part in found.parts[:-1]), default=limits[1]) >= limits[1] - 1


def test_where_segments_end() -> None:
    """A character of two units goes into the next segment as a whole."""
    assert [(part.start, part.end, part.units) for part in split_segments("a" * 152 + "€" + "a" * 152).parts] == [
        (0, 152, 152),
        (152, 304, 153),
        (304, 305, 1),
    ]
    assert [(part.start, part.end, part.units) for part in split_segments("").parts] == [(0, 0, 0)]
