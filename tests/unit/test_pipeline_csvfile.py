"""Bytes to records: what is read, with which numbers, and what is said of a file that cannot be read."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.reference_validator import read_records

from pipeline.csvfile import read_header, records
from pipeline.fault import HOW_TO_SAVE, Fault
from pipeline.text import check_bytes, check_utf8
from postern.model import Finding

BOM = codecs.BOM_UTF8


def finding_of(data: bytes) -> Finding:
    """The fault of a file, whichever step finds it."""
    with pytest.raises(Fault) as caught:
        read(data)
    return caught.value.finding


def read(data: bytes) -> list[tuple[int, list[str]]]:
    """Row number and fields of every record."""
    check_bytes(data)
    check_utf8(data)
    read_header(data)
    return [(record.row, record.fields) for record in records(data)]


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"a,b", ["a", "b"]),
        (b"a,b\n", ["a", "b"]),
        (b"a,b\r\n", ["a", "b"]),
        (BOM + b"a,b\n", ["a", "b"]),
        (b"a,\n", ["a", ""]),
        (b",,,\n", ["", "", "", ""]),
        (b'""\n', [""]),
        (b'"","",a', ["", "", "a"]),
        (b" a , b \n", [" a ", " b "]),
        (b'"a,b",c\n', ["a,b", "c"]),
        (b'"say ""hi""",c\n', ['say "hi"', "c"]),
        (b'"""",c\n', ['"', "c"]),
        (b'"a\nb\r\nc\rd",e\r\n', ["a\nb\r\nc\rd", "e"]),
        ("é,汉😀\u2028\x85\x0b\x1c".encode(), ["é", "汉😀\u2028\x85\x0b\x1c"]),
        (b"a;b\tc|d'e\\,f", ["a;b\tc|d'e\\", "f"]),
        ("a,\ufeffb".encode(), ["a", "\ufeffb"]),
    ],
)
def test_a_record_is_read_as_it_is(data: bytes, fields: list[str]) -> None:
    """Nothing is trimmed, padded, cut or repaired."""
    assert read(data) == [(1, fields)]


def test_rows_are_numbered_as_a_spreadsheet_does() -> None:
    """Blank lines count, line breaks inside values do not."""
    data = b'\na,b\n\r\n\n"c\nd\n",e\n\nf,g\n\n'
    assert read(data) == [(2, ["a", "b"]), (5, ["c\nd\n", "e"]), (7, ["f", "g"])]


@given(st.text(alphabet='ab",\r\n'))
def test_records_are_those_of_rfc_4180(text: str) -> None:
    """Any arrangement of quotes, commas and line ends is read as the plain reader reads it, or refused as it does."""
    try:
        expected: object = [(row, fields) for row, fields in enumerate(read_records(text), 1) if fields is not None]
    except Exception as error:  # noqa: BLE001 - the text is the code
        expected = str(error)
    try:
        found: object = [(record.row, record.fields) for record in records(text.encode())]
    except Fault as fault:
        found = fault.finding.code
    assert found == expected


@pytest.mark.parametrize("data", [b"", BOM])
def test_an_empty_file_is_told(data: bytes) -> None:
    """A byte order mark alone is nothing, either."""
    assert finding_of(data).code == "file_empty"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0rest", "old Excel workbook"),
        (b"\x1f\x8brest", "gzip"),
        (b"\x28\xb5\x2f\xfdrest", "Zstandard"),
        (b"BZh9rest", "bzip2"),
        (b"\xfd7zXZrest", "xz"),
        (b"7z\xbc\xafrest", "7-Zip"),
        (b"%PDF-1.7", "PDF"),
        (b"-----BEGIN PGP MESSAGE-----", "encrypted"),
        ("recipient,language\n".encode("utf-16"), "UTF-16"),
        (codecs.BOM_UTF16_BE + "recipient\n".encode("utf-16-be"), "UTF-16"),
        ("recipient\n".encode("utf-16-le"), "NUL byte at line 1, byte 2"),
        ("recipient\n".encode("utf-32-be"), "NUL byte at line 1, byte 1"),
        (b"a,b\nc,\0d\n", "NUL byte at line 2, byte 3"),
        ("a,b\nc,é\n".encode("latin-1"), "byte 0xE9 at line 2, byte 3"),
        (BOM + "é".encode("cp1252"), "byte 0xE9 at line 1, byte 4"),
        ("a,b\nc,汉\n".encode("gb18030"), "0xBA at line 2, byte 3"),
        (b"a\n\xed\xa0\x80\n", "byte 0xED at line 2, byte 1"),
        (b"a\n\xc0\xaf\n", "byte 0xC0 at line 2, byte 1"),
        ("a\n汉".encode()[:-1], "byte 0xE6 at line 2, byte 1"),
    ],
)
def test_a_file_that_is_no_utf_8_text_is_told(data: bytes, told: str) -> None:
    """What was found, where, and how to save the file properly."""
    finding = finding_of(data)
    assert (finding.code, finding.row, finding.column) == ("file_encoding", None, None)
    assert told in finding.sentence
    assert finding.sentence.endswith(HOW_TO_SAVE)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a,b\rc,d\r", 1),
        (b"a,b\r", 1),
        (b"\r", 1),
        (b"a\nb\rc\n", 2),
        (b"a\nb\r\r\n", 2),
        (b"a\n\r\r\n", 2),
        (b'a\n"b"\r\r\n', 2),
        (b'a\n"b\nc"\rd\n', 3),
    ],
)
def test_a_carriage_return_alone_is_told_with_its_line(data: bytes, line: int) -> None:
    """Outside quotes; old Macs and some exports end lines so."""
    finding = finding_of(data)
    assert finding.code == "file_encoding"
    assert finding.sentence.startswith(f"Line {line} has a carriage return")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'a\nb "c" d\n', "Line 2 has a quotation mark inside a field"),
        (b'a\n b,"\n', "record that starts in line 2 opens a quotation mark"),
        (b'a\n "b"\n', "Line 2 has a quotation mark inside a field"),
        (b'a\nb"\n', "Line 2 has a quotation mark inside a field"),
        (b'a\n"b\nc",d"e\n', "Line 3 has a quotation mark inside a field"),
        (b'a\n"b" ,c\n', "record that starts in line 2 has text after a closing quotation mark (line 2)"),
        (b'a\n"b\nc"d\n', "record that starts in line 2 has text after a closing quotation mark (line 3)"),
        (b'a\n\n"b\nc\n\n', "record that starts in line 3 opens a quotation mark that never closes"),
        (b'"', "record that starts in line 1 opens a quotation mark that never closes"),
    ],
)
def test_malformed_quoting_is_told_with_its_line(data: bytes, told: str) -> None:
    """Lines as an editor counts them, since a person looks there."""
    finding = finding_of(data)
    assert finding.code == "file_quoting"
    assert told in finding.sentence


def test_a_header_that_is_none_is_refused_before_it_is_read() -> None:
    """As of a file whose line ends were lost."""
    assert read(b"a" * 65_536 + b"\nb\n")[1] == (2, ["b"])
    assert finding_of(b"a" * 65_537 + b"\nb\n").code == "file_header_too_long"
    assert finding_of(b"\n" + b"," * 29_000_000).code == "file_header_too_long"
    assert finding_of(b'"a\n"' + b",b" * 2_000_000 + b"\nc\n").code == "file_header_too_long"


def test_a_field_may_be_as_large_as_the_file() -> None:
    """The csv module's own limit is no rule of ours."""
    assert read(b'a\n"' + b"x" * 1_000_000 + b'"') == [(1, ["a"]), (2, ["x" * 1_000_000])]
