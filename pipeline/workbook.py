"""The validation report as an Excel workbook: every cell is text, bad ones are coloured, the reason stands beside them.

XlsxWriter makes the workbook around the rows: package, styles, frozen header, filter. The rows are made by
`pipeline.cells` and go straight into the archive: the library's own rows in constant memory take a value such as
`<r>…</r>` for markup (a file could bring formulas along), escape `_x0041_x0042_` wrongly, and take four times as long.
Rows have the numbers that sentences name. The same file makes the same bytes.

Run as a module it is a process that serves requests, as `pipeline.child` does.
"""

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl
from xlsxwriter import Workbook  # type: ignore[import-untyped] # it says what it takes, but not that it does
from xlsxwriter.utility import xl_range  # type: ignore[import-untyped]

from pipeline.cells import (
    ALL_LOOKS,
    BAD_HEADER,
    CELLS,
    HEADER,
    LOOKS,
    PLAIN,
    REASON_WIDTH,
    TINTED,
    WHY,
    XML,
    Line,
    loose_rows,
    whole_rows,
)
from pipeline.child import serve
from pipeline.chunks import ROW, Chunk
from pipeline.csvfile import Record, read_header, records
from pipeline.fault import Fault
from pipeline.header import ERROR_REASON
from pipeline.ruleset import Ruleset, from_json
from pipeline.sentences import reasons
from pipeline.sheet import COLUMNS, LONGEST
from pipeline.validate import read

_NICENESS = 10  # validation goes first
_SHEET = "xl/worksheets/sheet1.xml"
_GAP = re.compile(rb'(.*<dimension ref=")[^"]*(".*<sheetData>).*(</sheetData>.*)', re.DOTALL)
_MADE = datetime(2000, 1, 1)  # noqa: DTZ001 - as the library wants it; fixed, so that a second try makes the same bytes
_LONGEST_FREEZE = 20  # rows; more could fill a screen


def write_workbook(path: Path, data: bytes, rules: Ruleset) -> None:
    """Write the workbook of a file's report.

    Args:
        path: where to.
        data: the whole file; one that `pipeline.sheet.fits_workbook`.
        rules: what it is judged by.
    """
    header = read_header(data)
    try:
        table = _judged_table(data, rules, header)
        rows = _judged_rows(data, rules, table)
    except Fault as fault:
        table = _faulty_table(data, header)
        rows = _faulty_rows(data, table, fault)
    before, after, others = _shell(table)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in others.items():
            with package.open(name, "w") as part:
                part.write(content)
        with package.open(_SHEET, "w") as part:
            part.write(before)
            part.writelines("".join(xml).encode() for xml in rows)
            part.write(after)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """What the sheet is like; found in a pass of its own, since a sheet tells its size before its rows."""

    header: Record
    columns: Sequence[str]  # the header's fields without a last `Error Reason`
    rows: int  # the last one
    widest: int  # fields of the longest row
    lengths: Sequence[int]  # of values that stand for the others, by column, in characters

    @property
    def width(self) -> int:
        """The columns before the reason."""
        return min(len(self.columns), COLUMNS - 1)

    @property
    def last_column(self) -> int:
        """From 0."""
        return min(max(self.width, self.widest - self.had_reasons), COLUMNS - 1)

    @property
    def had_reasons(self) -> bool:
        return self.header.fields[-1] == ERROR_REASON

    def own(self, fields: Sequence[str]) -> Sequence[str]:
        """The fields of a record without the reason that an earlier report gave."""
        return fields[:-1] if self.had_reasons and len(fields) > len(self.columns) else fields


def _columns(header: Record) -> list[str]:
    fields = header.fields
    return fields[:-1] if fields[-1] == ERROR_REASON else fields


def _judged_table(data: bytes, rules: Ruleset, header: Record) -> _Table:
    columns, rows, widest = _columns(header), header.row, 0
    lengths = [0] * len(columns)
    for chunk, _judged in read(data, rules):
        rows = max(rows, *_numbers(chunk))
        widest = max([widest, *chunk.ragged["count"]])
        if not any(lengths):
            lengths = [int(chunk.frame[name].head(1_000).str.len_chars().quantile(0.9) or 0) for name in columns]
    return _Table(header=header, columns=columns, rows=rows, widest=widest, lengths=lengths)


def _judged_rows(data: bytes, rules: Ruleset, table: _Table) -> Iterator[list[str]]:
    offered = [language.value for language in rules.templates]
    yield from loose_rows([Line(table.header.row, table.columns, ERROR_REASON, HEADER, HEADER)], table.columns)
    for chunk, judged in read(data, rules):
        numbers = _numbers(chunk)
        step = max(1, CELLS // chunk.frame.width)
        for first in range(numbers[0], numbers[1] + 1, step):
            errors = _within(judged.errors, "row", first, step)
            why = reasons(errors, offered).rename({"reason": WHY})
            frame, ragged = (
                _within(part, ROW, first, step)
                .join(why, on=ROW, how="left", maintain_order="left")
                .with_columns(pl.col(WHY).fill_null(""))
                for part in (chunk.frame, chunk.ragged)
            )
            yield _rows(frame, ragged, errors, table)


def _numbers(chunk: Chunk) -> tuple[int, int]:
    """The first and the last row of a chunk that are not blank."""
    found = [int(part[ROW][end]) for part in (chunk.frame, chunk.ragged) if part.height for end in (0, -1)]
    return min(found, default=1), max(found, default=0)


def _within(frame: pl.DataFrame, column: str, first: int, count: int) -> pl.DataFrame:
    return frame.filter(pl.col(column).is_between(first, first + count, closed="left"))


def _rows(frame: pl.DataFrame, ragged: pl.DataFrame, errors: pl.DataFrame, table: _Table) -> list[str]:
    """The XML of rows in order; blank lines stay blank rows."""
    is_long = pl.any_horizontal(pl.col(table.columns).str.len_bytes() > LONGEST)
    whole = whole_rows(frame.filter(~is_long), errors, table.columns)
    odd = frame.filter(is_long).select(ROW, WHY, *table.columns)
    if odd.is_empty() and ragged.is_empty():
        return whole[XML].to_list()
    lines = chain(_ragged_lines(ragged, table), _long_lines(odd, errors))
    xml = list(chain.from_iterable(loose_rows(lines, table.columns)))
    others = pl.DataFrame({ROW: [*ragged[ROW], *odd[ROW]], XML: xml}, schema=whole.schema)
    return pl.concat([whole, others]).sort(ROW)[XML].to_list()


def _ragged_lines(ragged: pl.DataFrame, table: _Table) -> Iterator[Line]:
    for row, raw, why in ragged.select(ROW, "raw", WHY).iter_rows():
        yield Line(row, table.own(_fields(raw)), why, look=TINTED)


def _long_lines(frame: pl.DataFrame, errors: pl.DataFrame) -> Iterator[Line]:
    for row, why, *fields in frame.iter_rows():
        bad = frozenset(errors.filter(pl.col("row") == row)["column"])
        yield Line(row, fields, why, look=TINTED if None in bad else PLAIN, bad=bad)


def _fields(raw: str) -> list[str]:
    return next(records(b"\n" + raw.encode(), start=1)).fields  # not from 0, where a byte order mark would go


def _faulty_table(data: bytes, header: Record) -> _Table:
    columns, rows, widest = _columns(header), header.row + 1, 0
    for record in _readable(data):
        rows, widest = max(rows, record.row), max(widest, record.width)
    return _Table(header=header, columns=columns, rows=rows, widest=widest, lengths=[0] * len(columns))


def _faulty_rows(data: bytes, table: _Table, fault: Fault) -> Iterator[list[str]]:
    """A file that is wrong as a whole: what can be read of it, and the one sentence beside its first row."""
    look = BAD_HEADER if fault.finding.row == table.header.row else HEADER
    yield from loose_rows([Line(table.header.row, table.columns, ERROR_REASON, look, HEADER)], table.columns)
    yield from loose_rows(_faulty_lines(data, table, fault.finding.sentence), table.columns)


def _faulty_lines(data: bytes, table: _Table, sentence: str) -> Iterator[Line]:
    pending = sentence
    for record in islice(_readable(data), 1, None):
        yield Line(record.row, table.own(record.fields), pending, look=PLAIN)
        pending = ""
    if pending:
        yield Line(table.header.row + 1, (), pending, look=PLAIN)


def _readable(data: bytes) -> Iterator[Record]:
    """The records up to where no more can be read."""
    with suppress(Fault):
        yield from records(data)


def _shell(table: _Table) -> tuple[bytes, bytes, dict[str, bytes]]:
    """The workbook around the rows: the sheet before and after them, and the other parts of the package by name."""
    file = BytesIO()
    with Workbook(file, {"in_memory": True}) as book:
        book.set_properties({"created": _MADE})
        sheet = book.add_worksheet("Validation report")
        looks = [book.add_format(ALL_LOOKS | look) for look in LOOKS]
        for place, look in enumerate(looks):  # which numbers them; these cells are left out
            sheet.write_blank(0, place, None, look)
        extent = (table.header.row - 1, 0, table.rows - 1, table.last_column)
        for place, (name, length) in enumerate(zip(table.columns[: table.width], table.lengths, strict=False)):
            sheet.set_column(place, place, min(max(len(name) + 4, length + 2, 12), 44), looks[0])
        sheet.set_column(table.width, table.width, REASON_WIDTH, looks[1])
        sheet.autofilter(*extent)
        if table.header.row <= _LONGEST_FREEZE:
            sheet.freeze_panes(table.header.row, 0)
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        sheet.repeat_rows(table.header.row - 1)
        sheet.ignore_errors({"number_stored_as_text": xl_range(*extent)})
    with zipfile.ZipFile(file) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    split = _GAP.fullmatch(parts.pop(_SHEET))
    assert split is not None
    dimension = xl_range(*extent).encode()
    return split[1] + dimension + split[2], split[3], parts


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    write_workbook(Path(request["workbook"]), Path(request["data"]).read_bytes(), from_json(request["rules"]))
    return {}


if __name__ == "__main__":
    os.nice(_NICENESS)
    serve(_answer)
