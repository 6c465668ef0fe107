"""Records in columns, a few MiB at a time: polars where it is provably right, the strict reader elsewhere.

polars' reader is fast and no validator: it pads short records, drops stray quotes, and skips or invents rows for
blank lines. So every chunk is cut at a record's end, parsed, and accounted for: what the fields hold, and the commas,
quotes and line ends that must stand between them, have to add up to the chunk's bytes. Where they do not, the chunk
is taken apart in numpy (which records are blank, which ragged), and the whole ones are parsed and accounted for
again. What is malformed goes to `pipeline.csvfile.records`, which knows the line and the reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.csvfile import Record, records

SIZE = 4 << 20  # bytes of a chunk, about
_CELLS = 3 << 17  # of a chunk, about; rows can be as short as two bytes, and each cell can have an error
_BLOCK = 1 << 16  # bytes that are looked at at once
_FEW = 1_000  # records
_BATCH = 10_000  # records that are read strictly at once
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


RAGGED = {ROW: pl.UInt32, "count": pl.UInt32, "raw": pl.String}  # fields of the record, and how it stands in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive records of a file."""

    frame: pl.DataFrame  # ROW and the columns by name, all text: the records with as many fields as the header
    ragged: pl.DataFrame  # RAGGED: the others, in order
    row: int  # records and blank lines before it
    count: int  # records and blank lines
    is_plain: bool  # all characters are plain ones of the GSM alphabet, or line ends: no escape, no control
    has_quotes: bool  # values may hold commas, quotes and line breaks

    @property
    def height(self) -> int:
        """The records."""
        return self.frame.height + self.ragged.height


def chunks(data: bytes, header: Record, columns: Sequence[str], *, size: int = SIZE) -> Iterator[Chunk]:
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
    while start < len(data):
        end = _record_end(data, start, size, _CELLS // len(columns))
        piece = _Piece(data[start:end])
        chunk, feeds = _parsed(piece, columns, row), piece.feeds
        del piece
        if chunk is None:
            # Malformed somewhere, so that not even the cut can be trusted: the rest is read strictly.
            yield from _read_strictly(records(data, start=start, row=row, line=line), columns, row)
            return
        yield chunk
        start, row, line = end, row + chunk.count, line + feeds


def _record_end(data: bytes, start: int, size: int, most: int) -> int:
    """The offset behind a record, `size` bytes or `most` records on: a line feed with an even number of quotes."""
    end, count, is_open = start, 0, False
    step = min(size, _BLOCK)
    for at in range(start, len(data), step):
        if end > start and (at - start >= size or count >= most):
            return end
        window = np.frombuffer(data, np.uint8, min(step, len(data) - at), at)
        ends, is_open = _ends_in(window, is_open=is_open)
        count += ends.size
        end = at + int(ends[-1]) + 1 if ends.size else end
    return len(data)


def _ends_in(window: npt.NDArray[np.uint8], *, is_open: bool) -> tuple[npt.NDArray[np.intp], bool]:
    """Where lines end outside quotes, and whether quotes are open behind the window."""
    feeds, quotes = np.flatnonzero(window == _LF), np.flatnonzero(window == _QUOTE)
    if quotes.size == 0:
        return (feeds[:0] if is_open else feeds), is_open
    outside = (np.searchsorted(quotes, feeds) + is_open) % 2 == 0
    return feeds[outside], is_open ^ bool(quotes.size % 2)


def _parsed(piece: _Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk in columns, or None where it is malformed."""
    if piece.has_lone_return or (piece.quotes and not _quoting_is_legal(piece.window)):
        return None
    frame = _parse(piece, len(columns))
    if frame is None:
        return _taken_apart(piece, columns, row)
    rows = pl.int_range(row + 1, row + 1 + frame.height, dtype=pl.UInt32, eager=True)
    named = _named(frame, columns, rows)
    return Chunk(
        frame=named,
        ragged=pl.DataFrame(schema=RAGGED),
        row=row,
        count=frame.height,
        is_plain=piece.is_plain,
        has_quotes=piece.quotes > 0,
    )


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
    if frame.height != feeds + (piece.data[-1:] not in {b"", b"\n"}):
        return False
    held = int(frame.select(pl.sum_horizontal(pl.all().str.len_bytes().cast(pl.UInt64).sum())).item() or 0)
    return held + quotes + frame.height * (frame.width - 1) + feeds + returns == len(piece.data)


def _count_in(frame: pl.DataFrame, character: str) -> int:
    counts = pl.all().str.count_matches(character, literal=True).cast(pl.UInt64).sum()
    return int(frame.select(pl.sum_horizontal(counts)).item() or 0)


def _quoting_is_legal(window: npt.NDArray[np.uint8]) -> bool:
    """Whether every quote opens a field, closes one, or is half of an escaped one (RFC 4180, 2.5 to 2.7)."""
    ends = np.array([_LF, _LF], np.uint8)  # a chunk starts and ends like a line
    padded = np.concatenate((ends[:1], window, ends))
    is_open = 0
    for start in range(0, window.size, _BLOCK):
        quotes = np.flatnonzero(window[start : start + _BLOCK] == _QUOTE) + start
        opening, closing = quotes[is_open::2], quotes[1 - is_open :: 2]
        before, after, behind = padded[opening], padded[closing + 2], padded[closing + 3]
        opens = (before == _COMMA) | (before == _LF) | (before == _QUOTE)  # a quote before it closes: an escaped one
        closes = (after == _COMMA) | (after == _LF) | (after == _QUOTE) | ((after == _CR) & (behind == _LF))
        if not (opens.all() and closes.all()):
            return False
        is_open ^= quotes.size % 2
    return not is_open


def _taken_apart(piece: _Piece, columns: Sequence[str], row: int) -> Chunk | None:
    """A chunk with blank or ragged records: its records told apart by their commas, the whole ones parsed."""
    window, size = piece.window, len(piece.data)
    feeds, commas = window == _LF, window == _COMMA
    if piece.quotes:
        outside = np.cumsum(window == _QUOTE, dtype=np.uint8) & 1 == 0
        feeds, commas = feeds & outside, commas & outside
    ends = np.flatnonzero(feeds) + 1
    if not piece.data.endswith(b"\n"):
        ends = np.append(ends, size)
    starts = np.concatenate(([0], ends[:-1]))
    fields = _sums(commas, starts) + 1
    blank = (window[starts] == _LF) | ((window[starts] == _CR) & (ends - starts == 2))  # noqa: PLR2004 - CR LF
    whole = ~blank & (fields == len(columns))
    del feeds, commas
    frame = _parse(_Piece(window[np.repeat(whole, ends - starts)].tobytes()), len(columns))
    if frame is None or frame.height != int(whole.sum()):
        return None
    rows, ragged = pl.Series(row + 1 + np.arange(ends.size), dtype=pl.UInt32), ~blank & ~whole
    spans = zip(starts[ragged].tolist(), ends[ragged].tolist(), strict=True)
    raw = [piece.data[start:end].rstrip(b"\r\n").decode("utf-8") for start, end in spans]
    return Chunk(
        frame=_named(frame, columns, rows.filter(whole)),
        ragged=pl.DataFrame({ROW: rows.filter(ragged), "count": fields[ragged], "raw": raw}, schema=RAGGED),
        row=row,
        count=int(ends.size),
        is_plain=piece.is_plain,
        has_quotes=piece.quotes > 0,
    )


def _sums(flags: npt.NDArray[np.bool_], starts: npt.NDArray[np.intp]) -> npt.NDArray[np.uint32]:
    """How many flags are set from each start to the next."""
    if starts.size < _FEW:  # they can be as large as the file, and reduceat takes four times their room
        return np.array([np.count_nonzero(part) for part in np.split(flags, starts[1:])], np.uint32)
    return np.add.reduceat(flags, starts, dtype=np.uint32)


def _named(frame: pl.DataFrame, columns: Sequence[str], rows: pl.Series) -> pl.DataFrame:
    frame.columns = list(columns)
    return frame.with_columns(rows.alias(ROW))


def _read_strictly(source: Iterator[Record], columns: Sequence[str], row: int) -> Iterator[Chunk]:
    while batch := list(islice(source, _BATCH)):
        whole = [(record.row, *record.fields) for record in batch if record.width == len(columns)]
        ragged = [
            (record.row, record.width, record.raw.decode("utf-8")) for record in batch if record.width != len(columns)
        ]
        schema = {ROW: pl.UInt32, **dict.fromkeys(columns, pl.String)}
        yield Chunk(
            frame=pl.DataFrame(whole, schema=schema, orient="row"),
            ragged=pl.DataFrame(ragged, schema=RAGGED, orient="row"),
            row=row,
            count=batch[-1].row - row,
            is_plain=False,
            has_quotes=True,
        )
        row = batch[-1].row
