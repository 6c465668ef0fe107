"""Records in columns, a few MiB at a time: polars where it is provably right, the strict reader elsewhere.

polars' reader is fast and no validator: it pads short records, drops stray quotes, and skips or invents rows for
blank lines. So every chunk is cut at a record's end, parsed, and accounted for: what the fields hold, and the commas,
quotes and line ends that must stand between them, have to add up to the chunk's bytes. Where they do not, the chunk
is taken apart in numpy (which records are blank, which ragged), and the whole ones are parsed and accounted for
again. What is malformed goes to `pipeline.csvfile.records`, which knows the line and the reason.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.csvfile import Record, in_lists, records

SIZE = 8 << 20  # bytes of a chunk, about
ROW = "__row"  # the row that a spreadsheet shows; no parameter can be called so
_LF, _CR, _QUOTE, _COMMA, _SPACE = b'\n\r", '
_ODD = tuple(bytes((code,)) for code in b"[\\]^`{|}~\x7f")  # printable ASCII, but not one plain GSM character


class _Piece:
    """The bytes of a chunk, and what has been counted in them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.window = np.frombuffer(data, np.uint8)
        self.feeds = int(np.count_nonzero(self.window == _LF))
        self.returns = data.count(b"\r") if b"\r" in data else 0
        self.quotes = int(np.count_nonzero(self.window == _QUOTE)) if b'"' in data else 0

    @property
    def has_lone_return(self) -> bool:
        return self.returns > 0 and self.returns != self.data.count(b"\r\n")

    @property
    def is_plain(self) -> bool:
        if not self.data.isascii() or any(character in self.data for character in _ODD):
            return False
        return int(np.count_nonzero(self.window < _SPACE)) == self.feeds + self.returns


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive records of a file."""

    frame: pl.DataFrame  # ROW and the columns by name, all text: the records with as many fields as the header
    ragged: Sequence[Record]  # the others, in order
    count: int  # records and blank lines
    is_plain: bool  # all characters are plain ones of the GSM alphabet, or line ends: no escape, no control


def chunks(
    data: bytes, columns: Sequence[str], *, start: int, row: int, line: int, size: int = SIZE
) -> Iterator[Chunk]:
    """The records of a file behind its header.

    Args:
        data: the whole file, known to be UTF-8.
        columns: the names of the header's fields, each once.
        start: offset of the first byte behind the header.
        row: records and blank lines before it.
        line: lines before it.
        size: bytes of a chunk, about.

    Raises:
        Fault: `file_quoting` or `file_encoding`, with the line.
    """
    while start < len(data):
        end = _record_end(data, start, size)
        piece = _Piece(data[start:end])
        chunk = _parsed(piece, columns, row)
        if chunk is None:
            # Malformed somewhere, so that not even the cut can be trusted: the rest is read strictly.
            yield from _read_strictly(data, columns, start=start, row=row, line=line)
            return
        yield chunk
        row += chunk.count
        line += piece.feeds
        start = end


def _record_end(data: bytes, start: int, size: int) -> int:
    """The offset behind the last record that ends within `size` bytes: a line feed with an even number of quotes."""
    stop = min(start + size, len(data))
    if stop == len(data):
        return stop
    if data.find(b'"', start, stop) < 0:
        end = data.rfind(b"\n", start, stop) + 1
    else:
        window = np.frombuffer(data, np.uint8, stop - start, start)
        feeds = np.flatnonzero(window == _LF)
        outside = np.searchsorted(np.flatnonzero(window == _QUOTE), feeds) % 2 == 0
        ends = feeds[outside]
        end = start + int(ends[-1]) + 1 if ends.size else 0
    return end or _record_end(data, start, 2 * size)


def _parsed(piece: _Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk in columns, or None where it is malformed."""
    if piece.has_lone_return or (piece.quotes and not _quoting_is_legal(piece.window)):
        return None
    frame = _parse(piece, len(columns))
    if frame is None:
        return _taken_apart(piece, columns, row)
    rows = pl.int_range(row + 1, row + 1 + frame.height, dtype=pl.UInt32, eager=True)
    named = _named(frame, columns, rows)
    return Chunk(frame=named, ragged=(), count=frame.height, is_plain=piece.is_plain)


def _parse(piece: _Piece, width: int) -> pl.DataFrame | None:
    """Let polars parse records that should all have `width` fields; None where it did not read exactly that."""
    header = ",".join(f"{place}" for place in range(width)).encode()  # also keeps polars from sniffing the first bytes
    try:
        frame = pl.read_csv(
            b"%b\n%b" % (header, piece.data),
            infer_schema=False,
            empty_string_is_null=False,
            quote_char='"' if piece.quotes else None,
            extra_columns="raise",
            missing_columns="raise",
        )
    except pl.exceptions.PolarsError:
        return None
    return frame if _adds_up(frame, piece) else None


def _adds_up(frame: pl.DataFrame, piece: _Piece) -> bool:
    """Whether the fields, and what must stand between them, are the chunk: no byte was dropped, none made up."""
    quotes, feeds, returns = piece.quotes, piece.feeds, piece.returns
    if piece.quotes:  # only then can these be part of values
        quotes -= _count_in(frame, '"')
        feeds -= _count_in(frame, "\n")
        returns -= _count_in(frame, "\r") if returns else 0
    if frame.height != feeds + (not piece.data.endswith(b"\n")):
        return False
    held = int(frame.select(pl.sum_horizontal(pl.all().str.len_bytes().cast(pl.UInt64).sum())).item() or 0)
    return held + quotes + frame.height * (frame.width - 1) + feeds + returns == len(piece.data)


def _count_in(frame: pl.DataFrame, character: str) -> int:
    counts = pl.all().str.count_matches(character, literal=True).cast(pl.UInt64).sum()
    return int(frame.select(pl.sum_horizontal(counts)).item() or 0)


def _quoting_is_legal(window: npt.NDArray[np.uint8]) -> bool:
    """Whether every quote opens a field, closes one, or is half of an escaped one (RFC 4180, 2.5 to 2.7)."""
    quotes = np.flatnonzero(window == _QUOTE)
    if quotes.size % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    padded = np.concatenate(([_LF], window, [_LF, _LF])).astype(np.uint8)  # a chunk starts and ends like a line
    before = padded[opening]
    escaped = np.zeros(opening.size, bool)
    escaped[1:] = closing[:-1] + 1 == opening[1:]
    after, behind = padded[closing + 2], padded[closing + 3]
    opens = (before == _COMMA) | (before == _LF) | escaped
    closes = (after == _COMMA) | (after == _LF) | (after == _QUOTE) | ((after == _CR) & (behind == _LF))
    return bool(opens.all() and closes.all())


def _taken_apart(piece: _Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk with blank or ragged records: its records told apart by their commas, the whole ones parsed."""
    window, size = piece.window, len(piece.data)
    feeds, commas = window == _LF, window == _COMMA
    if piece.quotes:
        outside = np.cumsum(window == _QUOTE, dtype=np.uint8) & 1 == 0
        feeds, commas = feeds & outside, commas & outside
    ends = np.flatnonzero(feeds)
    if not piece.data.endswith(b"\n"):
        ends = np.append(ends, size)
    starts = np.concatenate(([0], ends[:-1] + 1))
    between = np.diff(np.searchsorted(np.flatnonzero(commas), ends), prepend=0)
    lengths = ends - starts
    blank = (lengths == 0) | ((lengths == 1) & (window[np.minimum(starts, size - 1)] == _CR))
    whole = ~blank & (between == len(columns) - 1)
    spans = np.diff(np.append(starts, size))
    frame = _parse(_Piece(window[np.repeat(whole, spans)].tobytes()), len(columns))
    if frame is None or frame.height != int(whole.sum()):
        return None
    rows = row + 1 + np.arange(ends.size)
    ragged = ~blank & ~whole
    fields = _split([piece.data[start:end] for start, end in zip(starts[ragged], ends[ragged], strict=True)])
    return Chunk(
        frame=_named(frame, columns, pl.Series(rows[whole], dtype=pl.UInt32)),
        ragged=[Record(row=int(at), line=0, fields=found) for at, found in zip(rows[ragged], fields, strict=True)],
        count=int(ends.size),
        is_plain=piece.is_plain,
    )


def _split(raw: Sequence[bytes]) -> Iterator[list[str]]:
    text = b"\n".join(raw).decode("utf-8")
    return csv.reader(io.StringIO(text, newline="\n"), strict=True)


def _named(frame: pl.DataFrame, columns: Sequence[str], rows: pl.Series) -> pl.DataFrame:
    frame.columns = list(columns)
    return frame.with_columns(rows.alias(ROW))


def _read_strictly(data: bytes, columns: Sequence[str], *, start: int, row: int, line: int) -> Iterator[Chunk]:
    for found in in_lists(records(data, start=start, row=row, line=line)):
        whole = [record for record in found if len(record.fields) == len(columns)]
        values = zip(*(record.fields for record in whole), strict=True) if whole else [()] * len(columns)
        frame = pl.DataFrame(
            {name: pl.Series(column, dtype=pl.String) for name, column in zip(columns, values, strict=True)}
        )
        rows = pl.Series([record.row for record in whole], dtype=pl.UInt32)
        yield Chunk(
            frame=frame.with_columns(rows.alias(ROW)),
            ragged=[record for record in found if len(record.fields) != len(columns)],
            count=found[-1].row - row,
            is_plain=False,
        )
        row = found[-1].row
