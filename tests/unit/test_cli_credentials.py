"""`postern campaign credentials`: given once, given anew, never shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.domain import new_campaign
from support.twilio import new_account
from typer.testing import CliRunner

from postern.cli.app import app
from postern.credentials import TwilioAccount, Vault
from postern.secret import load_secret
from postern.times import utc_now
from storage.database import Database
from storage.ledger.accounts import list_circuits, open_circuit
from storage.ledger.credentials import get_credentials

CAMPAIGN = "name: Staff\nagency: Immigration\nchannel: {channel}\ntemplates:\n  english: Dear\n"


class Desk:
    """A home with one campaign, and its command line."""

    def __init__(self, home: Path, channel: str) -> None:
        self.home = home
        file = home / "campaign.yaml"
        file.write_text(CAMPAIGN.format(channel=channel))
        self.campaign_id = json.loads(self.run("create", str(file), "--json"))["id"]

    def run(self, *arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["campaign", *arguments], env={"POSTERN_HOME": str(self.home)})
        assert result.exit_code == status, result.output
        return result.output

    def give(self, account: TwilioAccount, *, status: int = 0) -> str:
        file = self.home / "credentials.json"
        file.write_text(account.model_dump_json())
        return self.run("credentials", self.campaign_id, "--from", str(file), "--json", status=status)

    def shown(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("show", self.campaign_id, "--json"))
        return document


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk with an internal campaign."""
    return Desk(tmp_path, "internal")


def test_credentials_are_given_and_given_anew(desk: Desk) -> None:
    """The newest ones are what a worker opens; people see when they came and the sender's name, and no more."""
    assert desk.shown()["credentials"] is None
    first, second = new_account(sender_name="ONE"), new_account(sender_name="TWO", auth_token="a token of theirs")
    said = desk.give(first) + desk.give(second) + desk.run("show", desk.campaign_id)
    shown = desk.shown()
    assert shown["credentials"]["senderName"] == "TWO"
    database = Database(f"sqlite:///{desk.home}/postern.db")
    sealed = get_credentials(database, desk.campaign_id)
    assert sealed is not None
    assert Vault(load_secret(desk.home, {})).open(sealed.sealed, desk.campaign_id) == second
    database.dispose()
    secrets = [
        value
        for account in (first, second)
        for name, value in account.model_dump().items()
        if name not in {"sender_name", "rate"} and value
    ]
    assert len(secrets) == 9
    assert not [value for value in secrets if value in said + json.dumps(shown)]
    stored = b"".join(path.read_bytes() for path in desk.home.glob("postern.db*"))
    assert not [value for value in secrets if value.encode() in stored]


def test_new_credentials_end_the_rest_of_their_account(desk: Desk) -> None:
    """What waited for them goes on at once."""
    account = new_account()
    database = Database(f"sqlite:///{desk.home}/postern.db")
    open_circuit(database, account.circuit_id, trouble="account", detail="401", pause=lambda _: 600, now=utc_now())
    desk.give(account)
    assert list_circuits(database, now=utc_now()) == []
    database.dispose()


def test_a_campaign_for_the_public_has_none(tmp_path: Path) -> None:
    """It sends by the service's own account."""
    desk = Desk(tmp_path, "public")
    assert "channel_public" in desk.give(new_account(), status=1)


def test_a_campaign_that_is_not_there(desk: Desk) -> None:
    """Is refused before the file is read."""
    assert "not_found" in desk.run("credentials", new_campaign().id, "--from", "/nowhere", "--json", status=1)
