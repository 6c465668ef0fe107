"""`postern campaign credentials`."""

from pathlib import Path
from typing import Annotated

import typer

from postern.cli.ledger import actor, open_ledger
from postern.cli.output import Json, console, refusals, show
from postern.credentials import Vault, id_without_account, read_credentials
from postern.errors import Refusal
from postern.model import Channel
from postern.secret import load_secret
from postern.times import iso, utc_now


def credentials(
    campaign_id: Annotated[str, typer.Argument(show_default=False)],
    file: Annotated[
        Path,
        typer.Option(
            "--from",
            help="JSON or YAML: account_sid, api_key_sid, api_key_secret, messaging_service_sid; optionally "
            "sender_name, auth_token and rate (messages a second). Delete it afterwards.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Give an internal campaign its agency's Twilio credentials, or new ones. They are sealed and never shown."""
    from storage.ledger.accounts import close_circuit
    from storage.ledger.campaigns import get_campaign
    from storage.ledger.credentials import set_credentials

    with refusals(as_json), open_ledger() as ledger:
        campaign = get_campaign(ledger.database, campaign_id)
        if campaign.channel is not Channel.INTERNAL:
            raise Refusal("channel_public", f"{campaign_id} is for the public; it sends by the service's own account.")
        account, now = read_credentials(file), utc_now()
        set_credentials(
            ledger.database,
            campaign_id,
            sealed=Vault(load_secret(ledger.settings.home)).seal(account, campaign_id),
            sender_name=account.sender_name,
            actor=actor(),
            now=now,
        )
        for rests in (account.circuit_id, id_without_account(campaign_id)):  # what waited for them goes on at once
            close_circuit(ledger.database, rests)
        document = {
            "id": campaign_id,
            "credentials": {"senderName": account.sender_name, "updatedAt": iso(now, ledger.zone)},
        }
    show(document, as_json=as_json, otherwise=lambda: console.print(f"[green]✓[/] {campaign_id} has its credentials"))
