"""Which numbers are possible, held against libphonenumber itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.reference_validator import is_possible as possible_by_libphonenumber

from postern.sms.recipients import is_possible


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
