"""`postern campaign …`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from postern.campaign_file import read_campaign
from postern.cli.ledger import actor, campaign_json, open_jobs, open_ledger
from postern.cli.output import Json, console, print_fields, print_table, refusals, show
from postern.model import Campaign
from postern.times import iso, utc_now

app = typer.Typer(no_args_is_help=True, help="Campaigns: message templates with their settings.")


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="A campaign file, JSON or YAML.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Create a campaign; its id is the SFTP user name. Its content never changes afterwards."""
    from storage.ledger.campaigns import create_campaign

    with refusals(as_json), open_ledger() as ledger:
        campaign = read_campaign(file, utc_now())
        create_campaign(ledger.database, campaign, actor=actor())
        document = campaign_json(campaign, ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _created(campaign))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the campaigns."""
    from storage.ledger.campaigns import list_campaigns

    with refusals(as_json), open_ledger() as ledger:
        found = list_campaigns(ledger.database)
        document = [campaign_json(campaign, ledger.zone) for campaign in found]
    rows = [
        (campaign.id, campaign.name, campaign.agency, campaign.channel.value, ", ".join(campaign.templates))
        for campaign in found
    ]
    show(
        document,
        as_json=as_json,
        otherwise=lambda: print_table(
            ("id", "name", "agency", "channel", "languages"),
            rows,
            empty="No campaigns yet. Create one: postern campaign create FILE",
        ),
    )


@app.command("show")
def show_(campaign_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Show a campaign with its templates."""
    from storage.ledger.campaigns import get_campaign
    from storage.ledger.credentials import get_credentials

    with refusals(as_json), open_ledger() as ledger:
        campaign = get_campaign(ledger.database, campaign_id)
        document = campaign_json(campaign, ledger.zone)
        found = get_credentials(ledger.database, campaign_id)
        document["credentials"] = found and {
            "senderName": found.sender_name,
            "updatedAt": iso(found.updated_at, ledger.zone),
        }
    show(document, as_json=as_json, otherwise=lambda: _details(campaign, document))


@app.command()
def pause(campaign_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Let a campaign's messages wait. Its files are still accepted and validated; `resume` goes on where it stopped."""
    from storage.ledger.pausing import pause_campaign

    with refusals(as_json), open_ledger() as ledger:
        campaign = pause_campaign(ledger.database, campaign_id, actor=actor(), now=utc_now())
        document = campaign_json(campaign, ledger.zone)
    show(document, as_json=as_json, otherwise=lambda: _paused(campaign_id))


@app.command()
def resume(campaign_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Let a paused campaign's messages go on where they stopped."""
    from storage.ledger.pausing import resume_campaign

    with refusals(as_json), open_ledger() as ledger:
        campaign = resume_campaign(ledger.database, campaign_id, actor=actor(), now=utc_now())
        document = campaign_json(campaign, ledger.zone)
    said = f"[green]✓[/] Resumed [bold]{campaign_id}[/]: its messages go on where they stopped."
    show(document, as_json=as_json, otherwise=lambda: console.print(said))


@app.command()
def delete(campaign_id: Annotated[str, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Delete a campaign for good: its keys stop working, and nothing more is sent. Its history stays."""
    from storage.ledger.campaigns import delete_campaign

    with refusals(as_json), open_ledger() as ledger, open_jobs(ledger) as jobs:
        now = utc_now()
        delete_campaign(ledger.database, jobs, campaign_id, actor=actor(), now=now)
        document = {"id": campaign_id, "deletedAt": iso(now, ledger.zone)}
    show(document, as_json=as_json, otherwise=lambda: console.print(f"[green]✓[/] Deleted [bold]{campaign_id}[/]"))


def _paused(campaign_id: str) -> None:
    console.print(f"[green]✓[/] Paused [bold]{campaign_id}[/]: within a second nothing more is handed over.")
    console.print("  What was handed over goes its way. Files are still accepted and validated; their messages wait.")
    console.print(f"  Go on: postern campaign resume {campaign_id}")


def _created(campaign: Campaign) -> None:
    console.print(f"[green]✓[/] Created [bold]{campaign.id}[/]")
    console.print(f"  CSV header: recipient,language,{','.join(campaign.parameters)}".rstrip(","))
    console.print(f"  Next: postern key enrol {campaign.id} KEYFILE.pub --email OWNER@AGENCY")


def _details(campaign: Campaign, document: dict[str, Any]) -> None:
    credentials = document["credentials"]
    print_fields(
        {
            "id": campaign.id,
            "name": campaign.name,
            "agency": campaign.agency,
            "channel": campaign.channel.value,
            "rate": f"{campaign.rate:g} messages a second",
            "parameters": ", ".join(campaign.parameters) or "none",
            "created": document["createdAt"],
            "paused": f"since {document['pausedAt']}; its messages wait" if campaign.paused_at else None,
            "credentials": f"set {credentials['updatedAt']}" if credentials else None,
            "sender": credentials["senderName"] if credentials else None,
        }
    )
    for language, body in campaign.templates.items():
        console.print(f"\n[bold]{language.value}[/]")
        console.print(body, markup=False)
