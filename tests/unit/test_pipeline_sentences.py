"""What people are told: one plain sentence a finding, that names the column, helps, and is harmless in a cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentences import sentence

VALUE_CODES = [
    "recipient_missing",
    "recipient_invalid",
    "language_missing",
    "language_unknown",
    "language_unavailable",
    "parameter_missing",
    "parameter_edge_space",
]
OFFERED = ["english", "malay"]


def told(code: str, detail: str, column: str | None = "name") -> str:
    return sentence(code, column=column, detail=detail, offered=OFFERED)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("91234567", "lacks the country code: put 65 in front (6591234567)"),
        ("61234567", "lacks the country code: put 65 in front (6561234567)"),
        ("+6591234567", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("65 9123-4567", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("(65) 9123.4567", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("65\u00a09123\u20094567", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("9123 4567", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("6591234567.0", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("91234567.00", "has more than digits: leave out +, spaces, dashes and dots (6591234567)"),
        ("6.59123E+09", "was shortened by a spreadsheet"),
        ("7E9", "was shortened by a spreadsheet"),
        ("9abcdefg", "is no phone number"),
        ("Emily", "is no phone number"),
        ("²", "is no phone number"),
        ("٦٥٩١٢٣٤٥٦٧", "is no phone number"),
        ("+", "is no phone number"),
        ("0591234567", "starts with 0"),
        ("659123456", "has 9 digits"),
        ("6" * 5000, "no possible phone number"),
        ("1415555267", "no possible phone number"),
    ],
)
def test_advice_on_a_recipient_fits_what_was_written(value: str, advice: str) -> None:
    """Following it gives a number that is accepted, where there is one."""
    assert advice in told("recipient_invalid", value, "recipient")


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("englsh", "english was probably meant"),
        (" english", "english was probably meant"),
        ("chines", "chinese was probably meant"),
        ("klingon", "use english, malay"),
    ],
)
def test_advice_on_a_language_names_one(value: str, advice: str) -> None:
    """The one that was meant, or those that there are."""
    assert advice in told("language_unknown", value, "language")


def test_an_avoidable_character_is_named_with_its_replacement() -> None:
    """Each of them, once."""
    assert told("parameter_avoidable_character", "“It’s’") == (
        'name has characters to avoid: U+201C LEFT DOUBLE QUOTATION MARK (use "), '
        "U+2019 RIGHT SINGLE QUOTATION MARK (use ')"
    )


def test_many_avoidable_characters_are_told_in_short() -> None:
    """Ten by name, the rest by number."""
    assert told("parameter_avoidable_character", "“”‘’–—…«»´`~").endswith("and 2 more")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("a\tb", "a tab"),
        ("a\rb", "a carriage return without a line feed"),
        ("a\r\nb\x07c", "U+0007"),
        ("a\x85b", "U+0085"),
        ("a\x7fb", "U+007F"),
    ],
)
def test_a_control_character_is_named(value: str, named: str) -> None:
    """Nobody can see it."""
    assert told("parameter_control_character", value) == (
        f"name has {named if named.startswith('a ') else f'a control character ({named})'}: remove it"
    )


@pytest.mark.parametrize("code", ["message_too_long", "body_over_320"])
def test_large_numbers_are_grouped(code: str) -> None:
    """As people write them."""
    assert "12,345 characters" in told(code, "12345", None)


@given(code=st.sampled_from(VALUE_CODES), value=st.text())
def test_a_sentence_is_short_and_harmless_whatever_the_value(code: str, value: str) -> None:
    """One line, no control characters, and nothing that a spreadsheet would run."""
    text = told(code, value, code.partition("_")[0])
    assert text[0] not in "=+-@\t\r"
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in text)
    assert len(text) < 400


@given(value=st.text(min_size=1).filter(lambda text: any(ord(c) < 0x20 and c not in "\r\n" for c in text)))
def test_every_control_character_has_a_name(value: str) -> None:
    """Whatever stands around it."""
    assert told("parameter_control_character", value).endswith(": remove it")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        ("a\r\nb\tc", '"a b c"'),
        ("x" * 40, f'"{"x" * 40}"'),
        ("x" * 1041, f'"{"x" * 40}…" (1041 characters)'),
    ],
)
def test_a_value_is_shown_in_short(value: str, text: str) -> None:
    """On one line."""
    assert told("language_unknown", value, "language").startswith(f"language {text} is unknown")


@pytest.mark.parametrize("number", ["91234567", "81234567", "61234567", "31234567"])
def test_a_bare_local_number_lacks_its_code(number: str) -> None:
    """Eight digits that start as numbers of this country do."""
    assert "lacks the country code" in told("recipient_invalid", number)


@pytest.mark.parametrize("text", ["9123456", "912345678", "11234567", "9abcdefg", "9123 456", "9123456٧", "9123456\n"])
def test_other_text_does_not_lack_a_code(text: str) -> None:
    """A word of eight characters is no number that only needs 65 before it."""
    assert "lacks the country code" not in told("recipient_invalid", text)
