"""`postern batch …`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postern.cli.ledger import actor, batch_json, open_jobs, open_ledger
from postern.cli.output import Json, Limit, OfCampaign, console, mark_of, print_fields, print_table, refusals, show
from postern.cli.retrying import Yes, advice_json, agrees, print_advice
from postern.model import BatchStatus, Campaign, ErrorCode
from postern.sms.retrying import MOST_RETRIES
from postern.sms.simulation import MARK
from postern.times import utc_now

if TYPE_CHECKING:
    from storage.ledger.batches import Batch
    from storage.ledger.retries import Outlook

Named = Annotated[str, typer.Argument(metavar="BATCH", help="Its id.", show_default=False)]

_SAID_OTHERWISE = {"messages", "isPaused", "failures", "simulated", "numSimulated"}  # in sentences and a table

app = typer.Typer(no_args_is_help=True, help="Batches: the messages made from an upload.")


@app.command("list")
def list_(campaign: OfCampaign = None, limit: Limit = 100, as_json: Json = False) -> None:
    """List the batches, newest first."""
    from storage.ledger.batches import list_batches
    from storage.ledger.simulated import simulated_batches

    with refusals(as_json), open_ledger() as ledger:
        found = list_batches(ledger.database, campaign_id=campaign, limit=limit)
        simulated = simulated_batches(ledger.database, [batch.id for batch in found])
        documents = [batch_json(batch, None, ledger.zone, simulated=batch.id in simulated) for batch in found]
    rows = [
        (row["createdAt"], row["id"], row["campaignId"], row["status"], row["total"], mark_of(row)) for row in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("created", "id", "campaign", "status", "messages", "note"), rows, empty="No batches yet."
        ),
    )


@app.command("show")
def show_(batch_id: Named, as_json: Json = False) -> None:
    """Show a batch: how many of its messages have which status, what holds them up, what may be retried."""
    from storage.ledger.batches import count_messages, get_batch
    from storage.ledger.campaigns import get_campaign
    from storage.ledger.retries import batch_outlook
    from storage.ledger.simulated import count_simulated

    with refusals(as_json), open_ledger() as ledger:
        batch = get_batch(ledger.database, batch_id)
        counts = {status.value: count for status, count in count_messages(ledger.database, batch_id).items()}
        outlook = batch_outlook(ledger.database, batch_id)
        campaign = get_campaign(ledger.database, batch.campaign_id, even_deleted=True)
        simulated = count_simulated(ledger.database, batch_id)
        document = batch_json(batch, counts, ledger.zone, simulated=simulated > 0)
    document["numSimulated"] = simulated
    document["isPaused"] = campaign.paused_at is not None
    document["failures"] = _failures_json(outlook)
    said = [*_said(batch, campaign, counts), *_said_of_the_simulator(simulated)]
    show(document, as_json=as_json, otherwise=lambda: _details(document, said, outlook))


@app.command()
def retry(batch_id: Named, yes: Yes = False, as_json: Json = False) -> None:
    """Retry all failed messages of a batch: the same messages, a new attempt each, at most 3 retries a message."""
    from storage.ledger.retries import batch_outlook, retry_batch

    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        before = batch_outlook(ledger.database, batch_id)
        may_repeat = agrees(before.inferred, yes=yes, as_json=as_json)
        outlook = retry_batch(ledger.database, jobs, batch_id, may_repeat=may_repeat, actor=actor(), now=utc_now())
    document = {"id": batch_id, "retried": outlook.total, **_failures_json(outlook)}
    show(document, as_json=as_json, otherwise=lambda: _retried(batch_id, outlook))


@app.command()
def cancel(batch_id: Named, as_json: Json = False) -> None:
    """Cancel a batch for good: what was not handed over is not sent, and ends as a failure that costs nothing."""
    from storage.ledger.cancelling import cancel_batch
    from storage.ledger.simulated import simulated_batches

    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        batch = cancel_batch(ledger.database, jobs, batch_id, actor=actor(), now=utc_now())
        is_simulated = bool(simulated_batches(ledger.database, [batch_id]))
        document = batch_json(batch, None, ledger.zone, simulated=is_simulated)
    said = f"[green]✓[/] Cancelled [bold]{batch_id}[/]: what was not handed over is not sent."
    show(document, as_json=as_json, otherwise=lambda: console.print(said))


def _details(document: dict[str, Any], said: list[str], outlook: "Outlook") -> None:
    print_fields({name: value for name, value in document.items() if name not in _SAID_OTHERWISE})
    for sentence in said:
        console.print(f"  {sentence}")
    rows = [(status, f"{count:,}") for status, count in document["messages"].items()]
    print_table(("status", "messages"), rows, empty="No messages yet.")
    if outlook.total and document["status"] != BatchStatus.CANCELLED:
        console.print(f"Failed and may be retried: {outlook.total:,} (postern batch retry {document['id']})")
        print_advice(outlook.by_code)
    _print_limits(outlook)


def _retried(batch_id: str, outlook: "Outlook") -> None:
    console.print(f"[green]✓[/] Retrying {outlook.total:,} messages of [bold]{batch_id}[/], at the campaign's rate")
    print_advice(outlook.by_code)
    _print_limits(outlook)


def _print_limits(outlook: "Outlook") -> None:
    if outlook.inferred:
        console.print(f"  Nobody knows whether {outlook.inferred:,} of these were delivered.")
    if outlook.used_up:
        console.print(f"  {outlook.used_up:,} more failed and were retried {MOST_RETRIES} times: not again.")


def _failures_json(outlook: "Outlook") -> dict[str, Any]:
    codes: dict[ErrorCode, int] = dict(outlook.by_code)
    return {"byCode": advice_json(codes), "inferred": outlook.inferred, "usedUp": outlook.used_up}


def _said(batch: "Batch", campaign: Campaign, counts: dict[str, int]) -> list[str]:
    """What holds a batch up, or ended it."""
    said = []
    waiting = counts.get("created", 0) + counts.get("enqueued", 0)
    if batch.status is BatchStatus.CANCELLED:
        said.append("It was cancelled: what was not handed over is not sent." + _ending(waiting))
    elif campaign.deleted_at is not None:
        said.append("Its campaign was deleted: what was not handed over is not sent." + _ending(waiting))
    elif batch.enqueued_at is None:
        said.append("Nothing of it is sent before its upload is accepted.")
    elif campaign.paused_at is not None and waiting:
        said.append(f"Its campaign is paused: {waiting:,} messages wait (postern campaign resume {campaign.id}).")
    elif batch.status is BatchStatus.MESSAGES_ENQUEUING_FAILED:
        said.append("A retry was refused because another one was on its way; that one goes on.")
    return said


def _said_of_the_simulator(count: int) -> list[str]:
    what = "1 message" if count == 1 else f"{count:,} messages"
    return [f"{MARK}: the simulator took {what} of it. No SMS left for these, and they cost 0."] if count else []


def _ending(waiting: int) -> str:
    return f" {waiting:,} are still to be ended." if waiting else ""
