"""Records in columns, a few MiB at a time: polars where it is provably right, the strict reader elsewhere.

polars' reader is fast and no validator: it pads short records, drops stray quotes, and skips or invents rows for
blank lines. So every chunk is cut at a record's end, parsed, and accounted for: what the fields hold, and the commas,
quotes and line ends that must stand between them, have to add up to the chunk's bytes. Where they do not, the chunk
is taken apart in numpy (which records are blank, which ragged), and the whole ones are parsed and accounted for
again. What is malformed, or has a carriage return of its own in a value, goes to `pipeline.csvfile.records`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.csvfile import LONGEST_RECORD, Record, records
from pipeline.cut import LF, count, record_end
from pipeline.piece import Alphabet, Piece
from pipeline.source import Data, forget

SIZE = LONGEST_RECORD  # bytes of a chunk, at most; a smaller one would need records to be measured
_CELLS = 9 << 15  # of a chunk, about; rows can be as short as two bytes, and each cell can have an error
_FEW = 1_000  # records
_BATCH = 10_000  # records that are read strictly at once
ROW = "__row"  # the row that a spreadsheet shows; no parameter can be called so
RAGGED = {ROW: pl.UInt32, "count": pl.UInt32, "raw": pl.String}  # fields of the record, and how it stands in the file
_CR, _QUOTE, _COMMA = b'\r",'


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive records of a file."""

    frame: pl.DataFrame  # ROW and the columns by name, all text: the records with as many fields as the header
    ragged: pl.DataFrame  # RAGGED: the others, in order
    row: int  # records and blank lines before it
    count: int  # records and blank lines
    alphabet: Alphabet  # of all of its characters
    odd: pl.Series  # which records of the frame may have characters that are not plain
    has_quotes: bool  # values may hold commas, quotes and line breaks

    @property
    def height(self) -> int:
        """The records."""
        return self.frame.height + self.ragged.height

    def odd_columns(self, names: Sequence[str]) -> list[str]:
        """Those columns that may have characters that are not plain."""
        if self.alphabet.is_plain:
            return []
        if self.alphabet.has_odd_ascii:
            return list(names)
        wide = ((pl.col(name).str.len_bytes() != pl.col(name).str.len_chars()).any().alias(name) for name in names)
        found = self.frame.select_seq(wide).row(0, named=True) if names else {}
        return [name for name in names if found[name]]


def chunks(data: Data, header: Record, columns: Sequence[str], *, size: int = SIZE) -> Iterator[Chunk]:
    """The records of a file behind its header. Cutting the same file twice gives the same chunks.

    Args:
        data: the whole file, known to be UTF-8.
        header: its header.
        columns: the names of the header's fields, each once.
        size: bytes of a chunk, about.

    Raises:
        Fault: `file_quoting` or `file_encoding`, with the line.
    """
    start, row, line = header.end, header.row, header.line
    places = ",".join(f"{place}" for place in range(len(columns))).encode() + b"\n"
    while start < len(data):
        end = record_end(data, start, min(size, LONGEST_RECORD), _CELLS // len(columns), LONGEST_RECORD)
        piece = None if end is None else Piece(places, memoryview(data)[start:end])
        if end is None or piece is None or not piece.quotes_are_legal():
            # Malformed somewhere, so that not even the cut can be trusted: the rest is read strictly.
            yield from _read_strictly(data, columns, (start, row, line), len(data))
            return
        chunk = _parsed(piece, columns, row)
        lines, entries = piece.feeds, piece.ends().size if chunk is None else chunk.count
        del piece
        if chunk is None:
            yield from _read_strictly(data, columns, (start, row, line), end)
        else:
            yield chunk
        start, row, line = end, row + entries, line + lines
        forget(data, start)


def _parsed(piece: Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk in columns, or None where it is malformed or has a carriage return of its own in a value."""
    if piece.has_lone_return:
        return None
    frame = _parse(piece)
    if frame is None:
        return _taken_apart(piece, columns, row)
    rows = pl.int_range(row + 1, row + 1 + frame.height, dtype=pl.UInt32, eager=True)
    alphabet = piece.alphabet()
    return Chunk(
        frame=_named(frame, columns, rows),
        ragged=pl.DataFrame(schema=RAGGED),
        row=row,
        count=frame.height,
        alphabet=alphabet,
        odd=_all(frame, value=False) if alphabet.is_plain else pl.Series(piece.odd(piece.ends(), alphabet)),
        has_quotes=piece.quotes > 0,
    )


def _parse(piece: Piece) -> pl.DataFrame | None:
    """Let polars parse records that should all have as many fields as the header; None where it read anything else."""
    try:
        frame = pl.read_csv(
            piece.text if piece.text.endswith(b"\n") else piece.text + b"\n",  # it drops a last comma at the end
            infer_schema=False,
            empty_string_is_null=False,
            quote_char='"' if piece.quotes else None,
            extra_columns="raise",
            missing_columns="raise",
        )
    except pl.exceptions.PolarsError:
        return None
    return frame if _adds_up(frame, piece) else None


def _adds_up(frame: pl.DataFrame, piece: Piece) -> bool:
    """Whether the fields, and what must stand between them, are the chunk: no byte was dropped, none made up."""
    if frame.height == 0:
        return piece.size == 0
    held = pl.sum_horizontal(pl.all().str.len_bytes().cast(pl.UInt64).sum())
    counts = frame.select_seq(held.alias("held"), *(_count(character).alias(character) for character in _inside(piece)))
    inside = dict.fromkeys('"\n\r', 0) | counts.row(0, named=True)
    quotes, feeds, returns = (piece.quotes - inside['"'], piece.feeds - inside["\n"], piece.returns - inside["\r"])
    if frame.height != piece.lines - inside["\n"]:
        return False
    return bool(int(inside["held"]) + quotes + frame.height * (frame.width - 1) + feeds + returns == piece.size)


def _inside(piece: Piece) -> str:
    """What may be part of values although it also stands between them; only in quotes."""
    if not piece.quotes:
        return ""
    return '"\n\r' if piece.returns else '"\n'


def _count(character: str) -> pl.Expr:
    return pl.sum_horizontal(pl.all().str.count_matches(character, literal=True).cast(pl.UInt64).sum())


def _taken_apart(piece: Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk with blank or ragged records: its records told apart by their commas, the whole ones parsed."""
    window, ends = piece.window, piece.ends()
    starts = np.concatenate(([0], ends[:-1]))
    fields = _commas(piece, starts) + 1
    blank = (window[starts] == LF) | ((window[starts] == _CR) & (ends - starts == 2))  # noqa: PLR2004 - CR LF
    whole = ~blank & (fields == len(columns))
    header = piece.text[: len(piece.text) - piece.size]
    frame = _parse(Piece(header, window[np.repeat(whole, ends - starts)].data))
    if frame is None or frame.height != int(whole.sum()):
        return None
    alphabet = piece.alphabet()
    rows, ragged = pl.Series(row + 1 + np.arange(ends.size), dtype=pl.UInt32), ~blank & ~whole
    spans = zip(starts[ragged].tolist(), ends[ragged].tolist(), strict=True)
    raw = [window[start:end].tobytes().rstrip(b"\r\n") for start, end in spans]
    return Chunk(
        frame=_named(frame, columns, rows.filter(whole)),
        ragged=pl.DataFrame({ROW: rows.filter(ragged), "count": fields[ragged], "raw": _texts(raw)}, schema=RAGGED),
        row=row,
        count=int(ends.size),
        alphabet=alphabet,
        odd=pl.Series(piece.odd(ends, alphabet)[whole]),
        has_quotes=piece.quotes > 0,
    )


def _commas(piece: Piece, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.uint32]:
    """How many commas stand outside quotes from each start to the next."""
    commas = piece.window == _COMMA
    if piece.quotes:
        commas &= np.cumsum(piece.window == _QUOTE, dtype=np.uint8) & 1 == 0
    if starts.size < _FEW:  # they can be as large as the file, and reduceat takes four times their room
        return np.array([np.count_nonzero(part) for part in np.split(commas, starts[1:])], np.uint32)
    return np.add.reduceat(commas, starts, dtype=np.uint32)


def _all(frame: pl.DataFrame, *, value: bool) -> pl.Series:
    return pl.repeat(value, frame.height, dtype=pl.Boolean, eager=True)


def _named(frame: pl.DataFrame, columns: Sequence[str], rows: pl.Series) -> pl.DataFrame:
    frame.columns = list(columns)
    return frame.insert_column(frame.width, rows.alias(ROW))


def _texts(values: Sequence[bytes]) -> pl.Series:
    """A column of text, never kept as Python's, which can take four times the room."""
    return pl.Series(values, dtype=pl.Binary).cast(pl.String)


def _read_strictly(data: Data, columns: Sequence[str], place: tuple[int, int, int], end: int) -> Iterator[Chunk]:
    start, row, line = place
    for batch in _batches(records(data, start=start, row=row, line=line, end=end)):
        whole = [record for record in batch if record.width == len(columns)]
        ragged = [record for record in batch if record.width != len(columns)]
        values = zip(*(record.values() for record in whole), strict=True) if whole else [()] * len(columns)
        yield _strict_chunk(whole, ragged, [_texts(column) for column in values], columns, (row, batch[-1].row))
        start, row = batch[-1].end, batch[-1].row
        forget(data, start)
    if blank := count(data, LF, start, end):
        yield _strict_chunk([], [], [_texts([])] * len(columns), columns, (row, row + blank))


def _strict_chunk(
    whole: Sequence[Record],
    ragged: Sequence[Record],
    values: Sequence[pl.Series],
    columns: Sequence[str],
    rows: tuple[int, int],
) -> Chunk:
    frame = pl.DataFrame(list(values), schema=list(columns), orient="col")
    cells = {
        ROW: [record.row for record in ragged],
        "count": [record.width for record in ragged],
        "raw": _texts([record.raw for record in ragged]),
    }
    return Chunk(
        frame=_named(frame, columns, pl.Series([record.row for record in whole], dtype=pl.UInt32)),
        ragged=pl.DataFrame(cells, schema=RAGGED),
        row=rows[0],
        count=rows[1] - rows[0],
        alphabet=Alphabet(),
        odd=_all(frame, value=True),
        has_quotes=True,
    )


def _batches(source: Iterator[Record]) -> Iterator[list[Record]]:
    """Records by the thousands, fewer where they are large."""
    batch, held = list[Record](), 0
    for record in source:
        batch.append(record)
        held += len(record.raw)
        if len(batch) == _BATCH or held >= SIZE:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
