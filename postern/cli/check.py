"""`postern check`: a dry run with the very code that judges uploads; nothing is uploaded, stored or sent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postern.cli.ledger import open_ledger
from postern.cli.output import Json, console, print_table, refusals, show
from postern.errors import Refusal
from postern.settings import GateSettings, WorkerSettings

if TYPE_CHECKING:
    from pipeline.ruleset import Ruleset


def check(
    file: Annotated[Path, typer.Argument(help="The CSV file.", show_default=False)],
    campaign: Annotated[str, typer.Option("--campaign", help="The campaign it is meant for.", show_default=False)],
    report: Annotated[Path | None, typer.Option(help="Write the validation report here if there are errors.")] = None,
    workbook: Annotated[Path | None, typer.Option(help="Write it as an Excel workbook (.xlsx) here, too.")] = None,
    as_json: Json = False,
) -> None:
    """Check a file as an upload would be, without uploading it. Exit status 0: it would be accepted."""
    from pipeline.ruleset import ruleset_for
    from pipeline.validate import validate
    from storage.ledger.campaigns import get_campaign

    with refusals(as_json), open_ledger() as ledger:
        data = _read(file)
        rules = ruleset_for(get_campaign(ledger.database, campaign), WorkerSettings.load())
        verdict = validate(data, rules, report=report, messages=None).verdict
        written = None if verdict.is_valid or workbook is None else _write(workbook, data, rules)
    document = verdict.as_json() | {
        "report": str(report) if report and not verdict.is_valid else None,
        "workbook": str(written) if written else None,
    }
    show(document, as_json=as_json, otherwise=lambda: _for_people(file, document, workbook))
    if not verdict.is_valid:
        raise typer.Exit(1)


def _write(workbook: Path, data: bytes, rules: "Ruleset") -> Path | None:
    """Write the workbook; None where the file is too large for one, or has nothing to show."""
    from pipeline.sheet import fits_workbook
    from pipeline.workbook import write_workbook

    if not fits_workbook(data):
        return None
    try:
        write_workbook(workbook, data, rules)
    except OSError as error:
        raise Refusal("workbook_unwritable", f"{workbook} cannot be written: {error.strerror}.") from None
    return workbook


def _read(path: Path) -> bytes:
    limit = GateSettings.load().max_file_size
    try:
        size = path.stat().st_size
        if size >= limit:
            raise Refusal("file_too_large", f"{path} has {size:,} bytes; a file must be smaller than {limit:,}.")
        return path.read_bytes()
    except OSError as error:
        raise Refusal("file_unreadable", f"{path} cannot be read: {error.strerror}.") from None


def _for_people(file: Path, document: dict[str, Any], workbook: Path | None) -> None:
    if document["isValid"]:
        console.print(f"[green]✓[/] {file.name} would be accepted", markup=True)
        languages = ", ".join(f"{count:,} {name}" for name, count in document["rowsByLanguage"].items())
        console.print(f"  {document['totalRows']:,} rows ({languages}), {document['segments']:,} segments")
    else:
        errors, rows = document["numErrors"], document["numRows"]
        where = f" in {rows:,} of {document['totalRows']:,} rows" if rows else ""
        console.print(f"[bold red]✗[/] {file.name} would be rejected: {errors:,} error{'s' * (errors != 1)}{where}\n")
    _print_findings(document["firstErrors"], document["byCode"])
    _print_findings(document["firstWarnings"], document["warnings"])
    if document["report"]:
        console.print(f"The report with all errors: {document['report']}", markup=False)
    if workbook and not document["isValid"]:
        none = "none; the file is too large for one, or has nothing to show"
        console.print(f"The same as a workbook: {document['workbook'] or none}", markup=False)


def _print_findings(first: list[dict[str, Any]], counts: dict[str, int]) -> None:
    if not first:
        return
    kinds = ", ".join(f"{count:,} × {code}" for code, count in counts.items())
    console.print(f"[bold]{kinds}[/]")
    rows = [(finding["row"], finding["code"], finding["sentence"]) for finding in first]
    print_table(("row", "code", "finding"), rows, empty="")
    more = sum(counts.values()) - len(first)
    console.print(f"[dim]… and {more:,} more[/]\n" if more else "")
