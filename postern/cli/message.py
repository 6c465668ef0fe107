"""`postern message …`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postern.cli.ledger import actor, message_json, open_jobs, open_ledger
from postern.cli.output import Json, console, mark_of, print_fields, print_table, refusals, show
from postern.cli.retrying import Yes, agrees, print_advice
from postern.model import ErrorCode, MessageStatus
from postern.sms.retrying import MOST_RETRIES, worth_of
from postern.sms.simulation import MARK
from postern.sms.statuses import shown_as
from postern.times import utc_now

if TYPE_CHECKING:
    from storage.ledger.messages import Message

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
        (row["row"], row["id"], row["recipient"], row["latestStatus"], _error(row), row["numAttempts"], mark_of(row))
        for row in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("row", "id", "recipient", "status", "error", "attempts", "note"), rows, empty="No such messages."
        ),
    )


@app.command("show")
def show_(message_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Show a message with its attempts."""
    from storage.ledger.messages import get_message

    with refusals(as_json), open_ledger() as ledger:
        document = message_json(get_message(ledger.database, message_id), ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _details(document))


@app.command()
def retry(
    message_id: Annotated[str, typer.Argument(metavar="MESSAGE", help="Its id.", show_default=False)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Retry a failed message: the same message, a new attempt, at most 3 retries."""
    from storage.ledger.messages import get_message
    from storage.ledger.retries import retry_message

    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        before = get_message(ledger.database, message_id)
        inferred = _has_failed(before) and before.attempts[-1].inferred
        may_repeat = agrees(int(inferred), yes=yes, as_json=as_json)
        message = retry_message(ledger.database, jobs, message_id, may_repeat=may_repeat, actor=actor(), now=utc_now())
        document = message_json(message, ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _retried(message))


def _retried(message: "Message") -> None:
    console.print(f"[green]✓[/] Retrying [bold]{message.id}[/], retry {message.num_attempts} of {MOST_RETRIES}")
    code = message.attempts[-1].error_code if message.attempts else None
    if code is not None:
        print_advice({code: 1})


def _has_failed(message: "Message") -> bool:
    return message.latest_status is MessageStatus.FAILURE and bool(message.attempts)


def _said(document: dict[str, Any]) -> str | None:
    """What may be done about a failed message."""
    if document["latestStatus"] != MessageStatus.FAILURE or not document["messageAttempts"]:
        return None
    left = MOST_RETRIES + 1 - document["numAttempts"]
    if left <= 0:
        return f"used up: it was retried {MOST_RETRIES} times"
    last = document["messageAttempts"][-1]
    worth = worth_of(ErrorCode(last["errorCode"]) if last["errorCode"] else None)
    doubt = "; nobody knows whether it was delivered, so it may be delivered twice" if last["isInferred"] else ""
    return f"{left} left; worth it: {worth.value}{doubt}"


def _details(document: dict[str, Any]) -> None:
    shown = {name: value for name, value in document.items() if name not in {"messageAttempts", "values", "simulated"}}
    shown["shown as"] = shown_as(MessageStatus(document["latestStatus"]))
    shown["retries"] = _said(document)
    print_fields(shown | {f"{{{{{name}}}}}": value for name, value in document["values"].items()})
    for attempt in document["messageAttempts"]:
        console.print()
        print_fields({name: value for name, value in attempt.items() if name != "simulated"})
        if attempt["simulated"]:
            console.print(f"  {MARK}: the simulator took it. No SMS left, and it costs 0.")


def _error(document: dict[str, Any]) -> str:
    attempts = document["messageAttempts"]
    return (attempts[-1]["errorCode"] or "") if attempts else ""
