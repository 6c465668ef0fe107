"""`postern upload …`."""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from postern.cli.ledger import Ledger, actor, open_jobs, open_ledger, upload_json
from postern.cli.output import Json, Limit, OfCampaign, console, mark_of, print_fields, print_table, refusals, show
from postern.cli.retrying import insists
from postern.errors import Refusal
from postern.model import Upload, UploadStatus
from postern.sms.simulation import MARK
from postern.times import utc_now

if TYPE_CHECKING:
    from storage.database import Database
    from storage.engine import Jobs

Named = Annotated[str, typer.Argument(metavar="UPLOAD", help="Its id, or a support id.", show_default=False)]
Repeat = Annotated[
    bool, typer.Option("--yes", help="Even where the same bytes went on, or are held, as another upload.")
]

app = typer.Typer(no_args_is_help=True, help="Uploads: what came in, and what became of it.")


@app.command("list")
def list_(campaign: OfCampaign = None, limit: Limit = 100, as_json: Json = False) -> None:
    """List the uploads, newest first."""
    from storage.ledger.simulated import simulated_batches
    from storage.ledger.uploads import list_uploads

    with refusals(as_json), open_ledger() as ledger:
        found = list_uploads(ledger.database, campaign_id=campaign, limit=limit)
        simulated = simulated_batches(ledger.database, [upload.batch_id for upload in found if upload.batch_id])
        documents = [upload_json(upload, ledger.zone, simulated=upload.batch_id in simulated) for upload in found]
    rows = [
        (row["receivedAt"], row["id"], row["fileName"], row["status"], row["totalRows"], row["numErrors"], _note(row))
        for row in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("received", "id", "file", "status", "rows", "errors", "note"), rows, empty="No uploads yet."
        ),
    )


def _note(document: dict[str, Any]) -> str:
    """What an upload is held for, in a word or two; or that the simulator took its messages."""
    if document["status"] != UploadStatus.HELD:
        return mark_of(document)
    return " and ".join(["a repeat"] * bool(document["repeatOf"]) + ["cut off"] * document["isCutOff"])


@app.command("show")
def show_(upload: Named, as_json: Json = False) -> None:
    """Show an upload: what happened to it, and why."""
    from storage.ledger.uploads import get_upload

    with refusals(as_json), open_ledger() as ledger:
        found = get_upload(ledger.database, upload)
        document = _document(ledger, found)
    show(document, as_json=as_json, otherwise=lambda: _details(document, dict(found.verdict)))


@app.command()
def release(upload: Named, as_json: Json = False) -> None:
    """Let a held upload go on, as if it had not been held."""
    from storage.ledger.decisions import release_upload

    _decide(release_upload, upload, "Released: it is being validated.", as_json=as_json)


@app.command()
def drop(upload: Named, as_json: Json = False) -> None:
    """Drop a held upload for good: nothing of it is sent, and its owner is told."""
    from storage.ledger.decisions import drop_upload

    _decide(drop_upload, upload, "Dropped: nothing of it is sent.", as_json=as_json)


@app.command()
def retry(upload: Named, yes: Repeat = False, as_json: Json = False) -> None:
    """Process a failed upload again, under the ids that it has."""
    from storage.ledger.decisions import retry_upload

    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        window = ledger.settings.repeat_interval
        again = partial(retry_upload, ledger.database, jobs, upload, window=window, actor=actor(), now=utc_now())
        try:
            found = again(may_repeat=yes)
        except Refusal as refusal:
            if refusal.code != "is_repeat" or not insists(str(refusal), as_json=as_json):
                raise
            found = again(may_repeat=True)
        document = _document(ledger, found)
    _show_decided(found, document, "Tried again: it is being validated.", as_json=as_json)


class _Decision(Protocol):
    def __call__(self, database: "Database", jobs: "Jobs", upload_id: str, *, actor: str, now: datetime) -> Upload: ...


def _decide(decision: _Decision, upload: str, done: str, *, as_json: bool) -> None:
    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        found = decision(ledger.database, jobs, upload, actor=actor(), now=utc_now())
        document = _document(ledger, found)
    _show_decided(found, document, done, as_json=as_json)


def _document(ledger: Ledger, upload: Upload) -> dict[str, Any]:
    from storage.ledger.simulated import simulated_batches

    batches = [upload.batch_id] if upload.batch_id else []
    return upload_json(upload, ledger.zone, simulated=bool(simulated_batches(ledger.database, batches)))


def _show_decided(upload: Upload, document: dict[str, Any], done: str, *, as_json: bool) -> None:
    show(document, as_json=as_json, otherwise=lambda: console.print(f"[green]✓[/] {done} [bold]{upload.id}[/]"))


def _details(document: dict[str, Any], verdict: dict[str, Any]) -> None:
    print_fields({name: value for name, value in document.items() if name != "simulated"})
    if document["simulated"]:
        console.print(f"  {MARK}: the simulator took messages of it. No SMS left for these, and they cost 0.")
    findings = [*verdict.get("firstErrors", ()), *verdict.get("firstWarnings", ())]
    if findings:
        print_table(
            ("row", "code", "finding"),
            [(finding["row"], finding["code"], finding["sentence"]) for finding in findings],
            empty="",
        )
