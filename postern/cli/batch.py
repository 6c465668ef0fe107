"""`postern batch …`."""

from typing import Annotated, Any

import typer

from postern.cli.ledger import batch_json, open_ledger
from postern.cli.output import Json, Limit, OfCampaign, print_fields, print_table, refusals, show

app = typer.Typer(no_args_is_help=True, help="Batches: the messages made from an upload.")


@app.command("list")
def list_(campaign: OfCampaign = None, limit: Limit = 100, as_json: Json = False) -> None:
    """List the batches, newest first."""
    from storage.ledger.batches import list_batches

    with refusals(as_json), open_ledger() as ledger:
        found = list_batches(ledger.database, campaign_id=campaign, limit=limit)
        documents = [batch_json(batch, None, ledger.zone) for batch in found]
    rows = [(row["createdAt"], row["id"], row["campaignId"], row["status"], row["total"]) for row in documents]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("created", "id", "campaign", "status", "messages"), rows, empty="No batches yet."
        ),
    )


@app.command("show")
def show_(batch_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Show a batch, and how many of its messages have which status."""
    from storage.ledger.batches import count_messages, get_batch

    with refusals(as_json), open_ledger() as ledger:
        batch = get_batch(ledger.database, batch_id)
        counts = {status.value: count for status, count in count_messages(ledger.database, batch_id).items()}
        document = batch_json(batch, counts, ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _details(document))


def _details(document: dict[str, Any]) -> None:
    print_fields({name: value for name, value in document.items() if name != "messages"})
    rows = [(status, f"{count:,}") for status, count in document["messages"].items()]
    print_table(("status", "messages"), rows, empty="No messages yet.")
