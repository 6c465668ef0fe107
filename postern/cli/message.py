"""`postern message …`."""

from typing import Annotated, Any

import typer

from postern.cli.ledger import message_json, open_ledger
from postern.cli.output import Json, console, print_fields, print_table, refusals, show
from postern.model import MessageStatus
from postern.sms.statuses import shown_as

app = typer.Typer(no_args_is_help=True, help="Messages: one row, one recipient.")


@app.command("list")
def list_(
    batch: Annotated[str, typer.Option("--batch", help="The batch.", show_default=False)],
    status: Annotated[MessageStatus | None, typer.Option(help="Of this status only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, in the order of rows.")] = 100,
    as_json: Json = False,
) -> None:
    """List the messages of a batch, in the order of its rows."""
    from storage.ledger.batches import get_batch
    from storage.ledger.messages import list_messages

    with refusals(as_json), open_ledger() as ledger:
        get_batch(ledger.database, batch)
        found = list_messages(ledger.database, batch_id=batch, status=status, limit=limit)
        documents = [message_json(message, ledger.zone) for message in found]
    rows = [
        (row["row"], row["id"], row["recipient"], row["latestStatus"], _error(row), row["numAttempts"])
        for row in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("row", "id", "recipient", "status", "error", "attempts"), rows, empty="No such messages."
        ),
    )


@app.command("show")
def show_(message_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Show a message with its attempts."""
    from storage.ledger.messages import get_message

    with refusals(as_json), open_ledger() as ledger:
        document = message_json(get_message(ledger.database, message_id), ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _details(document))


def _details(document: dict[str, Any]) -> None:
    shown = {name: value for name, value in document.items() if name not in {"messageAttempts", "values"}}
    shown["shown as"] = shown_as(MessageStatus(document["latestStatus"]))
    print_fields(shown | {f"{{{{{name}}}}}": value for name, value in document["values"].items()})
    for attempt in document["messageAttempts"]:
        console.print()
        print_fields(attempt)


def _error(document: dict[str, Any]) -> str:
    attempts = document["messageAttempts"]
    return (attempts[-1]["errorCode"] or "") if attempts else ""
