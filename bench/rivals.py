"""Other ways to judge the same file: what a team might have written, with the libraries that it might have taken.

Each takes a path and returns how many rows it finds bad. None of them tells row numbers as a spreadsheet shows them or
writes a report; those over polars and pandas do not notice what their reader pads, shifts or unquotes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from bench import by_column, by_row

_STRINGS = "pyarrow strings" if find_spec("pyarrow") else "Python strings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another way."""

    name: str
    package: str  # on PyPI; empty for none
    checks: str
    judge: Callable[[Path], int]
    rows: int | None = None  # judged, where not all of them are

    @property
    def is_installed(self) -> bool:
        return not self.package or find_spec(self.package) is not None

    @property
    def title(self) -> str:
        return f"{self.name} ({version(self.package)})" if self.package and self.is_installed else self.name


def rivals() -> list[Rival]:
    """All of them, installed or not."""
    no_segments = "rules of a row and duplicates; no segments"
    no_numbers = "rules of a row, numbers by length only; no segments, no duplicates"
    return [
        Rival(
            name=f"pandas, {_STRINGS}",
            package="pandas",
            checks="all rules, segments by division",
            judge=by_column.pandas,
        ),
        Rival(
            name="csv module, plain Python", package="", checks="all rules, segments by division", judge=by_row.plain
        ),
        Rival(name="pydantic, a model a row", package="pydantic", checks=no_segments, judge=by_row.pydantic),
        Rival(name="dataframely", package="dataframely", checks=no_numbers, judge=by_column.dataframely),
        Rival(name="pandera on polars", package="pandera", checks=no_numbers, judge=by_column.pandera),
        Rival(
            name="frictionless",
            package="frictionless",
            checks="patterns of a field only",
            judge=by_row.frictionless,
            rows=by_row.SAMPLE,
        ),
    ]


def parse_only(path: Path) -> pl.DataFrame:
    """The least that any way must do: read the file and parse it into columns of text."""
    with path.open("rb") as file:
        return pl.read_csv(file.read(), infer_schema=False, extra_columns="ignore")
