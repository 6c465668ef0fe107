"""The validation report: the upload's own rows, and a last column that says what to do about each.

Values are kept exactly, so the report can be repaired and uploaded again as it is. It starts with a byte order mark,
by which Excel knows that it is UTF-8. The file is read a second time for it; nothing of it was kept.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import polars as pl

from pipeline.chunks import ROW, SIZE, Chunk, chunks
from pipeline.csvfile import BOM, Fault, Record, offset_of_line, records
from pipeline.header import ERROR_REASON

_LINE_END = "\r\n"


def report_rows(path: Path, data: bytes, reasons: pl.DataFrame, *, chunk_size: int = SIZE) -> None:
    """Write the report of a file with bad rows.

    Args:
        path: where to.
        data: the whole file.
        reasons: what is wrong with its rows: ROW and `reason`.
        chunk_size: bytes of the file that are written at once.
    """
    with path.open("wb") as file:
        file.write(BOM)
        _write_rows(file, data, reasons, chunk_size)


def report_fault(path: Path, data: bytes, fault: Fault) -> None:
    """Write the report of a file that is wrong as a whole; its rows are kept as far as they can be read."""
    with path.open("wb") as file:
        file.write(BOM)
        _write_what_can_be_read(file, data, fault)


def _write_rows(file: IO[bytes], data: bytes, reasons: pl.DataFrame, chunk_size: int) -> None:
    header = next(records(data))
    own = [name for name in header.fields if name != ERROR_REASON]
    _write_records(file, [*_blank_lines(1, header.row), [*own, ERROR_REASON]])
    start = offset_of_line(data, header.line + 1)
    row = header.row
    for chunk in chunks(data, header.fields, start=start, row=row, line=header.line, size=chunk_size):
        frame = chunk.frame.join(reasons, on=ROW, how="left", maintain_order="left")
        if chunk.count == frame.height:
            # An empty value is written as nothing, not as a pair of quotes.
            columns = (pl.col(name).replace("", None) for name in (*own, "reason"))
            frame.select(columns).write_csv(file, include_header=False, line_terminator=_LINE_END)
        else:
            _write_records(file, _in_order(frame.select(ROW, *own, "reason"), chunk, reasons, row, len(own)))
        row += chunk.count


def _in_order(frame: pl.DataFrame, chunk: Chunk, reasons: pl.DataFrame, row: int, width: int) -> Iterator[list[str]]:
    """The records of a chunk with ragged records or blank lines, at the rows where they stood."""
    ragged = {record.row: record for record in chunk.ragged}
    why = dict(reasons.filter(pl.col(ROW).is_in(list(ragged))).iter_rows())
    whole = frame.iter_rows()
    following = next(whole, None)
    for at in range(row + 1, row + 1 + chunk.count):
        if following is not None and following[0] == at:
            yield [*following[1:-1], following[-1] or ""]
            following = next(whole, None)
        elif at in ragged:
            yield _ragged(ragged[at], width, why.get(at, ""), had_reasons=chunk.frame.width - 1 > width)
        else:
            yield []


def _ragged(record: Record, width: int, reason: str, *, had_reasons: bool) -> list[str]:
    """A record with too many fields keeps them; one with too few is filled up, so that the reason is in its column."""
    own = record.fields[:-1] if had_reasons and len(record.fields) > width else record.fields
    return [*own, *[""] * (width - len(own)), reason]


def _write_what_can_be_read(file: IO[bytes], data: bytes, fault: Fault) -> None:
    pending = fault.finding.sentence
    width, row, had_reasons = 0, 0, False
    try:
        for record in records(data) if fault.has_rows else ():
            _write_records(file, _blank_lines(row + 1, record.row))
            if row == 0:
                had_reasons = record.fields[-1] == ERROR_REASON
                width = len(record.fields) - had_reasons
                _write_records(file, [[*record.fields[:width], ERROR_REASON]])
            else:
                _write_records(file, [_ragged(record, width, pending, had_reasons=had_reasons)])
                pending = ""
            row = record.row
    except Fault:
        pass  # the rest cannot be read; the fault's own sentence says so
    if pending:
        _write_records(file, [] if row else [[ERROR_REASON]])
        _write_records(file, [[*[""] * width, pending]])


def _blank_lines(first: int, behind: int) -> list[list[str]]:
    """Blank lines stay, so that rows keep their numbers."""
    return [[] for _ in range(first, behind)]


def _write_records(file: IO[bytes], rows: Iterable[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_LINE_END).writerows(rows)
    file.write(text.getvalue().encode("utf-8"))
