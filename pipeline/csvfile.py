"""Bytes → records: what kind of file it is, and its records with the row and line numbers that people see.

Strict RFC 4180 over UTF-8: nothing is padded, cut, trimmed or repaired. What cannot be read is a `Fault`: one
finding for the file as a whole, with what was found, where, and how to save the file properly.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from postern.model import Finding

BOM = b"\xef\xbb\xbf"
HOW_TO_SAVE = 'In Excel, save the file as "CSV UTF-8 (Comma delimited)".'
_LONGEST_HEADER = 65_536  # bytes
_CHUNK = 10_000  # records
_PIECE = 1 << 20  # bytes
# A record of RFC 4180, quoted or plain fields; possessive, so that it takes time in proportion to the record.
_RECORD = re.compile(r'(?:"(?:[^"]|"")*+"|[^",\r\n]*+)(?:,(?:"(?:[^"]|"")*+"|[^",\r\n]*+))*+(?:\r?\n)?')
_KINDS = (  # how well-known files begin
    (b"PK\x03\x04", "an Excel workbook or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"%PDF", "a PDF document"),
    (b"-----BEGIN PGP", "an encrypted file"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)


class Fault(Exception):  # noqa: N818 - never leaves this package: `pipeline.validate` turns it into the verdict
    """The file cannot be read as a whole; carries the one finding that says why, and whether it has rows to show."""

    def __init__(self, code: str, sentence: str, *, row: int | None = None, has_rows: bool = True) -> None:
        super().__init__(sentence)
        self.finding = Finding(code=code, sentence=sentence, row=row)
        self.has_rows = has_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the file."""

    row: int  # as a spreadsheet shows it: records and blank lines counted, from 1
    line: int  # its last one, from 1; 0 where nobody needs it
    fields: list[str]


def check_bytes(data: bytes) -> None:
    """Refuse what is no UTF-8 text.

    Raises:
        Fault: `file_empty` or `file_encoding`.
    """
    if not data.removeprefix(BOM):
        raise Fault("file_empty", "The file is empty. Export it again, with a header and at least one row.")
    for start, kind in _KINDS:
        if data.startswith(start):
            raise Fault("file_encoding", f"The file is {kind}, not a CSV file. {HOW_TO_SAVE}", has_rows=False)
    nul = data.find(b"\0")
    if nul >= 0:
        where = _place(data, nul)
        raise Fault(
            "file_encoding", f"The file has a NUL byte at {where}; it is no text. {HOW_TO_SAVE}", has_rows=False
        )


def check_utf8(data: bytes) -> None:
    """Refuse what is not UTF-8, without keeping a decoded copy.

    Raises:
        Fault: `file_encoding`; says where it stops being UTF-8.
    """
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _PIECE):
        try:
            decoder.decode(data[start : start + _PIECE], final=start + _PIECE >= len(data))
        except UnicodeDecodeError:
            offset = _first_undecodable(data)
            what = f"byte 0x{data[offset]:02X} at {_place(data, offset)}"
            raise Fault("file_encoding", f"The file is not UTF-8: {what} cannot be read. {HOW_TO_SAVE}") from None


def _first_undecodable(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("the pieces could not be decoded, the whole can")


def records(data: bytes, *, start: int = 0, row: int = 0, line: int = 0) -> Iterator[Record]:
    """The records of a file in order; blank lines are skipped, and counted. Bytes that are not UTF-8 read as U+FFFD.

    Args:
        data: the whole file.
        start: the offset to start from, behind a record.
        row: records and blank lines before it.
        line: lines before it.

    Raises:
        Fault: `file_quoting` or `file_encoding` (a carriage return that ends no line), with the line.
    """
    csv.field_size_limit(2**31 - 1)
    source = _Lines(data, start, line)
    reader = csv.reader(source, strict=True)
    while True:
        start = source.line + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _malformed(error, start, source.line, source.take()) from None
        row += 1
        raw = source.take()
        if ('"' in raw or raw.count("\r") > raw.endswith("\r\n")) and not _RECORD.fullmatch(raw):
            raise _misplaced(start, raw)
        if fields:
            yield Record(row=row, line=source.line, fields=fields)


def in_lists(source: Iterator[Record]) -> Iterator[list[Record]]:
    """Records in lists of a bounded size."""
    collected: list[Record] = []
    for record in source:
        collected.append(record)
        if len(collected) == _CHUNK:
            yield collected
            collected = []
    if collected:
        yield collected


def offset_of_line(data: bytes, line: int) -> int:
    """Where a line (from 1) starts; the end of the data where there are not so many."""
    offset = 0
    for _ in range(line - 1):
        offset = data.find(b"\n", offset) + 1
        if offset == 0:
            return len(data)
    return offset


def check_header_size(data: bytes) -> None:
    """Refuse a first line that is no header, before anything is parsed.

    Raises:
        Fault: `file_header_too_long`.
    """
    if len(data) > _LONGEST_HEADER and data.find(b"\n", 0, _LONGEST_HEADER + 1) < 0:
        raise Fault(
            "file_header_too_long",
            f"The first line is longer than {_LONGEST_HEADER:,} bytes; it should hold the column names only. "
            "Check that the file has line ends.",
            has_rows=False,
        )


class _Lines:
    """The lines of a file, ended by LF only, remembering those of the record that is being read."""

    def __init__(self, data: bytes, start: int, line: int) -> None:
        source = io.BytesIO(data)  # shares the bytes
        source.seek(start or len(BOM) * data.startswith(BOM))
        self._source = io.TextIOWrapper(source, encoding="utf-8", errors="replace", newline="\n")
        self._taken: list[str] = []
        self.line = line

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.line += 1
        self._taken.append(line)
        return line

    def take(self) -> str:
        raw = "".join(self._taken)
        self._taken.clear()
        return raw


def _misplaced(start: int, raw: str) -> Fault:
    """What stands where a proper record would end: the csv module passes over it, or finds it later."""
    match = _RECORD.match(raw)
    end = match.end() if match else 0
    line = start + raw.count("\n", 0, end)
    if raw.startswith("\r", end):
        return _lone_return(line)
    return Fault(
        "file_quoting",
        f"Line {line} has a quotation mark inside a field that is not quoted. Put the whole field in "
        'quotation marks, and write each one inside it twice: "say ""hi"" now".',
    )


def _malformed(error: csv.Error, start: int, line: int, raw: str) -> Fault:
    what = str(error)
    if "new-line character" in what:
        return _misplaced(start, raw)
    if "unexpected end of data" in what:
        return Fault(
            "file_quoting",
            f"The record that starts in line {start} opens a quotation mark that never closes. Close or remove it.",
        )
    return Fault(
        "file_quoting",
        f"The record that starts in line {start} has text after a closing quotation mark (line {line}). Write a "
        'quotation mark inside a quoted field twice: "say ""hi"" now".',
    )


def _lone_return(line: int) -> Fault:
    return Fault(
        "file_encoding",
        f"Line {line} has a carriage return (CR) that is not followed by a line feed. End lines with LF or CRLF. "
        f"{HOW_TO_SAVE}",
    )


def _place(data: bytes, offset: int) -> str:
    line = data.count(b"\n", 0, offset) + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return f"line {line:,}, byte {column:,}"
