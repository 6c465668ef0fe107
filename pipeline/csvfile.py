"""Bytes → records, one at a time, with the row and line numbers that people see.

Strict RFC 4180 over UTF-8: nothing is padded, cut, trimmed or repaired. Slow and sure: most of a file is read by
`pipeline.chunks`, which comes here for the header, for what is malformed, and for the words about it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.cut import LF, count
from pipeline.fault import HOW_TO_SAVE, Fault
from pipeline.source import Data
from pipeline.text import text_start

LONGEST_RECORD = 3 << 20  # bytes, with its line end; a message has 1,000 characters
_LONGEST_HEADER = 65_536  # bytes
_PLAIN, _INNER = rb'[^",\r\n]*+', rb'[^"]*+(?:""[^"]*+)*+'
# Possessive, so that a record takes time in proportion to its length and no memory.
_RECORD = re.compile(rb'(?:"%b"|%b)(?:,(?:"%b"|%b))*+(\r?\n|\Z)?' % (_INNER, _PLAIN, _INNER, _PLAIN))
_FIELD = re.compile(rb'(?:\A|,)(?:"(%b)"|(%b))' % (_INNER, _PLAIN))
_BLANK_LINES = re.compile(rb"(?:\r?\n)++")


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


def read_header(data: Data) -> Record:
    """The first record of a file, of a size that a header may have.

    Raises:
        Fault: `file_empty`, `file_header_too_long`, or what `records` raises.
    """
    start = text_start(data)
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


def records(data: Data, *, start: int = 0, row: int = 0, line: int = 0, end: int | None = None) -> Iterator[Record]:
    """The records of a file in order; blank lines are skipped, and counted.

    Args:
        data: the whole file.
        start: the offset to start from, behind a record.
        row: records and blank lines before it.
        line: lines before it.
        end: the offset to end at, behind a record; the end of the file, if none is given.

    Raises:
        Fault: `file_quoting` or `file_encoding` (a carriage return that ends no line), with the line.
    """
    start = start or text_start(data)
    end = len(data) if end is None else end
    while start < end:
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
