"""`postern provider status`: which accounts rest, why, until when, and how many messages wait for each."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.domain import RECIPIENT, change, enqueued_batch, new_campaign
from support.twilio import new_account
from typer.testing import CliRunner

from postern.cli.app import app
from postern.credentials import TwilioAccount, Vault, id_without_account
from postern.model import Channel
from postern.times import from_iso, utc_now
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import open_circuit
from storage.ledger.campaigns import create_campaign
from storage.ledger.credentials import set_credentials
from storage.tables import circuits

pytest_plugins = ["support.databases"]

SECRET, SECRET_TEXT = bytes(32), "A" * 43 + "="
DETAIL = "401, Twilio error 20003"


class Ledger:
    """A ledger with campaigns whose messages wait, and its command line."""

    def __init__(self, url: str, home: Path) -> None:
        self.database = Database(url)
        self.jobs = Jobs(url)
        self.home = home
        self.settings = {"POSTERN_HOME": str(home), "POSTERN_SECRET_KEY": SECRET_TEXT}

    def campaign(self, messages: int, account: TwilioAccount | None = None, **changes: Any) -> str:
        campaign = replace(new_campaign(), **changes)
        create_campaign(self.database, campaign, actor="operator")
        if account is not None:
            sealed = Vault(SECRET).seal(account, campaign.id)
            set_credentials(self.database, campaign.id, sealed=sealed, sender_name="", actor="operator", now=utc_now())
        enqueued_batch(self.database, self.jobs, campaign, [RECIPIENT] * messages)
        return campaign.id

    def rest(self, account_id: str, trouble: str = "account", detail: str = DETAIL) -> None:
        open_circuit(self.database, account_id, trouble=trouble, detail=detail, pause=lambda _: 600, now=utc_now())

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("--json"))
        return document

    def run(self, *options: str) -> str:
        result = CliRunner().invoke(app, ["provider", "status", *options], env=self.settings)
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def ledger(sqlite_url: str, tmp_path: Path) -> Any:
    """An empty ledger."""
    ledger = Ledger(sqlite_url, tmp_path / "home")
    yield ledger
    ledger.jobs.close()
    ledger.database.dispose()


def test_nothing_rests(ledger: Ledger) -> None:
    """That is said, and how many messages wait for other reasons."""
    ledger.campaign(3)
    assert ledger.status() == {"provider": "simulator", "numWaiting": 3, "accounts": []}
    said = ledger.run()
    assert "No account rests." in said
    assert "of all campaigns: 3" in said


def test_accounts_that_rest_are_shown_with_what_waits_for_each(ledger: Ledger) -> None:
    """The service's own, one that two agencies share, and the one that a campaign has not been given yet."""
    account = new_account()
    public, shared = ledger.campaign(4), [ledger.campaign(count, account, channel=Channel.INTERNAL) for count in (1, 2)]
    without = ledger.campaign(5, channel=Channel.INTERNAL)
    ledger.campaign(8, new_account(), channel=Channel.INTERNAL)  # whose account is well
    ledger.rest("twilio:service", "throttled", "")
    ledger.rest(account.circuit_id)
    ledger.rest(id_without_account(without))
    status = ledger.status()
    assert status["numWaiting"] == 20
    shown = {
        one["id"]: (one["trouble"], one["detail"], one["campaignIds"], one["numWaiting"]) for one in status["accounts"]
    }
    assert shown == {
        "twilio:service": ("throttled", None, [public], 4),
        account.circuit_id: ("account", DETAIL, sorted(shared), 3),
        id_without_account(without): ("account", DETAIL, [without], 5),
    }
    (one, *_) = status["accounts"]
    assert (one["state"], one["numFailures"]) == ("open", 1)
    assert from_iso(one["until"]) - from_iso(one["since"]) == timedelta(seconds=600)
    said = ledger.run()
    for words in (account.circuit_id, "error 20003", "throttled", "of all campaigns: 20"):
        assert words in said
    assert not [value for value in account.model_dump(exclude={"auth_token", "rate"}).values() if value in said]


def test_an_account_whose_rest_is_over_lets_one_message_go_ahead(ledger: Ledger) -> None:
    """It is shown until it flows again."""
    ledger.rest("twilio:service")
    change(ledger.database, circuits, "twilio:service", open_until=utc_now() - timedelta(seconds=1))
    (one,) = ledger.status()["accounts"]
    assert one["state"] == "half-open"


@pytest.mark.parametrize("key", ["", "B" * 43 + "="])
def test_whose_an_account_is_cannot_be_told_without_the_key(ledger: Ledger, key: str) -> None:
    """So that no number is made up; and no key is made."""
    ledger.campaign(1)
    ledger.campaign(2, new_account(), channel=Channel.INTERNAL)
    ledger.rest("twilio:1")
    ledger.settings["POSTERN_SECRET_KEY"] = key
    status = ledger.status()
    assert [(one["campaignIds"], one["numWaiting"]) for one in status["accounts"]] == [(None, None)]
    assert status["numWaiting"] == 3
    assert "see postern doctor" in ledger.run()
    assert not (ledger.home / "secret.key").exists()
