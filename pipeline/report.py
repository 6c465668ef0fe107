"""The validation report: the upload's own rows, and a last column that says what to do about each.

Values are kept exactly, so the report can be repaired and uploaded again as it is. It starts with a byte order mark,
by which Excel knows that it is UTF-8. It is written chunk by chunk while the file is judged, from the first chunk
with an error on; those before it are read a second time.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import IO

import polars as pl

from pipeline.chunks import ROW, Chunk, chunks
from pipeline.csvfile import Record, records
from pipeline.fault import Fault
from pipeline.header import ERROR_REASON
from pipeline.sentences import reasons
from pipeline.source import Data
from pipeline.text import BOM

_WHY = "__why"  # no parameter can be called so
_LINE_END = "\r\n"
_BATCH = 10_000  # lines that are written at once
_LAST_FIELD = r',(?:"(?:[^"]|"")*"|[^",]*)\z'
_ERRORS = 1 << 17  # whose sentences are made at once, about


class Report:
    """Writes the report of a file with bad rows; nothing is written before the first of them."""

    def __init__(self, path: Path, data: Data, header: Record, offered: Sequence[str], *, chunk_size: int) -> None:
        """Take the path of the report, the whole file with its header, and the languages of the campaign."""
        self._path, self._data, self._header, self._offered = path, data, header, offered
        self._chunk_size = chunk_size
        self._had_reasons = header.fields[-1] == ERROR_REASON
        self._width = header.width - self._had_reasons
        self._is_begun = False

    def add(self, chunk: Chunk, errors: pl.DataFrame) -> None:
        """Write the next chunk; the first one may be preceded by some that have no errors."""
        with self._path.open("ab" if self._is_begun else "wb") as file:
            if not self._is_begun:
                self._begin(file, chunk.row, errors.clear())
            self._write(file, chunk, errors)
        self._is_begun = True

    def _begin(self, file: IO[bytes], row: int, none: pl.DataFrame) -> None:
        file.write(BOM)
        _write_lines(file, _blank_lines(self._header.row - 1))
        _write_lines(file, iter([_with_reason(self._header, ERROR_REASON, cut=self._had_reasons)]))
        if row == self._header.row:
            return
        for chunk in chunks(self._data, self._header, self._header.fields, size=self._chunk_size):
            self._write(file, chunk, none)
            if chunk.row + chunk.count == row:
                return

    def _write(self, file: IO[bytes], chunk: Chunk, errors: pl.DataFrame) -> None:
        """A part of the chunk at a time where it has many errors: a sentence takes more room than what it is about."""
        last = chunk.row + chunk.count
        step = chunk.count // (errors.height // _ERRORS + 1) or 1
        for row in range(chunk.row + 1, last + 1, step):
            behind = min(row + step, last + 1)
            why = reasons(_within(errors, "row", row, behind), self._offered).select_seq(ROW, _quoted_reason())
            lines = self._lines(chunk, _within(chunk.frame, ROW, row, behind), why)
            ragged = _within(chunk.ragged, ROW, row, behind)
            if ragged.height:
                lines = pl.concat([lines, self._ragged_lines(ragged, why)]).sort(ROW)
            if lines.height < behind - row:  # blank lines stay, so that rows keep their numbers
                rows = pl.int_range(row, behind, dtype=pl.UInt32, eager=True).alias(ROW).to_frame()
                lines = rows.join(lines, on=ROW, how="left", maintain_order="left")
            lines.select_seq("line").write_csv(
                file, include_header=False, line_terminator=_LINE_END, quote_style="never", null_value=""
            )

    def _lines(self, chunk: Chunk, whole: pl.DataFrame, why: pl.DataFrame) -> pl.DataFrame:
        """ROW and `line` of whole records."""
        own = [name for name in whole.columns if name not in {ROW, ERROR_REASON}]
        cells = [_cell(name) if chunk.has_quotes else pl.col(name) for name in own]
        told = whole.join(why, on=ROW, how="left", maintain_order="left")
        return told.select_seq(ROW, line=pl.concat_str(*cells, pl.col(_WHY).fill_null(""), separator=","))

    def _ragged_lines(self, ragged: pl.DataFrame, why: pl.DataFrame) -> pl.DataFrame:
        """ROW and `line`; a record that lacks fields is filled up, so that the reason is in its column."""
        width, raw, count = self._width, pl.col("raw"), pl.col("count").cast(pl.Int32)
        if self._had_reasons:
            raw = pl.when(count > width).then(raw.str.replace(_LAST_FIELD, "")).otherwise(raw)
        commas = pl.lit("," * (width + 1)).str.head(pl.max_horizontal(width - count, 0) + 1)
        told = ragged.join(why, on=ROW, how="left", maintain_order="left")
        return told.select_seq(ROW, line=pl.concat_str(raw, commas, pl.col(_WHY)))


def _within(frame: pl.DataFrame, column: str, row: int, behind: int) -> pl.DataFrame:
    """What a frame in order has of some rows."""
    first, last = (frame[column].search_sorted(edge, "left") for edge in (row, behind))
    return frame.slice(first, last - first)


def report_fault(path: Path, data: Data, fault: Fault) -> None:
    """Write the report of a file that is wrong as a whole; its rows are kept as far as they can be read."""
    with path.open("wb") as file:
        file.write(BOM)
        _write_lines(file, _lines_with_fault(data, fault))


def _lines_with_fault(data: Data, fault: Fault) -> Iterator[str]:
    source = records(data) if fault.has_rows else iter(())
    pending, width, row = fault.finding.sentence, 0, 0
    try:
        for header in islice(source, 1):
            had_reasons = header.fields[-1] == ERROR_REASON
            width, row = header.width - had_reasons, header.row
            yield from _blank_lines(row - 1)
            yield _with_reason(header, ERROR_REASON, cut=had_reasons)
            for record in source:
                yield from _blank_lines(record.row - row - 1)
                missing = max(0, width - record.width) if pending else 0
                yield _with_reason(record, pending, missing, cut=had_reasons and record.width > width)
                pending, row = "", record.row
    except Fault:
        pass  # the rest cannot be read; the fault's own sentence says so
    if pending:
        yield from [] if row else [ERROR_REASON]
        yield "," * width + _quoted(pending)


def _with_reason(record: Record, reason: str, missing: int = 0, *, cut: bool) -> str:
    """A line of the report; a record that lacks fields is filled up, so that the reason is in its column."""
    own = record.without_last if cut else record.raw
    return own.decode("utf-8", "replace") + "," * (missing + 1) + _quoted(reason)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if text not in {"", ERROR_REASON} else text


def _cell(name: str) -> pl.Expr:
    value = pl.col(name)
    quoted = pl.concat_str(pl.lit('"'), value.str.replace_all('"', '""', literal=True), pl.lit('"'))
    return pl.when(value.str.contains(r'[",\r\n]')).then(quoted).otherwise(value)


def _quoted_reason() -> pl.Expr:
    doubled = pl.col("reason").str.replace_all('"', '""', literal=True)
    return pl.concat_str(pl.lit('"'), doubled, pl.lit('"')).alias(_WHY)


def _blank_lines(count: int) -> Iterator[str]:
    """Blank lines stay, so that rows keep their numbers."""
    return repeat("", count)


def _write_lines(file: IO[bytes], lines: Iterator[str]) -> None:
    while batch := list(islice(lines, _BATCH)):
        file.write((_LINE_END.join(batch) + _LINE_END).encode("utf-8"))
