"""What rules find in a chunk, collected rule by rule and told in order."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

# `detail` is what a sentence needs besides: the value, a count, or nothing.
FINDINGS = {"row": pl.UInt32, "column": pl.String, "code": pl.String, "detail": pl.String}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    column: str | None
    code: str
    rows: npt.NDArray[np.uint32]
    details: pl.Series | None


class Findings:
    """Collects findings; there can be as many as cells, so they stay in columns."""

    def __init__(self, order: Mapping[str, int]) -> None:
        """Take the places of the columns in the file."""
        self._order = order
        self._found: list[_Found] = []

    @property
    def codes(self) -> set[str]:
        """The codes that were found."""
        return {found.code for found in self._found}

    def add(
        self, column: str | None, code: str, rows: pl.Series, flags: npt.NDArray[np.bool_], details: pl.Series | None
    ) -> None:
        """Add those of some rows whose flag is set, as findings of one column and code, with a detail for each."""
        places = np.flatnonzero(flags)
        if places.size:
            told = None if details is None else details.gather(places)
            self._found.append(_Found(column=column, code=code, rows=rows.to_numpy()[places], details=told))

    def frame(self) -> pl.DataFrame:
        """FINDINGS by row; in a row in the order of the columns and by code, what concerns all of it last."""
        if not self._found:
            return pl.DataFrame(schema=FINDINGS)
        found = sorted(self._found, key=lambda one: (self._order.get(one.column or "", len(self._order)), one.code))
        rows = np.concatenate([one.rows for one in found])
        kinds = np.repeat(np.arange(len(found)), [one.rows.size for one in found])
        order = np.argsort(rows, kind="stable")
        details = pl.concat([_details(one) for one in found])
        return pl.DataFrame(
            {
                "row": rows[order],
                "column": pl.Series([one.column for one in found], dtype=pl.String).gather(kinds[order]),
                "code": pl.Series([one.code for one in found], dtype=pl.String).gather(kinds[order]),
                "detail": details.gather(order),
            },
            schema=FINDINGS,
        )


def _details(found: _Found) -> pl.Series:
    if found.details is None:
        return pl.Series([""], dtype=pl.String).new_from_index(0, found.rows.size)
    return found.details.cast(pl.String)
