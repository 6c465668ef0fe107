"""`postern provider …`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from postern.cli.ledger import Ledger, open_ledger
from postern.cli.output import Json, console, print_table, refusals, show
from postern.credentials import Vault, id_without_account
from postern.errors import PosternError
from postern.model import Campaign, Channel
from postern.secret import load_secret, source_of_secret
from postern.times import iso, utc_now

if TYPE_CHECKING:
    from storage.ledger.accounts import Circuit

app = typer.Typer(no_args_is_help=True, help="The provider: who takes messages now, and who does not.")


@app.callback()
def _noun() -> None:
    """Keep `status` a word of its own: with one command alone typer would leave it out."""


@app.command()
def status(as_json: Json = False) -> None:
    """Show the accounts that rest: why, since when and until when, and how many messages wait."""
    from storage.backlog import waiting_messages
    from storage.ledger.accounts import list_circuits
    from storage.ledger.campaigns import list_campaigns

    with refusals(as_json), open_ledger() as ledger:
        waiting = waiting_messages(ledger.database)
        users = _users(ledger, list_campaigns(ledger.database))
        accounts = [
            _account_json(circuit, users, waiting, ledger) for circuit in list_circuits(ledger.database, now=utc_now())
        ]
        document = {
            "provider": ledger.settings.provider,
            "numWaiting": sum(waiting.values()),
            "accounts": accounts,
        }
    show(document, as_json=as_json, otherwise=lambda: _print(document, accounts))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Users:
    """Which campaigns send by which account, as far as this host can tell."""

    by_account: dict[str, set[str]]  # internal campaigns, by the account's id
    public: set[str]
    is_complete: bool  # else an account that is not named may be one of an agency's

    def of(self, account_id: str) -> set[str] | None:
        """The campaigns of an account; None where it cannot be told."""
        if account_id in self.by_account:
            return self.by_account[account_id]
        return self.public if self.is_complete else None  # what is no agency's account is the service's own


def _users(ledger: Ledger, campaigns: Sequence[Campaign]) -> _Users:
    from storage.ledger.credentials import list_credentials

    sealed = list_credentials(ledger.database)
    has_key = source_of_secret(ledger.settings.home) is not None
    vault = Vault(load_secret(ledger.settings.home)) if has_key else None
    by_account: dict[str, set[str]] = {}
    is_complete = True
    for campaign in campaigns:
        if campaign.channel is Channel.PUBLIC:
            continue
        by_account.setdefault(id_without_account(campaign.id), set()).add(campaign.id)
        if campaign.id not in sealed:
            continue
        try:
            account = vault.open(sealed[campaign.id].sealed, campaign.id) if vault else None
        except (PosternError, ValueError):  # ValueError: it opens, and holds what no version of ours sealed
            account = None
        if account is None:
            is_complete = False
        else:
            by_account.setdefault(account.circuit_id, set()).add(campaign.id)
    public = {campaign.id for campaign in campaigns if campaign.channel is Channel.PUBLIC}
    return _Users(by_account=by_account, public=public, is_complete=is_complete)


def _account_json(circuit: "Circuit", users: _Users, waiting: dict[str, int], ledger: Ledger) -> dict[str, Any]:
    campaigns = users.of(circuit.account_id)
    return {
        "id": circuit.account_id,
        "state": circuit.state.value,
        "trouble": str(circuit.trouble),
        "detail": circuit.detail or None,
        "numFailures": circuit.failures,
        "since": iso(circuit.opened_at, ledger.zone),
        "until": iso(circuit.open_until, ledger.zone),
        "campaignIds": None if campaigns is None else sorted(campaigns),
        "numWaiting": None if campaigns is None else sum(waiting.get(campaign, 0) for campaign in campaigns),
    }


def _print(document: dict[str, Any], accounts: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            account["id"],
            account["state"],
            account["since"],
            account["until"],
            "?" if account["numWaiting"] is None else f"{account['numWaiting']:,}",
            ": ".join(filter(None, (account["trouble"], account["detail"]))),
        )
        for account in accounts
    ]
    columns = ("account", "state", "since", "until", "waiting", "why")
    print_table(columns, rows, empty="No account rests.")
    console.print(f"Messages that wait to be handed over, of all campaigns: {document['numWaiting']:,}")
    if any(account["numWaiting"] is None for account in accounts):
        console.print("?: some credentials cannot be opened with the secret key of this host; see postern doctor.")
