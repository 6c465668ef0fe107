"""Bytes → records: what kind of file it is, and its records with the row and line numbers that people see.

Strict RFC 4180 over UTF-8: nothing is padded, cut, trimmed or repaired. What cannot be read is a `Fault`: one
finding for the file as a whole, with what was found, where, and how to save the file properly.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from pipeline.cut import LF, count
from pipeline.source import Data, forget
from postern.model import Finding

BOM = b"\xef\xbb\xbf"
HOW_TO_SAVE = 'In Excel, save the file as "CSV UTF-8 (Comma delimited)".'
LONGEST_RECORD = 3 << 20  # bytes, with its line end; a message has 1,000 characters
_LONGEST_HEADER = 65_536  # bytes
_PIECE = 1 << 20  # bytes
_FIRST_BITS, _CONTINUES = 0xC0, 0x80  # of a byte that goes on with a character (RFC 3629, 3)
_PLAIN, _INNER = rb'[^",\r\n]*+', rb'[^"]*+(?:""[^"]*+)*+'
# Possessive, so that a record takes time in proportion to its length and no memory.
_RECORD = re.compile(rb'(?:"%b"|%b)(?:,(?:"%b"|%b))*+(\r?\n|\Z)?' % (_INNER, _PLAIN, _INNER, _PLAIN))
_FIELD = re.compile(rb'(?:\A|,)(?:"(%b)"|(%b))' % (_INNER, _PLAIN))
_BLANK_LINES = re.compile(rb"(?:\r?\n)++")
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


class Record(NamedTuple):
    """One record of the file; there can be millions, and a tuple is made fast."""

    row: int  # as a spreadsheet shows it: records and blank lines counted, from 1
    line: int  # its last one, from 1
    end: int  # offset behind it and its line end
    raw: bytes  # as it stands there, without its line end

    def values(self) -> list[bytes]:
        """Its fields without their quotation marks."""
        if b'"' not in self.raw:
            return self.raw.split(b",")
        return [_value(match) for match in _FIELD.finditer(self.raw)]

    @property
    def fields(self) -> list[str]:
        """Its fields without their quotation marks; bytes that are not UTF-8 read as U+FFFD."""
        return [value.decode("utf-8", "replace") for value in self.values()]

    @property
    def width(self) -> int:
        """The number of its fields, which can be millions."""
        return sum(1 for _ in _FIELD.finditer(self.raw)) if b'"' in self.raw else self.raw.count(b",") + 1

    @property
    def without_last(self) -> bytes:
        """It without its last field."""
        *_, last = (match.start() for match in _FIELD.finditer(self.raw))
        return self.raw[:last]


def check_bytes(data: Data) -> None:
    """Refuse what is no UTF-8 text.

    Raises:
        Fault: `file_empty` or `file_encoding`.
    """
    if len(data) == _start(data):
        raise Fault("file_empty", "The file is empty. Export it again, with a header and at least one row.")
    for start, kind in _KINDS:
        if data[: len(start)] == start:
            raise Fault("file_encoding", f"The file is {kind}, not a CSV file. {HOW_TO_SAVE}", has_rows=False)
    nul = _first_nul(data)
    if nul is not None:
        where = _place(data, nul)
        raise Fault(
            "file_encoding", f"The file has a NUL byte at {where}; it is no text. {HOW_TO_SAVE}", has_rows=False
        )


def check_utf8(data: Data) -> None:
    """Refuse what is not UTF-8, without keeping a decoded copy.

    Raises:
        Fault: `file_encoding`; says where it stops being UTF-8.
    """
    start = 0
    while start < len(data):
        end = _character_end(data, start + _PIECE)
        piece = data[start:end]
        try:
            if not piece.isascii():
                pl.Series([piece], dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError:
            offset = start + _first_undecodable(piece)
            what = f"byte 0x{data[offset]:02X} at {_place(data, offset)}"
            raise Fault("file_encoding", f"The file is not UTF-8: {what} cannot be read. {HOW_TO_SAVE}") from None
        start = end
        forget(data, start)


def _start(data: Data) -> int:
    """Where the text starts: behind the byte order mark, if there is one."""
    return len(BOM) * (data[: len(BOM)] == BOM)


def _first_nul(data: Data) -> int | None:
    for start in range(0, len(data), _PIECE):
        place = data.find(b"\0", start, start + _PIECE)
        if place >= 0:
            return place
        forget(data, start)
    return None


def _character_end(data: Data, near: int) -> int:
    """Where a character ends, at most three bytes before `near`."""
    for end in range(near, near - 4, -1):
        if end >= len(data):
            return len(data)
        if data[end] & _FIRST_BITS != _CONTINUES:
            return end
    return near  # no UTF-8 anyway


def _first_undecodable(piece: bytes) -> int:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("polars refuses what Python decodes")


def read_header(data: Data) -> Record:
    """The first record of a file, of a size that a header may have.

    Raises:
        Fault: `file_empty`, `file_header_too_long`, or what `records` raises.
    """
    start = _start(data)
    blank = _BLANK_LINES.match(data, start)
    first = blank.end() if blank else start
    if first == len(data):
        raise Fault("file_empty", "The file has blank lines only. Export it again, with a header and at least one row.")
    match = _RECORD.match(data, first)
    if match and match.end() - first > _LONGEST_HEADER + len(match[1] or b""):
        raise Fault(
            "file_header_too_long",
            f"The header is longer than {_LONGEST_HEADER:,} bytes; it should hold the column names only. "
            "Check that the file has line ends.",
            has_rows=False,
        )
    return next(records(data))


def records(data: Data, *, start: int = 0, row: int = 0, line: int = 0) -> Iterator[Record]:
    """The records of a file in order; blank lines are skipped, and counted.

    Args:
        data: the whole file.
        start: the offset to start from, behind a record.
        row: records and blank lines before it.
        line: lines before it.

    Raises:
        Fault: `file_quoting` or `file_encoding` (a carriage return that ends no line), with the line.
    """
    start = start or _start(data)
    while start < len(data):
        blank = _BLANK_LINES.match(data, start)
        if blank:
            lines = count(data, LF, start, blank.end())
            row, line, start = row + lines, line + lines, blank.end()
            continue
        match = _RECORD.match(data, start)
        assert match is not None  # a record may be empty
        if match[1] is None:
            raise _malformed(data, start, match.end(), line + 1)
        if match.end() - start > LONGEST_RECORD:
            raise _run_together(line + 1)
        row += 1
        raw = data[start : match.start(1)]
        line += raw.count(b"\n") + 1
        yield Record(row=row, line=line, end=match.end(), raw=raw)
        start = match.end()


def _value(match: re.Match[bytes]) -> bytes:
    return match[2] if match[1] is None else match[1].replace(b'""', b'"')


def _malformed(data: Data, start: int, end: int, first_line: int) -> Fault:
    """What stands where a field should end: a carriage return, a quotation mark, or text behind a closing one."""
    line = first_line + count(data, LF, start, end)
    if data[end : end + 1] == b"\r":
        return _lone_return(line)
    if data[end : end + 1] != b'"':
        return Fault(
            "file_quoting",
            f"The record that starts in line {first_line} has text after a closing quotation mark (line {line}). "
            'Write a quotation mark inside a quoted field twice: "say ""hi"" now".',
        )
    if end == start or data[end - 1 : end] == b",":
        return Fault(
            "file_quoting",
            f"The record that starts in line {first_line} opens a quotation mark that never closes. "
            "Close or remove it.",
        )
    return Fault(
        "file_quoting",
        f"Line {line} has a quotation mark inside a field that is not quoted. Put the whole field in "
        'quotation marks, and write each one inside it twice: "say ""hi"" now".',
    )


def _run_together(line: int) -> Fault:
    return Fault(
        "file_quoting",
        f"The record that starts in line {line} is longer than {LONGEST_RECORD:,} bytes; rows have probably run "
        "together. Look for a quotation mark that is never closed, and end every row with a line end.",
    )


def _lone_return(line: int) -> Fault:
    return Fault(
        "file_encoding",
        f"Line {line} has a carriage return (CR) that is not followed by a line feed. End lines with LF or CRLF. "
        f"{HOW_TO_SAVE}",
    )


def _place(data: Data, offset: int) -> str:
    line = count(data, LF, 0, offset) + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return f"line {line:,}, byte {column:,}"
