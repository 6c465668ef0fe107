"""`postern upload …`."""

from typing import Annotated, Any

import typer

from postern.cli.ledger import open_ledger, upload_json
from postern.cli.output import Json, Limit, OfCampaign, print_fields, print_table, refusals, show

app = typer.Typer(no_args_is_help=True, help="Uploads: what came in, and what became of it.")


@app.command("list")
def list_(campaign: OfCampaign = None, limit: Limit = 100, as_json: Json = False) -> None:
    """List the uploads, newest first."""
    from storage.ledger.uploads import list_uploads

    with refusals(as_json), open_ledger() as ledger:
        found = list_uploads(ledger.database, campaign_id=campaign, limit=limit)
        documents = [upload_json(upload, ledger.zone) for upload in found]
    rows = [
        (row["receivedAt"], row["id"], row["fileName"], row["status"], row["totalRows"], row["numErrors"])
        for row in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("received", "id", "file", "status", "rows", "errors"), rows, empty="No uploads yet."
        ),
    )


@app.command("show")
def show_(
    upload: Annotated[str, typer.Argument(help="Its id, or a support id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show an upload: what happened to it, and why."""
    from storage.ledger.uploads import get_upload

    with refusals(as_json), open_ledger() as ledger:
        found = get_upload(ledger.database, upload)
        document = upload_json(found, ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _details(document, dict(found.verdict)))


def _details(document: dict[str, Any], verdict: dict[str, Any]) -> None:
    print_fields(document)
    findings = [*verdict.get("firstErrors", ()), *verdict.get("firstWarnings", ())]
    if findings:
        print_table(
            ("row", "code", "finding"),
            [(finding["row"], finding["code"], finding["sentence"]) for finding in findings],
            empty="",
        )
