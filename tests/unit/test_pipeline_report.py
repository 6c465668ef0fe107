"""The validation report: the upload as it was, what to do about each row, and fit to be uploaded again."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.csv_files import corrupted_files
from unit.pipeline_fixtures import GOOD, HEADER, Judge, Judged, csv_text, rows_of, ruleset

from postern.model import Environment

COLUMNS = ["recipient", "language", "name", "topic"]
RECIPIENT_EMPTY = "recipient is empty: give a phone number with its country code, such as 6591234567"
HARMFUL = ("=", "+", "-", "@", "\t", "\r")


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judges a file."""
    return Judge(tmp_path)


def report_of(judged: Judged) -> list[list[str]]:
    assert judged.report is not None
    return rows_of(judged.report)


def test_a_report_has_every_row_in_order(judge: Judge) -> None:
    """Good ones with an empty reason, bad ones with what to do."""
    rows = [["6591234567", "english", "A", "x"], ["", "english", "", "y"], ["6591234568", "chinese", "B", "z"]]
    report = report_of(judge(csv_text([COLUMNS, *rows])))
    assert report == [
        [*COLUMNS, "Error Reason"],
        [*rows[0], ""],
        [
            *rows[1],
            f"{RECIPIENT_EMPTY}; name is empty: every row needs a value for it",
        ],
        [*rows[2], ""],
    ]


def test_a_report_opens_with_the_right_characters(judge: Judge, tmp_path: Path) -> None:
    """A byte order mark, once, also for a file that had one; lines end as spreadsheets end them."""
    for mark in ("", "\ufeff"):
        judge(mark + HEADER + "x,english,陈大文,é\n")
        data = (tmp_path / "report.csv").read_bytes()
        assert data.startswith(b"\xef\xbb\xbfrecipient,")
        assert data.count(b"\xef\xbb\xbf") == 1
        assert data.endswith(b"\r\n")
        assert "陈大文,é".encode() in data


VALUES = [
    "+6591234567",
    "=1+1",
    "-1",
    "@x",
    "007",
    " a ",
    '"',
    "a,b",
    "a\nb",
    "a\r\nb",
    "a\rb",
    "\t",
    "\u00a0",
    "1e9",
    "é",
]


@pytest.mark.parametrize("value", [*VALUES, "\ufeff", "\u2028", "\x0b", "\x1c", "", "Error Reason", "😀"])
def test_values_are_kept_exactly(judge: Judge, value: str) -> None:
    """No guard, no trimming: what is uploaded again must be what was meant."""
    row = [value, value, value, value]
    assert report_of(judge(csv_text([COLUMNS, row])))[1][:-1] == row


def test_a_report_has_a_workable_line_for_ragged_rows(judge: Judge) -> None:
    """A short row is filled up to the reason's column; a long one keeps its extra fields before it."""
    report = report_of(judge(csv_text([COLUMNS, ["1", "2"], ["1", "2", "3", "4", "5", "6"]])))
    assert [row[:-1] for row in report[1:]] == [["1", "2", "", ""], ["1", "2", "3", "4", "5", "6"]]
    assert [row[-1].split(":")[0] for row in report[1:]] == [
        "row has 2 fields where the header has 4",
        "row has 6 fields where the header has 4",
    ]


def test_rows_of_a_report_have_the_numbers_that_were_told(judge: Judge) -> None:
    """Blank lines stay where they were."""
    judged = judge("\n" + HEADER + "\n\r\n" + GOOD + "\nx,english,a,b\n\n")
    (row, _column, _code) = judged.codes[0]
    assert row == 7
    assert report_of(judged)[row - 1][0] == "x"
    assert report_of(judged)[row - 1][-1] == judged.sentences[0]


def test_a_repaired_report_is_accepted(judge: Judge) -> None:
    """A person mends the cells that the reasons name, leaves the rest, and uploads it."""
    content = csv_text([COLUMNS, ["91234567", "english", "It’s", "a\nb"], ["6591234568", "englsh", "A", "b, c"]])
    first = judge(content)
    assert first.report is not None
    repaired = first.report
    for wrong, right in (("91234567,", "6591234567,"), ("It’s", "It's"), ("englsh", "english")):
        repaired = repaired.replace(wrong, right, 1)
    second = judge("\ufeff" + repaired)
    assert second.codes == []
    assert second.outcome.verdict.total_rows == 2


def test_a_report_that_was_not_repaired_makes_the_same_report(judge: Judge) -> None:
    """Reasons do not pile up, and the last column is not taken for a field too many."""
    rows = [["1", "english", "’", "b"], [], ["6591234567", "x", "a", ""], ["1", "2", "3", "4", "5"]]
    content = csv_text([COLUMNS, *rows])
    first = judge(content)
    second = judge("\ufeff" + (first.report or ""))
    assert second.codes == first.codes
    assert [row[:-1] for row in rows_of(second.report or "")] == [row[:-1] for row in rows_of(first.report or "")]


@pytest.mark.parametrize("missing", ["", ",,"])
def test_a_report_whose_reasons_were_cut_off_is_judged(judge: Judge, missing: str) -> None:
    """A row with the reason's column missing has too few fields; with one more, too many."""
    judged = judge("recipient,language,name,topic,Error Reason\n6591234567,english,A,b" + missing + "\n")
    assert judged.codes == [(2, None, "row_too_many_fields" if missing else "row_too_few_fields")]
    expected = ["6591234567", "english", "A", "b", *([""] if missing else [])]
    assert report_of(judged)[1][:-1] == expected


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("", [["Error Reason"]]),
        (b"PK\x03\x04", [["Error Reason"]]),
        ("x" * 70_000, [["Error Reason"]]),
        (HEADER, [[*COLUMNS, "Error Reason"], ["", "", "", ""]]),
        (HEADER.replace("topic", "Topic") + GOOD, [[*COLUMNS[:3], "Topic", "Error Reason"], GOOD.strip().split(",")]),
        (HEADER + GOOD + 'a,b,"c', [[*COLUMNS, "Error Reason"], GOOD.strip().split(",")]),
        (HEADER.encode() + b"a,b,\xe9,d\n", [[*COLUMNS, "Error Reason"], ["a", "b", "\ufffd", "d"]]),
        (HEADER.replace(",", ";"), [["recipient;language;name;topic", "Error Reason"], [""]]),
    ],
)
def test_a_file_error_makes_a_report_of_what_could_be_read(
    judge: Judge, content: str | bytes, kept: list[list[str]]
) -> None:
    """The reason stands once, in the first row that there is."""
    judged = judge(content)
    report = report_of(judged)
    assert report[0] == kept[0]
    assert [row[:-1] for row in report[1:]] == (kept[1:] or [[]])
    assert [row[-1] for row in report[1:]] == judged.sentences


def test_too_many_rows_are_all_in_the_report(judge: Judge) -> None:
    """In the test environment; the reason stands in the first."""
    judged = judge(HEADER + GOOD * 21, ruleset(environment=Environment.TEST))
    report = report_of(judged)
    assert len(report) == 22
    assert [row[-1] for row in report[1:]] == [judged.sentences[0], *[""] * 20]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=corrupted_files())
def test_nothing_of_ours_runs_as_a_formula(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever the file is: the header's last cell and every reason start with a letter."""
    judged = Judge(tmp_path_factory.mktemp("report"))(data)
    told = [*judged.sentences, *([row[-1] for row in report_of(judged) if row] if judged.report else [])]
    assert [text for text in told if text and not text[0].isalpha()] == []
    assert [text for text in told if text.startswith(HARMFUL)] == []


CELLS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=4))
def test_any_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    """Every cell of every row, as an independent reader of the report sees it."""
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([COLUMNS, *rows, ["", "", "", ""]])
    report = report_of(Judge(tmp_path_factory.mktemp("report"))(written.getvalue()))
    assert [row[:-1] for row in report] == [COLUMNS, *rows, ["", "", "", ""]]
