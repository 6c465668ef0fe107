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
from pipeline.csvfile import BOM, Fault, Record, records
from pipeline.header import ERROR_REASON
from pipeline.sentences import reasons

_LINE_END = "\r\n"
_BATCH = 10_000  # lines that are written at once
_LAST_FIELD = r',(?:"(?:[^"]|"")*"|[^",]*)\z'
_CELLS = 1 << 17  # whose sentences are made at once


class Report:
    """Writes the report of a file with bad rows; nothing is written before the first of them."""

    def __init__(self, path: Path, data: bytes, header: Record, offered: Sequence[str], *, chunk_size: int) -> None:
        """Take the path of the report, the whole file with its header, and the languages of the campaign."""
        self._path, self._data, self._header, self._offered = path, data, header, offered
        self._chunk_size = chunk_size
        self._had_reasons = header.fields[-1] == ERROR_REASON
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
        """A part of the chunk at a time: sentences can take a hundred times the room of what they are about."""
        step = max(1, _CELLS // chunk.frame.width)
        for row in range(chunk.row + 1, chunk.row + chunk.count + 1, step):
            rows = pl.int_range(row, min(row + step, chunk.row + chunk.count + 1), dtype=pl.UInt32, eager=True)
            why = reasons(_within(rows, errors, "row"), self._offered)
            whole = _within(rows, chunk.frame, ROW).join(why, on=ROW, how="left", maintain_order="left")
            ragged = _within(rows, chunk.ragged, ROW).join(why, on=ROW, how="left", maintain_order="left")
            lines = self._lines(whole, ragged, has_quotes=chunk.has_quotes)
            if lines.height < len(rows):  # blank lines stay, so that rows keep their numbers
                lines = rows.alias(ROW).to_frame().join(lines, on=ROW, how="left", maintain_order="left")
            lines.select("line").write_csv(
                file, include_header=False, line_terminator=_LINE_END, quote_style="never", null_value=""
            )

    def _lines(self, whole: pl.DataFrame, ragged: pl.DataFrame, *, has_quotes: bool) -> pl.DataFrame:
        """ROW and `line`; a record that lacks fields is filled up, so that the reason is in its column."""
        own = [name for name in whole.columns if name not in {ROW, ERROR_REASON, "reason"}]
        reason = _cell("reason").fill_null("")
        cells = [_cell(name) if has_quotes else pl.col(name) for name in own]
        lines = whole.select(ROW, line=pl.concat_str(*cells, reason, separator=","))
        if ragged.is_empty():
            return lines
        raw, count = pl.col("raw"), pl.col("count").cast(pl.Int32)
        if self._had_reasons:
            raw = pl.when(count > len(own)).then(raw.str.replace(_LAST_FIELD, "")).otherwise(raw)
        missing = pl.lit("," * len(own)).str.head(pl.max_horizontal(len(own) - count, 0))
        others = ragged.select(ROW, line=pl.concat_str(raw, missing, pl.lit(","), reason))
        return pl.concat([lines, others]).sort(ROW)


def _within(rows: pl.Series, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """What a frame in order has of some rows."""
    first, behind = (frame[column].search_sorted(row, "left") for row in (rows[0], rows[-1] + 1))
    return frame.slice(first, behind - first)


def report_fault(path: Path, data: bytes, fault: Fault) -> None:
    """Write the report of a file that is wrong as a whole; its rows are kept as far as they can be read."""
    with path.open("wb") as file:
        file.write(BOM)
        _write_lines(file, _lines_with_fault(data, fault))


def _lines_with_fault(data: bytes, fault: Fault) -> Iterator[str]:
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


def _blank_lines(count: int) -> Iterator[str]:
    """Blank lines stay, so that rows keep their numbers."""
    return repeat("", count)


def _write_lines(file: IO[bytes], lines: Iterator[str]) -> None:
    while batch := list(islice(lines, _BATCH)):
        file.write((_LINE_END.join(batch) + _LINE_END).encode("utf-8"))
