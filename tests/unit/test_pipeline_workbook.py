"""The report as a workbook: every cell text, rows where the sentences say, looks, and nothing that could run."""

import os
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from openpyxl.worksheet.worksheet import Worksheet
from unit.csv_files import corrupted_files
from unit.pipeline_fixtures import GOOD, HEADER, Judge, csv_text, rows_of, ruleset

from pipeline.ruleset import Ruleset, to_json
from pipeline.sheet import COLUMNS, LONGEST, MOST_CELLS, ROWS, fits_workbook
from pipeline.watched import WatchedProcess
from pipeline.workbook import write_workbook
from postern.model import Environment, Language

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
SHEET = "xl/worksheets/sheet1.xml"
TITLES = ["recipient", "language", "name", "topic", "Error Reason"]
PLAIN, BAD, TINTED, HEAD = "00000000", "FFF8B4AB", "FFFCE9E6", "FFE8ECF0"


class Book:
    """A workbook as its XML has it, read without the library that made it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as package:
            assert package.testzip() is None
            self.parts = {name: package.read(name) for name in package.namelist()}
        self.root = ET.fromstring(self.parts[SHEET])
        self.cells = {cell.attrib["r"]: cell for cell in self.root.iter(f"{MAIN}c")}

    def row(self, number: int) -> list[str]:
        """The values of a row up to the last one that is not empty, as a spreadsheet shows them."""
        found = {column_of(name): shown(cell) for name, cell in self.cells.items() if row_of(name) == number}
        values = [found.get(column, "") for column in range(max(found, default=-1) + 1)]
        while values and not values[-1]:
            values.pop()
        return values

    @property
    def rows(self) -> list[list[str]]:
        return [self.row(number) for number in range(1, max(map(row_of, self.cells)) + 1)]

    @property
    def sheet(self) -> Worksheet:
        """As openpyxl reads it."""
        sheet = openpyxl.load_workbook(self.path).active
        assert isinstance(sheet, Worksheet)
        return sheet

    def fills(self, row: int) -> list[str]:
        """The background of each cell of a row."""
        return [cell.fill.fgColor.rgb for cell in self.sheet[row] if cell.has_style]


def row_of(name: str) -> int:
    return int(name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def column_of(name: str) -> int:
    number = 0
    for letter in name.rstrip("0123456789"):
        number = number * 26 + ord(letter) - 64
    return number - 1


def shown(cell: ET.Element) -> str:
    """The text of a cell with its escapes undone (ECMA-376 Part 1, 22.9.2.19); it must be text, or nothing."""
    if not len(cell):
        assert set(cell.attrib) == {"r", "s"}
        return ""
    assert cell.attrib["t"] == "inlineStr"
    assert [child.tag for child in cell.iter()] == [f"{MAIN}c", f"{MAIN}is", f"{MAIN}t"]
    text = cell[0][0].text or ""
    return re.sub("_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)


Make = Callable[..., Book]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the workbook of a file."""

    def made(content: str | bytes, rules: Ruleset | None = None) -> Book:
        data = content.encode() if isinstance(content, str) else content
        write_workbook(tmp_path / "report.xlsx", data, rules or ruleset())
        return Book(tmp_path / "report.xlsx")

    return made


def test_every_row_stands_where_the_sentences_say(make: Make) -> None:
    """In order, blank lines as blank rows; good rows without a reason."""
    book = make("\n" + HEADER + GOOD + "\n" + ",english,Ann,tea\n" + GOOD)
    assert book.rows == [
        [],
        TITLES,
        ["6591234567", "english", "Emily", "tea"],
        [],
        [
            *["", "english", "Ann", "tea"],
            "recipient is empty: give a phone number with its country code, such as 6591234567",
        ],
        ["6591234567", "english", "Emily", "tea"],
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=corrupted_files())
def test_a_workbook_says_what_the_csv_says(tmp_path: Path, data: bytes) -> None:
    """Whatever the file is: the same rows, values and reasons; only what a longer row has besides moves behind."""
    report = Judge(tmp_path)(data).report
    if report is None or not fits_workbook(data):
        return
    write_workbook(tmp_path / "report.xlsx", data, ruleset())
    expected = rows_of(report)
    width = next(len(row) for row in expected if row) - 1
    found = Book(tmp_path / "report.xlsx").rows
    for number, row in enumerate(expected, start=1):
        moved = [*row[:width], row[-1], *row[width:-1]] if len(row) > width else row
        while moved and not moved[-1]:
            moved.pop()
        assert (found[number - 1] if number <= len(found) else []) == moved, number
    assert len(found) <= len(expected)


HARMFUL = [
    "=1+1",
    '=HYPERLINK("https://example.com","x")',
    "=cmd|' /C calc'!A0",
    "+6591234567",
    "-1",
    "@SUM(1)",
    "{=1}",
    "https://example.com",
    "mailto:a@example.com",
    "external:other.xlsx",
    "internal:Sheet1!A1",
    "<r><t>x</t></r>",
    '<r></r></is></c><c r="A9"><f>1+1</f></c><c><is><r></r>',
    "</t></is></c>",
    "]]>&amp;<!--",
    "1e5",
    "TRUE",
    "#REF!",
    "007",
    "_x0041_",
    "_x0041_x0042_",
    "_x005F_x0041_",
    "_X0041_ _x41_",
    "'quoted",
    " lead and trail ",
    "a\tb\x0b\x0c\x1f\x7f\x85",
    "a\nb\r\nc",
    "\ufffe\uffff\ufeff\u2028",
    "汉😀\U0010ffff",
]


def test_values_are_kept_and_none_can_run(make: Make) -> None:
    """Formulas, links and markup are text, and stay text where a person edits the cell."""
    book = make(csv_text([TITLES[:-1], *(["x", "english", value, value] for value in HARMFUL)]).encode())
    assert [row[2:4] for row in book.rows[1:]] == [[value, value] for value in HARMFUL]
    assert {child.tag.removeprefix(MAIN) for child in book.root} == {
        "sheetPr", "dimension", "sheetViews", "sheetFormatPr", "cols", "sheetData", "autoFilter", "pageMargins",
        "pageSetup", "ignoredErrors",
    }  # fmt: skip
    for name, part in book.parts.items():
        assert b"External" not in part, name
        assert not re.search(rb"<f[ >/]", part), name
    assert {cell.number_format for row in book.sheet.iter_rows() for cell in row} == {"@"}
    assert {cell.data_type for row in book.sheet.iter_rows() for cell in row if cell.value is not None} == {"s"}


def test_what_is_in_the_package(make: Make) -> None:
    """One sheet and what it needs: no macros, links, shared strings or names of people."""
    book = make(HEADER)
    assert sorted(book.parts) == [
        "[Content_Types].xml",
        "_rels/.rels",
        "docProps/app.xml",
        "docProps/core.xml",
        "xl/_rels/workbook.xml.rels",
        SHEET.replace("worksheets/sheet1", "styles"),
        "xl/theme/theme1.xml",
        "xl/workbook.xml",
        SHEET,
    ]


def test_the_same_file_makes_the_same_bytes(make: Make) -> None:
    """A job that runs twice changes nothing."""
    content = HEADER + GOOD + "x,english,a,b,c\n"
    assert make(content).path.read_bytes() == make(content).path.read_bytes()


def test_bad_cells_are_coloured(make: Make) -> None:
    """Each one; the whole row lightly where all of it is wrong."""
    long = "x" * 600
    book = make(
        HEADER
        + GOOD
        + "x,Englsh,a,\n"
        + ",english,a,b\n"
        + f"6591234567,english,{long},{long}\n"
        + "6591234567,english,a\n"
        + "6591234567,english,a,b,c,d\n"
    )
    assert book.fills(1) == [HEAD] * 5
    assert book.fills(2) == [PLAIN] * 5
    assert book.fills(3) == [BAD, BAD, PLAIN, BAD, PLAIN]
    assert book.fills(4) == [BAD, PLAIN, PLAIN, PLAIN, PLAIN]
    assert book.fills(5) == [TINTED] * 4 + [PLAIN]
    assert book.fills(6) == [TINTED] * 4 + [PLAIN]
    assert book.fills(7) == [TINTED] * 4 + [PLAIN] + [TINTED] * 2


def test_a_longer_row_keeps_the_reason_in_its_column(make: Make) -> None:
    """What it has besides stands behind the reason, and is filtered and sorted with its row."""
    book = make(HEADER + '1,english,a,b,"c ""d""",e,\n')
    assert book.row(2)[:4] == ["1", "english", "a", "b"]
    assert book.row(2)[4].startswith("row has 7 fields where the header has 4")
    assert book.row(2)[5:] == ['c "d"', "e"]
    assert book.sheet.auto_filter.ref == "A1:H2"


def test_a_person_finds_the_way(make: Make) -> None:
    """The header is bold and stays; every column can be filtered; widths follow what is in them."""
    sheet = make(HEADER + f"x,english,{'a' * 30},{'b' * 300}\n" * 3).sheet
    assert (sheet.freeze_panes, sheet.auto_filter.ref, sheet.dimensions) == ("A2", "A1:E4", "A1:E4")
    assert all(cell.font.bold for cell in sheet[1])
    widths = [round(sheet.column_dimensions[letter].width) for letter in "ABCDE"]
    assert widths[0] < widths[2] < widths[3] < widths[4]
    assert sheet["E2"].alignment.wrap_text


def test_rows_are_as_high_as_their_reasons(make: Make) -> None:
    """Of whole and of ragged rows, within what a row can be; other rows are left as they are."""
    rows = [["6591234567", "english", "a", "b"], ["x", "y", "", ""], ["1", "english"], ["1"] * 9]
    book = make(csv_text([TITLES[:-1], *rows]))
    lengths = [len(row[4]) if len(row) > 4 else 0 for row in book.rows]
    heights = [book.sheet.row_dimensions[number].height for number in range(1, 6)]
    assert heights == [None if length <= 80 else 15 * ((length + 79) // 80) for length in lengths]
    assert {15 * lines for lines in (2, 3)} < set(heights)


def test_reasons_of_an_earlier_report_are_replaced(make: Make) -> None:
    """A report that was uploaded again has one column of that name, also beside rows that are too long."""
    book = make("recipient,language,name,topic,Error Reason\nx,english,a,b,old\n1,english,a,b,c,old\n1,english\n")
    assert book.rows[0] == TITLES
    assert [row[4].split(" ")[0] for row in book.rows[1:]] == ["recipient", "row", "row"]
    assert book.row(3)[5:] == ["c"]
    assert book.sheet.dimensions == "A1:F4"


def test_a_parameter_may_have_any_name(make: Make) -> None:
    """Also one that the making of the workbook uses itself."""
    rules = ruleset({Language.ENGLISH: "{{reason}} {{row}} {{place}} {{value}} {{look}} {{column}} {{letters}}"})
    names = ["recipient", "language", "reason", "row", "place", "value", "look", "column", "letters"]
    book = make(csv_text([names, ["x", "english", *"abcdefg"], ["x", "english", *"abcdefgh"]]), rules)
    assert book.row(1) == [*names, "Error Reason"]
    assert book.row(2)[:9] == ["x", "english", *"abcdefg"]
    assert book.row(3)[:9] == ["x", "english", *"abcdefg"]
    assert book.row(2)[9].startswith('recipient "x"')


@pytest.mark.parametrize("character", ["x", "é", "汉", "😀"])
def test_a_value_that_no_cell_can_hold_is_cut(make: Make, character: str) -> None:
    """At what a cell holds, in UTF-16 units; the reason says so."""
    most = LONGEST // (2 if character == "😀" else 1)
    book = make(HEADER + f"1,english,{character * most},{character * (most + 1)}\n")
    _recipient, _language, name, topic, reason = book.row(2)
    assert (name, topic) == (character * most, character * most)
    assert reason.endswith("; topic is too long for a cell and was cut here; the CSV report has all of it")
    assert "name is too long" not in reason
    assert book.fills(2) == [BAD, TINTED, TINTED, TINTED, PLAIN]


def test_a_row_of_more_fields_than_a_sheet_has_columns_is_cut(make: Make) -> None:
    """The sheet is full to its last column, and the reason says what is missing."""
    book = make(HEADER + "1,english,a,b" + ",c" * COLUMNS + "\n")
    row = book.row(2)
    assert (len(row), row[-1]) == (COLUMNS, "c")
    assert "more fields than a sheet has columns" in row[4]
    assert "XFD2" in book.cells


def test_a_reason_that_no_cell_can_hold_is_cut(make: Make) -> None:
    """Where each of hundreds of columns is wrong."""
    names = [f"a_parameter_with_a_long_name_{number}" for number in range(500)]
    rules = ruleset({Language.ENGLISH: "".join(f"{{{{{name}}}}}" for name in names)})
    book = make(csv_text([["recipient", "language", *names], ["x", "english", *[""] * 500]]), rules)
    reason = book.row(2)[-1]
    assert len(reason) == LONGEST // 2 + 1
    assert reason.endswith("…")


@pytest.mark.parametrize(
    ("content", "expected", "fill"),
    [
        (HEADER, [TITLES, ["", "", "", "", "The file has a header and no rows."]], [BAD, BAD, BAD, BAD, HEAD]),
        (
            "recipient,language,nam,topic\n1,english,a,b\n2,english,c\n3,english,d,e,f\n",
            [
                ["recipient", "language", "nam", "topic", "Error Reason"],
                ["1", "english", "a", "b", "The header is not right"],
                ["2", "english", "c"],
                ["3", "english", "d", "e", "", "f"],
            ],
            [BAD, BAD, BAD, BAD, HEAD],
        ),
        (
            HEADER + '1,english,a,b\n2,english,c,d\n3,eng"lish,e,f\n4,english,g,h\n',
            [TITLES, ["1", "english", "a", "b", "Line 4 has a quotation mark"], ["2", "english", "c", "d"]],
            [HEAD] * 5,
        ),
        (
            HEADER.encode() + b"1,english,M\xfcller,a\n",
            [TITLES, ["1", "english", "M�ller", "a", "The file is not UTF-8"]],
            [HEAD] * 5,
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_as_a_whole(
    make: Make, content: str | bytes, expected: list[list[str]], fill: list[str]
) -> None:
    """What can be read, and the one sentence beside its first row; no row is judged."""
    book = make(content)
    sentences = {(number, 4): row[4] for number, row in enumerate(expected) if len(row) > 4 and number and row[4]}
    found = book.rows
    for (number, place), start in sentences.items():
        assert found[number][place].startswith(start)
        found[number][place] = start
    assert found == expected
    assert book.fills(1) == fill


def test_a_file_with_too_many_rows_for_a_test_shows_them(make: Make) -> None:
    """In the test environment."""
    book = make(HEADER + GOOD * 30, ruleset(environment=Environment.TEST))
    assert len(book.rows) == 31
    assert "more than 20 rows" in book.row(2)[4]


def test_many_rows_go_through_in_parts(make: Make) -> None:
    """None is lost or doubled where one part ends and the next begins."""
    lines = [f"{6591000000 + row},english,a,b\n" if row % 7 else f"{row},english,a\n" for row in range(100_000)]
    book = make(HEADER + "".join(lines))
    assert len(book.cells) == 5 * 100_001
    assert [row_of(name) for name in book.cells if name.startswith("A")] == list(range(1, 100_002))
    assert shown(book.cells["A100001"]) == str(6591000000 + 99_999)
    assert shown(book.cells["E99962"]).startswith("row has 3 fields")


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (HEADER.encode(), True),
        (HEADER.encode() + b"1,english,M\xfcller,a\n", True),
        (b"", False),
        (b"\xef\xbb\xbf\n\n", False),
        (b"PK\x03\x04", False),
        (HEADER.encode() + b"\0", False),
        (b'"recipient', False),
        (b"x" * 70_000, False),
        (b"a\n" + b"1\n" * (ROWS - 3), True),
        (b"a\n" + b"1\n" * (ROWS - 2), False),
        (HEADER.encode() + b"1\n" * (MOST_CELLS // 5 - 1), True),
        (HEADER.encode() + b"1\n" * (MOST_CELLS // 5), False),
        (HEADER.encode() + b"," * (MOST_CELLS - 4), True),
        (HEADER.encode() + b"," * (MOST_CELLS - 3), False),
    ],
)
def test_what_fits_a_workbook(data: bytes, fits: bool) -> None:
    """What can be read, up to what a sheet can hold."""
    assert fits_workbook(data) is fits


def test_the_longest_file_that_fits_fits(make: Make) -> None:
    """A row for the sentence goes into the sheet, too."""
    content = b"\n" * (ROWS - 3) + b"recipient\n"
    assert fits_workbook(content)
    book = make(content)
    assert max(map(row_of, book.cells)) == ROWS - 1
    assert book.sheet.freeze_panes is None


def test_it_is_made_in_a_process_that_gives_way(tmp_path: Path) -> None:
    """Niced, and asked as the validating one is."""
    (tmp_path / "data.csv").write_text(HEADER + "x,english,a,b\n", encoding="utf-8")
    process = WatchedProcess("pipeline.workbook", name="workbook", timeout=60, memory=1024)
    try:
        answer = process.ask(
            {
                "data": str(tmp_path / "data.csv"),
                "workbook": str(tmp_path / "made.xlsx"),
                "rules": to_json(ruleset()),
            }
        )
        assert process._child is not None
        assert os.getpriority(os.PRIO_PROCESS, process._child.pid) >= 10
    finally:
        process.close()
    assert answer == {}
    assert Book(tmp_path / "made.xlsx").row(1) == TITLES
