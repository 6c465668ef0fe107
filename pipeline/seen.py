"""Which values of a file came before: by hashes of 64 bits, so that a file of any size is looked over as a whole."""

import polars as pl

_PENDING = 1 << 20  # values that are looked over together
_FIRST = 10


class Seen:
    """Counts the rows whose value an earlier row has, and tells the first of them.

    Only row numbers and hashes are kept, and of equal values the first.
    """

    def __init__(self) -> None:
        self._values: list[pl.DataFrame] = []
        self._different = self._pending = self._count = 0
        self._first = pl.DataFrame(schema={"row": pl.UInt32, "earlier": pl.UInt32})

    def add(self, rows: pl.Series, hashes: pl.Series) -> None:
        """Remember the values of some rows, in the order of the file."""
        self._values.append(pl.DataFrame({"row": rows, "hash": hashes}))
        self._pending += len(rows)

    def tidy(self) -> int:
        """Keep equal values once, where there are many new ones; says how many repeated ones were found so far."""
        if self._pending > max(_PENDING, self._different):  # so that the whole takes time in proportion to its size
            self._look_over()
        return self._count

    def again(self) -> tuple[int, pl.DataFrame]:
        """How many rows have a value of an earlier one, and the first ten: row, and the row that had it first."""
        self._look_over()
        return self._count, self._first

    def _look_over(self) -> None:
        if self._pending == 0:
            return
        values = pl.concat(self._values, rechunk=False)
        is_first = values["hash"].is_first_distinct()
        self._pending, self._different = 0, int(is_first.sum())
        if self._different == values.height:
            return
        self._count += values.height - self._different
        if self._first.height < _FIRST:
            again = values.filter(~is_first).head(_FIRST - self._first.height)
            first = values.filter(values["hash"].is_in(again["hash"].implode()) & is_first)
            found = again.join(first.rename({"row": "earlier"}), on="hash", how="left", maintain_order="left")
            self._first = self._first.vstack(found.select_seq("row", "earlier"))
        self._values = [values.filter(is_first)]
