"""`postern key …`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from postern.cli.ledger import actor, key_json, open_ledger
from postern.cli.output import Json, OfCampaign, console, print_fields, print_table, refusals, show
from postern.errors import Refusal
from postern.times import iso, utc_now

app = typer.Typer(no_args_is_help=True, help="Keys: who may upload for a campaign.")


@app.command()
def enrol(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", show_default=False)],
    key_files: Annotated[list[Path], typer.Argument(metavar="KEYFILE", help="OpenSSH public keys (.pub).")],
    email: Annotated[str, typer.Option(help="The one address that outcome mails go to.", show_default=False)],
    source: Annotated[list[str] | None, typer.Option(help="Address or CIDR the keys may be used from.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When the keys stop working.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Allow a key that another campaign has, too.")] = False,
    as_json: Json = False,
) -> None:
    """Enrol public keys for a campaign."""
    from keys.enrolment import enrol as enrol_keys

    with refusals(as_json), open_ledger() as ledger:
        found = enrol_keys(
            ledger.database,
            campaign_id=campaign_id,
            key_texts=[_read(path) for path in key_files],
            email=email,
            sources=source or [],
            expires_at=expires.replace(tzinfo=ledger.zone) if expires else None,
            shared=shared,
            actor=actor(),
            now=utc_now(),
        )
        documents = [key_json(key, ledger.zone) for key in found]
    show(documents, as_json=as_json, otherwise=lambda: _enrolled(documents))


@app.command("list")
def list_(campaign: OfCampaign = None, as_json: Json = False) -> None:
    """List the keys."""
    from storage.ledger.enrolments import list_keys

    with refusals(as_json), open_ledger() as ledger:
        documents = [key_json(key, ledger.zone) for key in list_keys(ledger.database, campaign_id=campaign)]
    rows = [
        (key["id"], key["campaignId"], key["type"], key["fingerprint"], key["status"], key["lastUsedAt"] or "never")
        for key in documents
    ]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("id", "campaign", "type", "fingerprint", "status", "last used"), rows, empty="No keys are enrolled."
        ),
    )


@app.command("show")
def show_(
    key: Annotated[str, typer.Argument(help="Its id or fingerprint.", show_default=False)],
    campaign: OfCampaign = None,
    as_json: Json = False,
) -> None:
    """Show a key."""
    from keys.enrolment import find_key

    with refusals(as_json), open_ledger() as ledger:
        document = key_json(find_key(ledger.database, key, campaign_id=campaign), ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: print_fields(document))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id or fingerprint.", show_default=False)],
    campaign: OfCampaign = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    as_json: Json = False,
) -> None:
    """Revoke a key: it stops working, and its live sessions end, within seconds."""
    from keys.enrolment import find_key
    from storage.ledger.enrolments import revoke_key

    with refusals(as_json), open_ledger() as ledger:
        found = find_key(ledger.database, key, campaign_id=campaign)
        revoked = revoke_key(ledger.database, found.id, reason=reason, actor=actor(), now=utc_now())
        document = key_json(revoked, ledger.zone)
    show(
        document,
        as_json=as_json,
        otherwise=lambda: console.print(f"[green]✓[/] {document['fingerprint']} is {document['status']}"),
    )


@app.command()
def audit(campaign: OfCampaign = None, as_json: Json = False) -> None:
    """Show who did what, newest first."""
    from storage.ledger.audit import list_audit

    with refusals(as_json), open_ledger() as ledger:
        rows = list_audit(ledger.database, campaign_id=campaign)
        documents = [
            {
                "at": iso(row["at"], ledger.zone),
                "actor": row["actor"],
                "action": row["action"],
                "subject": row["subject"],
                "campaignId": row["campaign_id"],
                "detail": row["detail"],
            }
            for row in rows
        ]
    table = [(row["at"], row["actor"], row["action"], row["subject"], _flat(row["detail"])) for row in documents]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(("at", "who", "what", "subject", "detail"), table, empty="Nothing yet."),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal("file_unreadable", f"{path} cannot be read: {error.strerror}.") from None


def _enrolled(documents: list[dict[str, Any]]) -> None:
    for key in documents:
        console.print(f"[green]✓[/] Enrolled {key['type']} {key['fingerprint']} for [bold]{key['campaignId']}[/]")
    console.print(f"  Outcome mails go to {documents[0]['email']}")


def _flat(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in detail.items() if value)
