"""Which numbers are possible, held against libphonenumber itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.reference_validator import is_possible as possible_by_libphonenumber

from postern.sms.recipients import is_local, is_possible, lacks_calling_code


def possible(number: str) -> bool:
    return is_possible(number[:3], len(number))


@pytest.mark.parametrize(
    "number",
    [
        "6591234567",
        "6581234567",
        "6561234567",
        "6500000000",
        "6511111111",  # the simulator's
        "6522222222",
        "14155552671",
        "447911123456",
        "8613800138000",
        "60123456789",
        "33123456789",
        "61234567",  # Australian
        "390612345678",
        "870773111632",  # Inmarsat, of no country
        "61412345678",
    ],
)
def test_a_number_that_can_exist_is_possible(number: str) -> None:
    """An assigned calling code, and a length that its numbers can have."""
    assert possible(number)


@pytest.mark.parametrize(
    "number",
    [
        "",
        "6",
        "65",
        "651",
        "659123456",
        "65912345678",
        "91234567",
        "81234567",
        "0591234567",
        "006591234567",
        "9991234567",
        "1415555267",
        "141555526711",
        "2100000000",
    ],
)
def test_a_number_that_cannot_exist_is_not(number: str) -> None:
    """No code, a code that nobody has, or digits too few or too many."""
    assert not possible(number)


@given(st.text(alphabet="0123456789", min_size=1, max_size=15))
def test_possible_is_what_libphonenumber_says(number: str) -> None:
    """For every number of up to 15 digits, local rules aside."""
    assert possible(number) == possible_by_libphonenumber(number)


def test_every_calling_code_has_the_lengths_of_libphonenumber() -> None:
    """Three digits and a length decide, for all of them."""
    numbers = [f"{code:03}".ljust(length, "2") for code in range(1000) for length in range(4, 16)]
    assert [number for number in numbers if possible(number) != possible_by_libphonenumber(number)] == []


@pytest.mark.parametrize("number", ["91234567", "81234567", "61234567", "31234567"])
def test_a_bare_local_number_lacks_its_code(number: str) -> None:
    """Eight digits that start as numbers of this country do."""
    assert lacks_calling_code(number)


@pytest.mark.parametrize("text", ["9123456", "912345678", "11234567", "9abcdefg", "9123 456", "9123456٧", "9123456\n"])
def test_other_text_does_not_lack_a_code(text: str) -> None:
    """A word of eight characters is no number that only needs 65 before it."""
    assert not lacks_calling_code(text)


@pytest.mark.parametrize(("number", "local"), [("6591234567", True), ("6011234567", False), ("", False)])
def test_local_numbers_are_those_of_65(number: str, local: bool) -> None:
    """They cost less."""
    assert is_local(number) is local
