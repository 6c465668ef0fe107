"""Headers: which are right, and what is told of those that are not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fault import Fault
from pipeline.header import check_header
from postern.model import Finding

COLUMNS = ("recipient", "language", "name", "topic")


def finding_of(*fields: str, parameters: Sequence[str] = ("name", "topic")) -> Finding:
    with pytest.raises(Fault) as caught:
        check_header(list(fields), parameters, row=1)
    return caught.value.finding


@given(st.permutations(COLUMNS), st.booleans())
def test_columns_may_stand_in_any_order(columns: list[str], reasons: bool) -> None:
    """With the last column of a report or without."""
    fields = [*columns, "Error Reason"] if reasons else columns
    assert check_header(fields, ("name", "topic"), row=1) == columns


def test_a_campaign_without_parameters_has_two_columns() -> None:
    """Recipient and language."""
    assert check_header(["language", "recipient"], (), row=1) == ["language", "recipient"]


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        (["recipient", "language", "name"], "missing", "topic is missing"),
        (["recipient"], "missing", "language is missing; name is missing; topic is missing"),
        (["Error Reason"], "missing", "recipient is missing"),
        ([*COLUMNS, "extra"], "unknown", "'extra' is not a column of this campaign"),
        ([*COLUMNS, ""], "unknown", "a column without a name is not a column of this campaign"),
        ([*COLUMNS, "error reason"], "unknown", "'error reason' is not a column"),
        (["Error Reason", *COLUMNS], "unknown", "'Error Reason' is not a column"),
        ([*COLUMNS, "Error Reason", "Error Reason"], "unknown", "'Error Reason' is not a column"),
        (["\ufeffrecipient", *COLUMNS[1:]], "unknown", "(recipient was probably meant); recipient is missing"),
        (["recipent", *COLUMNS[1:]], "unknown", "'recipent' is not a column of this campaign (recipient was"),
        ([*COLUMNS, "name"], "duplicate", "name stands there 2 times"),
        ([*COLUMNS, "name", "name"], "duplicate", "name stands there 3 times"),
        (["Recipient", *COLUMNS[1:]], "misspelled", "'Recipient' must be written recipient"),
        (["RECIPIENT", *COLUMNS[1:]], "misspelled", "'RECIPIENT' must be written recipient"),
        ([" recipient", *COLUMNS[1:]], "misspelled", "' recipient' must be written recipient"),
        (["recipient\n", *COLUMNS[1:]], "misspelled", r"'recipient\n' must be written recipient"),
        (["recipient;language;name;topic"], "separator", "separated by semicolons"),
        (["recipient\tlanguage"], "separator", "separated by tabs"),
        (["name|recipient"], "separator", "separated by vertical bars"),
    ],
)
def test_a_wrong_header_is_told(fields: list[str], code: str, told: str) -> None:
    """The column by its name, and the one that was meant where it is close."""
    finding = finding_of(*fields)
    assert (finding.code, finding.row, finding.column) == (f"file_header_{code}", 1, None)
    assert told in finding.sentence


def test_all_that_is_wrong_is_told_at_once() -> None:
    """The code is that of the first thing, the sentence has all of them."""
    finding = finding_of("Recipient", "name", "name", "other")
    assert finding.code == "file_header_misspelled"
    assert finding.sentence == (
        "The header is not right: 'Recipient' must be written recipient; name stands there 2 times; "
        "'other' is not a column of this campaign; language is missing; topic is missing."
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["column {}", "{}", "\nrecipient{}"])
def test_a_header_of_a_million_columns_is_told_in_short(name: str) -> None:
    """In seconds, and in a sentence that fits into a mail."""
    assert len(finding_of(*(name.format(number) for number in range(1_000_000))).sentence) < 2_000


@pytest.mark.parametrize(
    "fields", [[" " * 60_000 + "recipient", "x"], ["Recipient"] * 7_000, ["x" * 60_000, "recipient"]]
)
def test_names_are_shown_in_short(fields: list[str]) -> None:
    """However long they are, and however many."""
    assert len(finding_of(*fields).sentence) < 2_000
