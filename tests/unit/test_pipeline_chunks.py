"""The fast reader and the strict one see the same records in every short file of the characters that matter."""

from itertools import product

import pytest

from pipeline.chunks import ROW, chunks
from pipeline.csvfile import records
from pipeline.fault import Fault

HEADER = b"a,b\n"
LENGTH = 6


def strictly(data: bytes) -> list[tuple[int, list[str]]] | str:
    try:
        return [(record.row, record.fields) for record in list(records(data))[1:]]
    except Fault as fault:
        return fault.finding.code


def in_columns(data: bytes, size: int) -> list[tuple[int, list[str]]] | str:
    header = next(records(data))
    found: list[tuple[int, list[str]]] = []
    try:
        for chunk in chunks(data, header, header.fields, size=size):
            found += [(row, [*values]) for *values, row in chunk.frame.select(*header.fields, ROW).iter_rows()]
            for row, count, raw in chunk.ragged.iter_rows():
                fields = next(records(raw.encode() + b"\n")).fields
                assert len(fields) == count
                found.append((row, fields))
    except Fault as fault:
        return fault.finding.code
    return sorted(found)


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_both_readers_see_the_same_records(size: int) -> None:
    """Whatever stands at the end of the file, and however it is cut."""
    for length in range(LENGTH):
        for letters in product((b"x", b",", b'"', b"\n"), repeat=length):
            data = HEADER + b"".join(letters)
            assert in_columns(data, size) == strictly(data), data


@pytest.mark.parametrize(
    "rest", [b'"\rx",y\nx,y\n', b'x,"\r"\n\n\n', b'"a\r\nb",y\r\n', b"x,y\r\n\r\nx\r\n", b"x,y\rz\n"]
)
@pytest.mark.parametrize("size", [3, 10, 1 << 20])
def test_carriage_returns_are_where_they_are(rest: bytes, size: int) -> None:
    """One inside a value sends no more than its own part of the file through the strict reader."""
    data = HEADER + b"x,y\n" + rest + b"x,y\n\n"
    assert in_columns(data, size) == strictly(data)
