"""How commands speak: tables for people, one JSON document for programs, refusals on standard error.

Exit status: 0 done, 1 refused or failed, 2 wrong use (settings included).
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from postern.errors import PosternError, Refusal, SettingsError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

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
    """A table, or a sentence where there is nothing to show."""
    if not rows:
        console.print(f"[dim]{empty}[/]")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_escaped("" if cell is None else str(cell)) for cell in row))
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line; those without a value are left out."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value is not None and value != "":
            console.print(f"[dim]{name:<{width}}[/]  {_escaped(str(value))}")


def show(document: Any, *, as_json: bool, otherwise: Callable[[], None]) -> None:
    """The document for programs, or what `otherwise` prints for people."""
    if as_json:
        print_json(document)
    else:
        otherwise()


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
