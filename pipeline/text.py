"""Whether bytes are text, and UTF-8: how other files begin, and where the first byte stands that is wrong."""

import polars as pl

from pipeline.cut import LF, count
from pipeline.fault import HOW_TO_SAVE, Fault
from pipeline.source import Data, forget

BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 20  # bytes
_FIRST_BITS, _CONTINUES = 0xC0, 0x80  # of a byte that goes on with a character (RFC 3629, 3)
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


def text_start(data: Data) -> int:
    """Where the text starts: behind the byte order mark, if there is one."""
    return len(BOM) * (data[: len(BOM)] == BOM)


def check_bytes(data: Data) -> None:
    """Refuse what is no UTF-8 text.

    Raises:
        Fault: `file_empty` or `file_encoding`.
    """
    if len(data) == text_start(data):
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


def _place(data: Data, offset: int) -> str:
    line = count(data, LF, 0, offset) + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return f"line {line:,}, byte {column:,}"
