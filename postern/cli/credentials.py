"""`postern campaign credentials`."""

from pathlib import Path
from typing import Annotated

import typer

from postern.cli.ledger import Ledger, actor, open_ledger
from postern.cli.output import Json, console, refusals, show
from postern.credentials import Vault, id_without_account, read_credentials
from postern.errors import Refusal
from postern.model import Channel
from postern.secret import fingerprint, load_secret, source_of_secret
from postern.times import iso, utc_now


def credentials(
    campaign_id: Annotated[str, typer.Argument(show_default=False)],
    file: Annotated[
        Path,
        typer.Option(
            "--from",
            help="JSON or YAML: account_sid, api_key_sid, api_key_secret, messaging_service_sid; optionally "
            "sender_name, auth_token and rate (segments a second). Delete it afterwards.",
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
        secret = _secret(ledger)
        set_credentials(
            ledger.database,
            campaign_id,
            sealed=Vault(secret).seal(account, campaign_id),
            sender_name=account.sender_name,
            actor=actor(),
            now=now,
        )
        for rests in (account.circuit_id, id_without_account(campaign_id)):  # what waited for them goes on at once
            close_circuit(ledger.database, rests)
        document = {
            "id": campaign_id,
            "credentials": {
                "senderName": account.sender_name,
                "updatedAt": iso(now, ledger.zone),
                "keyFingerprint": fingerprint(secret),
            },
        }
    said = f"[green]✓[/] {campaign_id} has its credentials, sealed with the secret key {fingerprint(secret)}"
    show(document, as_json=as_json, otherwise=lambda: console.print(said))


def _secret(ledger: Ledger) -> bytes:
    """The secret key to seal with.

    Raises:
        Refusal: there is none, and hosts that share the database could not open what a new one seals.
    """
    home = ledger.settings.home
    if not ledger.database.is_sqlite and source_of_secret(home) is None:
        raise Refusal(
            "secret_key_missing",
            f"There is no secret key here: POSTERN_SECRET_KEY is not set, neither in the environment nor in "
            f"{home / 'postern.env'}, and {home / 'secret.key'} is not there. What a new key seals no worker could "
            "open. Set POSTERN_SECRET_KEY to that of the workers and webs (postern doctor shows its fingerprint), or "
            "run this command on the host of a worker, with its settings.",
        )
    return load_secret(home)
