"""Values that came before are counted over the whole file, and the first of them told with the row that had them."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import seen
from pipeline.seen import Seen

PARTS = st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=20)


def plainly(values: list[int]) -> list[tuple[int, int]]:
    """Each row whose value an earlier one has, and the first such row."""
    return [(row, values.index(value) + 2) for row, value in enumerate(values, start=2) if value in values[: row - 2]]


@given(parts=PARTS, pending=st.integers(0, 40))
def test_values_that_came_before_are_found(parts: list[list[int]], pending: int) -> None:
    """However the file is cut, and however often what is kept is looked over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "_PENDING", pending)
        values, row = Seen(), 2
        for part in parts:
            values.add(pl.Series(range(row, row + len(part)), dtype=pl.UInt32), pl.Series(part, dtype=pl.UInt64))
            row += len(part)
            values.tidy()
        count, first = values.again()
    expected = plainly([value for part in parts for value in part])
    assert (count, first.rows()) == (len(expected), expected[:10])
