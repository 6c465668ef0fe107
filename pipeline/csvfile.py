"""Bytes → records: what kind of file it is, and its records with the row and line numbers that people see.

Strict RFC 4180 over UTF-8: nothing is padded, cut, trimmed or repaired. What cannot be read is a `Fault`: one
finding for the file as a whole, with what was found, where, and how to save the file properly.
"""

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
    """The file cannot be read as a whole; carries the one finding that says why."""

    def __init__(self, code: str, sentence: str, *, row: int | None = None) -> None:
        super().__init__(sentence)
        self.finding = Finding(code=code, sentence=sentence, row=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the file."""

    row: int  # as a spreadsheet shows it: records and blank lines counted, from 1
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
            raise Fault("file_encoding", f"The file is {kind}, not a CSV file. {HOW_TO_SAVE}")
    nul = data.find(b"\0")
    if nul >= 0:
        raise Fault("file_encoding", f"The file has a NUL byte at {_place(data, nul)}; it is no text. {HOW_TO_SAVE}")


def decode(data: bytes) -> str:
    """The file's text, without a byte order mark.

    Raises:
        Fault: `file_encoding`: it is not UTF-8; says where it stops being so.
    """
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + (len(BOM) if data.startswith(BOM) else 0)
        raise Fault(
            "file_encoding",
            f"The file is not UTF-8: byte 0x{data[offset]:02X} at {_place(data, offset)} cannot be read. {HOW_TO_SAVE}",
        ) from None


def readable(data: bytes) -> str:
    """The file's text as far as it can be read, for a report about a file that cannot be read as a whole."""
    return data.removeprefix(BOM).decode("utf-8", errors="replace")


def records(text: str) -> Iterator[Record]:
    """The records of a file in order; blank lines are skipped, and counted.

    Raises:
        Fault: `file_quoting` or `file_encoding` (a carriage return that ends no line), with the line.
    """
    csv.field_size_limit(2**31 - 1)
    source = _Lines(text)
    reader = csv.reader(source, strict=True)
    row = 0
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
            yield Record(row=row, fields=fields)


def chunks(source: Iterator[Record]) -> Iterator[list[Record]]:
    """Records in lists of a bounded size."""
    collected: list[Record] = []
    for record in source:
        collected.append(record)
        if len(collected) == _CHUNK:
            yield collected
            collected = []
    if collected:
        yield collected


def check_header_size(data: bytes) -> None:
    """Refuse a first line that is no header, before anything is parsed.

    Raises:
        Fault: `file_header_too_long`.
    """
    if len(data.partition(b"\n")[0]) > _LONGEST_HEADER:
        raise Fault(
            "file_header_too_long",
            f"The first line is longer than {_LONGEST_HEADER:,} bytes; it should hold the column names only. "
            "Check that the file has line ends.",
        )


class _Lines:
    """The lines of a text, ended by LF only, remembering those of the record that is being read."""

    def __init__(self, text: str) -> None:
        self._source = io.StringIO(text, newline="\n")
        self._taken: list[str] = []
        self.line = 0

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
