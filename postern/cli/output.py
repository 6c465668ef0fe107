"""How commands speak: tables for people, one JSON document for programs, refusals on standard error.

Exit status: 0 done, 1 refused or failed, 2 wrong use (settings included).
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from postern.errors import PosternError, Refusal, SettingsError
from postern.sms.simulation import MARK

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
OfCampaign = Annotated[str | None, typer.Option("--campaign", help="Of this campaign only.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, newest first.")]

_NARROWEST = 24  # columns for the last cell of a table
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d")

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def refusals(as_json: bool = False) -> Iterator[None]:
    """Turn what Postern refuses into a sentence (or a JSON document) on standard error and an exit status."""
    try:
        yield
    except PosternError as error:
        status = 2 if isinstance(error, SettingsError) else 1
        if as_json:
            code = error.code if isinstance(error, Refusal) else "failed"
            print(json.dumps({"error": {"code": code, "message": str(error)}}, ensure_ascii=False), file=sys.stderr)
        else:
            errors.print(f"[bold red]✗[/] {_escaped(str(error))}")
        raise typer.Exit(status) from None


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table, or a sentence where there is nothing to show.

    Ids are never broken, so that they can be copied: only the last column folds, and a table that is wider than the
    terminal stays as wide as it is.
    """
    if not rows:
        console.print(f"[dim]{empty}[/]")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns, start=1):
        table.add_column(column, overflow="fold", no_wrap=place < len(columns))
    cells = [[_cell(cell) for cell in row] for row in rows]
    for row in cells:
        table.add_row(*map(_escaped, row))
    whole = sum(max(cell_len(text) for text in column) + 2 for column in list(zip(columns, *cells, strict=True))[:-1])
    Console(highlight=False, width=max(console.width, whole + _NARROWEST)).print(table)


def _cell(value: object) -> str:
    """A table's cell; times lose their milliseconds and offset, which `--json` has."""
    text = "" if value is None else str(value)
    return f"{text[:10]} {text[11:19]}" if _TIME.fullmatch(text) else text


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line; those without a value are left out."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value is not None and value != "":
            console.print(f"[dim]{name:<{width}}[/]  {_escaped(str(value))}")


def mark_of(document: Mapping[str, Any]) -> str:
    """What a line of a listing says of something that the simulator took messages of."""
    return MARK if document["simulated"] else ""


def show(document: Any, *, as_json: bool, otherwise: Callable[[], None]) -> None:
    """The document for programs, or what `otherwise` prints for people."""
    if as_json:
        print_json(document)
    else:
        otherwise()


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
