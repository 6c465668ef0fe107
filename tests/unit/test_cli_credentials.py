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
from postern.secret import VARIABLE, fingerprint, load_secret
from postern.times import utc_now
from storage.database import Database
from storage.ledger.accounts import list_circuits, open_circuit
from storage.ledger.credentials import get_credentials, list_credentials

pytest_plugins = ["support.databases"]

CAMPAIGN = "name: Staff\nagency: Immigration\nchannel: {channel}\ntemplates:\n  english: Dear\n"


class Desk:
    """A home with one campaign, and its command line."""

    def __init__(self, home: Path, channel: str, **settings: str) -> None:
        self.home = home
        self.settings = {"POSTERN_HOME": str(home), **settings}
        file = home / "campaign.yaml"
        file.write_text(CAMPAIGN.format(channel=channel))
        self.campaign_id = json.loads(self.run("create", str(file), "--json"))["id"]

    def run(self, *arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["campaign", *arguments], env=self.settings)
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


def test_on_many_hosts_no_key_is_made(tmp_path: Path, postgresql_url: str) -> None:
    """What this host's own key seals no worker could open; it says what is missing and what to do."""
    desk = Desk(tmp_path, "internal", POSTERN_DATABASE_URL=postgresql_url)
    said = json.loads(desk.give(new_account(), status=1))["error"]
    assert said["code"] == "secret_key_missing"
    for words in ("POSTERN_SECRET_KEY is not set", f"{tmp_path}/postern.env", f"{tmp_path}/secret.key", "Set POSTERN"):
        assert words in said["message"]
    assert not (tmp_path / "secret.key").exists()
    assert desk.shown()["credentials"] is None


@pytest.mark.parametrize("place", ["environment", "postern.env", "secret.key"])
def test_on_many_hosts_the_key_that_is_there_seals(tmp_path: Path, postgresql_url: str, place: str) -> None:
    """Wherever it is; its fingerprint is shown, for people to compare."""
    text = "A" * 43 + "="
    desk = Desk(tmp_path, "internal", POSTERN_DATABASE_URL=postgresql_url)
    if place == "environment":
        desk.settings[VARIABLE] = text
    else:
        (tmp_path / place).write_text(text if place == "secret.key" else f"{VARIABLE}={text}\n")
    given = json.loads(desk.give(new_account()))
    assert given["credentials"]["keyFingerprint"] == fingerprint(bytes(32))
    database = Database(postgresql_url)
    sealed = get_credentials(database, desk.campaign_id)
    assert sealed is not None
    assert Vault(bytes(32)).open(sealed.sealed, desk.campaign_id).sender_name == "AGENCY"
    database.dispose()


def test_credentials_of_a_deleted_campaign_are_of_no_concern(desk: Desk) -> None:
    """Nobody sends by them any more."""
    desk.give(new_account())
    database = Database(f"sqlite:///{desk.home}/postern.db")
    assert list(list_credentials(database)) == [desk.campaign_id]
    desk.run("delete", desk.campaign_id)
    assert list_credentials(database) == {}
    database.dispose()


def test_a_campaign_for_the_public_has_none(tmp_path: Path) -> None:
    """It sends by the service's own account."""
    desk = Desk(tmp_path, "public")
    assert "channel_public" in desk.give(new_account(), status=1)


def test_a_campaign_that_is_not_there(desk: Desk) -> None:
    """Is refused before the file is read."""
    assert "not_found" in desk.run("credentials", new_campaign().id, "--from", "/nowhere", "--json", status=1)
