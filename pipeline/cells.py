"""The rows of the workbook's sheet as XML: text cells with their looks, a few thousand rows at a time.

Rows that are as they should be are made in columns, the others field by field.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

import polars as pl
from xlsxwriter.utility import xl_col_to_name  # type: ignore[import-untyped]

from pipeline.chunks import ROW
from pipeline.sheet import COLUMNS, LONGEST

CELLS = 1 << 16  # that are made at once; sentences can take a hundred times the room of what they are about
WHY, XML = "__why", "__xml"  # no parameter can be called so
REASON_WIDTH = 80  # characters
_TINT = "__tint"
_LINE, _MOST_LINES = 15, 27  # points; a row is at most 409 high
_RED, _PINK = "#7A120A", "#F8B4AB"

# The looks of cells, as the workbook numbers them: those of whole columns first. `@` is the format of text: what is
# typed into such a cell stays text, too.
PLAIN, _REASON, _BAD, TINTED, HEADER, BAD_HEADER = "123456"
ALL_LOOKS = {"num_format": "@", "valign": "top"}
LOOKS: tuple[dict[str, Any], ...] = (
    {},
    {"text_wrap": True, "font_color": _RED},
    {"bg_color": _PINK, "font_color": _RED},
    {"bg_color": "#FCE9E6"},
    {"bold": True, "bg_color": "#E8ECF0", "bottom": 2, "bottom_color": "#56616D"},
    {"bold": True, "bg_color": _PINK, "font_color": _RED, "bottom": 2, "bottom_color": _RED},
)

# What XML or the format cannot hold as it is. `_x41_`-like texts are escapes in a cell (ECMA-376-1, 22.9.2.19), so
# the underscore before each `x` is escaped itself; a carriage return would be read as a line feed.
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "_x": "_x005F_x", "\ufffe": "_xFFFE_", "\uffff": "_xFFFF_"} | {
    chr(code): f"_x{code:04X}_" for code in range(32) if chr(code) not in "\t\n"
}


def whole_rows(frame: pl.DataFrame, errors: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """ROW and the XML of records with as many fields as the header, in columns."""
    row, cells = pl.col(ROW).cast(pl.String), []
    tint = _look(TINTED, errors.filter(pl.col("column").is_null()), pl.lit(PLAIN))
    frame = frame.with_columns(tint.alias(_TINT))
    for place, name in enumerate(columns):
        look = _look(_BAD, errors.filter(pl.col("column") == name), pl.col(_TINT))
        cells.append(_cell(pl.lit(xl_col_to_name(place)), row, look, pl.col(name)))
    long = pl.col(WHY).str.len_bytes() > LONGEST  # as where each of hundreds of columns is wrong
    why = pl.when(long).then(pl.col(WHY).str.head(LONGEST // 2) + "…").otherwise(pl.col(WHY))
    cells.append(_cell(pl.lit(xl_col_to_name(len(columns))), row, pl.lit(_REASON), why))
    return frame.select(ROW, _row(row, pl.concat_str(*cells), why.str.len_chars()))


def _look(look: str, errors: pl.DataFrame, otherwise: pl.Expr) -> pl.Expr:
    return pl.when(pl.col(ROW).is_in(errors["row"].implode())).then(pl.lit(look)).otherwise(otherwise)


def _row(row: pl.Expr, cells: pl.Expr, length: pl.Expr) -> pl.Expr:
    """The XML of a row, as high as a reason of so many characters needs; not all programs see to that themselves."""
    height = ((length.clip(1, REASON_WIDTH * _MOST_LINES) + REASON_WIDTH - 1) // REASON_WIDTH * _LINE).cast(pl.String)
    high = pl.concat_str(pl.lit('" ht="'), height, pl.lit('" customHeight="1">'))
    end = pl.when(length > REASON_WIDTH).then(high).otherwise(pl.lit('">'))
    return pl.concat_str(pl.lit('<row r="'), row, end, cells, pl.lit("</row>")).alias(XML)


def _cell(letters: pl.Expr, row: pl.Expr, look: pl.Expr, value: pl.Expr) -> pl.Expr:
    """The XML of a cell; an empty one has its look and no text."""
    start = (pl.lit('<c r="'), letters, row, pl.lit('" s="'), look)
    text = value.str.replace_many(list(_ESCAPES), list(_ESCAPES.values()))
    filled = (pl.lit('" t="inlineStr"><is><t xml:space="preserve">'), text, pl.lit("</t></is></c>"))
    return pl.when(value == "").then(pl.concat_str(*start, pl.lit('"/>'))).otherwise(pl.concat_str(*start, *filled))


_Cell = tuple[int, str, str, str, int]  # row, letters, look, value, characters of the row's reason


class Line(NamedTuple):
    """A row that is made field by field: one with too many or too few, or with a value that no cell can hold."""

    row: int
    fields: Sequence[str]
    why: str
    look: str
    last_look: str = _REASON  # of the reason
    bad: frozenset[str | None] = frozenset()  # columns


def loose_rows(lines: Iterable[Line], columns: Sequence[str]) -> Iterator[list[str]]:
    """The XML of such rows in order, some of them at a time."""
    cells: list[_Cell] = []
    for line in lines:
        cells += _cells(line, columns)
        if len(cells) >= CELLS:
            yield _joined(cells)
            cells = []
    if cells:
        yield _joined(cells)


def _joined(cells: Sequence[_Cell]) -> list[str]:
    schema = {ROW: pl.UInt32, "letters": pl.String, "look": pl.String, "value": pl.String, "length": pl.UInt32}
    frame = pl.DataFrame(cells, schema=schema, orient="row")
    row = pl.col(ROW).cast(pl.String)
    xml = frame.select(ROW, "length", _cell(pl.col("letters"), row, pl.col("look"), pl.col("value")).alias(XML))
    joined = xml.group_by(ROW, maintain_order=True).agg(pl.col("length").first(), pl.col(XML).str.join(""))
    return joined.select(_row(row, pl.col(XML), pl.col("length")))[XML].to_list()


def _cells(line: Line, columns: Sequence[str]) -> Iterable[_Cell]:
    """The reason keeps its column; what a longer record has besides stands behind it."""
    width, notes = min(len(columns), COLUMNS - 1), [line.why]
    values = [*line.fields[: COLUMNS - 1], *[""] * (width - len(line.fields))]
    for place, value in enumerate(values):
        if len(value) > LONGEST // 2 and _cut(value) != value:
            values[place] = _cut(value)
            named = columns[place] if place < width else "a field"
            notes.append(f"{named} is too long for a cell and was cut here; the CSV report has all of it")
    if len(line.fields) >= COLUMNS:
        notes.append("the row has more fields than a sheet has columns; the CSV report has all of them")
    why = _cut("; ".join(note for note in notes if note))
    looks = [_BAD if name in line.bad else line.look for name in columns[:width]]
    looks += [line.last_look, *[line.look] * (len(values) - width)]
    values.insert(width, why)
    return zip(repeat(line.row), _letters(), looks, values, repeat(len(why)), strict=False)


def _cut(text: str) -> str:
    """As much of a text as a cell can hold."""
    return text.encode("utf-16-le")[: 2 * LONGEST].decode("utf-16-le", "ignore")


@cache
def _letters() -> Sequence[str]:
    return [xl_col_to_name(place) for place in range(COLUMNS)]
