"""`postern doctor` and Twilio: a GET to a stand-in tells what is wrong with the service's credentials."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.domain import new_campaign
from support.twilio import Answer, TwilioStandIn, new_account

from dispatch.twilio_accounts import account_of_service
from dispatch.twilio_check import Remark, check_account
from dispatch.twilio_http import Connections
from postern.credentials import Vault
from postern.model import Channel
from postern.secret import fingerprint
from postern.settings import WorkerSettings
from postern.times import utc_now
from storage.database import Database
from storage.ledger.accounts import open_circuit
from storage.ledger.campaigns import create_campaign
from storage.ledger.credentials import set_credentials

pytest_plugins = ["support.databases"]

POSTERN = Path(sys.executable).with_name("postern")
SECRET, SECRET_TEXT = bytes(32), "A" * 43 + "="
KEY_SID, KEY_SECRET, ACCOUNT, SERVICE = (
    "POSTERN_TWILIO_API_KEY_SID",
    "POSTERN_TWILIO_API_KEY_SECRET",
    "POSTERN_TWILIO_ACCOUNT_SID",
    "POSTERN_TWILIO_MESSAGING_SERVICE_SID",
)


def run(home: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "POSTERN_HOME": str(home), **settings}
    command = [str(POSTERN), "doctor", "--json", *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def line(home: Path, check: str, *options: str, **settings: str) -> dict[str, Any]:
    """What it says of one thing; wrong lines have an advice, and no secret is in any."""
    result = run(home, *options, **settings)
    secret = settings.get(KEY_SECRET)
    assert secret is None or secret not in result.stdout + result.stderr
    (found,) = [one for one in json.loads(result.stdout)["lines"] if one["check"] == check]
    assert (found["status"] == "ok") == (found["advice"] is None)
    return dict(found)


@pytest.fixture
def twilio() -> Iterator[TwilioStandIn]:
    """Twilio's API on the loopback."""
    with TwilioStandIn() as twilio:
        yield twilio


def test_credentials_that_twilio_takes(twilio: TwilioStandIn, tmp_path: Path) -> None:
    """It is asked, and nothing is sent."""
    found = line(tmp_path, "provider", **twilio.environment())
    assert (found["status"], "Twilio takes the API key" in found["detail"]) == ("ok", True)
    assert len(twilio.looked_up) == 1
    assert (twilio.asked, twilio.taken) == ([], [])


def test_a_key_that_twilio_does_not_take(twilio: TwilioStandIn, tmp_path: Path) -> None:
    """What is wrong and what to mend, and the secret is not told."""
    settings = twilio.environment() | {KEY_SECRET: "another secret"}
    found = line(tmp_path, "provider", "--role", "worker", **settings)
    assert (found["status"], f"Mend {KEY_SID}" in found["advice"]) == ("wrong", True)


async def remark(twilio: TwilioStandIn, **changes: str) -> Remark:
    """What the check has to say of a worker's settings."""
    settings = WorkerSettings.load(twilio.environment() | changes)
    connections = Connections(now=utc_now)
    try:
        return await check_account(account_of_service(settings), connections, settings.twilio_url)
    finally:
        await connections.close()


@pytest.mark.parametrize(
    ("name", "value", "said", "advice"),
    [
        (KEY_SECRET, "another secret", "does not accept the API key (401, Twilio error 20003)", f"Mend {KEY_SID}"),
        (KEY_SID, f"SK{'0' * 32}", "does not accept the API key", f"Mend {KEY_SID}"),
        (ACCOUNT, f"AC{'0' * 32}", "does not accept the API key", ACCOUNT),
        (SERVICE, f"MG{'0' * 32}", "has no such messaging service (404, Twilio error 20404)", f"Mend {SERVICE}"),
        ("POSTERN_TWILIO_URL", "http://127.0.0.1:1", "127.0.0.1 cannot be reached", "See that this machine reaches it"),
    ],
)
async def test_credentials_that_twilio_does_not_take(
    twilio: TwilioStandIn, name: str, value: str, said: str, advice: str
) -> None:
    """What is wrong, and which setting to mend."""
    found = await remark(twilio, **{name: value})
    assert (said in found.said, advice in found.advice) == (True, True), found


@pytest.mark.parametrize(
    ("which", "answer", "is_usable", "said"),
    [
        ("list_answer", Answer(status=403, code=20005), False, "refuses it (403, Twilio error 20005)"),
        ("list_answer", Answer(status=404, code=20404), False, "knows no such account (404, Twilio error 20404)"),
        ("list_answer", Answer(status=429), True, "asks for a pause"),
        ("list_answer", Answer(status=503), False, "cannot answer now (503)"),
        ("list_answer", Answer(status=502, body="<html>"), False, "cannot answer now (502)"),
        ("list_answer", Answer(status=200, body="<html>"), False, "no answer to be understood"),
        ("list_answer", Answer(status=200, end="reset"), False, "no answer to be understood"),
        ("service_answer", Answer(status=403, code=70051), True, "may not look at the messaging service"),
        ("service_answer", Answer(status=500), False, "cannot answer now (500)"),
    ],
)
async def test_what_twilio_answers_is_told(
    twilio: TwilioStandIn, which: str, answer: Answer, is_usable: bool, said: str
) -> None:
    """In plain words, with its own code."""
    setattr(twilio, which, lambda: answer)
    found = await remark(twilio)
    assert (said in found.said, found.is_usable) == (True, is_usable), found
    assert found.advice or is_usable


def test_a_service_that_changes_characters_is_told(twilio: TwilioStandIn, tmp_path: Path) -> None:
    """Smart Encoding is switched on unless somebody sees to it; messages go all the same."""
    twilio.smart_encoding = True
    found = line(tmp_path, "provider", "--role", "worker", **twilio.environment())
    assert (found["status"], "Switch Smart Encoding off" in found["advice"]) == ("warning", True)


def test_twilio_that_hangs_does_not_hold_up_the_rest(twilio: TwilioStandIn, tmp_path: Path) -> None:
    """A line like any other."""
    twilio.list_answer = lambda: Answer(end="hang")
    found = line(tmp_path, "provider", "--role", "worker", "--timeout", "1", **twilio.environment())
    assert (found["status"], found["detail"]) == ("wrong", "no answer within 1 s")


def test_roles_without_the_credentials_do_not_ask(twilio: TwilioStandIn, tmp_path: Path) -> None:
    """They could not."""
    for role in ("intake", "web"):
        found = line(tmp_path, "provider", "--role", role, **twilio.environment())
        assert (found["status"], found["detail"]) == ("ok", "twilio")
    assert line(tmp_path, "provider", **(twilio.environment() | {"POSTERN_ENVIRONMENT": "loadtest"}))["status"] == "ok"
    assert twilio.looked_up == []


# Credentials of campaigns


@pytest.fixture
def give(sqlite_url: str, tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Gives a new internal campaign credentials that are sealed with a key; returns its id."""
    database = Database(sqlite_url)

    def give(secret: bytes) -> str:
        campaign = replace(new_campaign(), channel=Channel.INTERNAL)
        create_campaign(database, campaign, actor="operator")
        sealed = Vault(secret).seal(new_account(), campaign.id)
        now = utc_now()
        set_credentials(database, campaign.id, sealed=sealed, sender_name="", actor="operator", now=now)
        return campaign.id

    yield give
    database.dispose()


def test_credentials_that_open(give: Callable[[bytes], str], tmp_path: Path) -> None:
    """With how many there are; intake has no key and is not asked."""
    give(SECRET)
    give(SECRET)
    found = line(tmp_path / "home", "credentials", "--role", "web", POSTERN_SECRET_KEY=SECRET_TEXT)
    assert (found["status"], found["detail"]) == ("ok", "2; all open with the secret key")
    result = run(tmp_path / "home", "--role", "intake", POSTERN_SECRET_KEY=SECRET_TEXT)
    assert '"credentials"' not in result.stdout


def test_credentials_of_another_key_are_told(give: Callable[[bytes], str], tmp_path: Path) -> None:
    """Which campaigns' they are, and the fingerprint of the key that does not fit."""
    give(SECRET)
    other = give(b"o" * 32)
    found = line(tmp_path / "home", "credentials", POSTERN_SECRET_KEY=SECRET_TEXT)
    assert found["status"] == "wrong"
    assert found["detail"] == f"1 of 2 do not open with the secret key {fingerprint(SECRET)}: {other}"
    assert "Set POSTERN_SECRET_KEY" in found["advice"]


def test_credentials_without_a_key_are_told(give: Callable[[bytes], str], tmp_path: Path) -> None:
    """And none is made."""
    give(SECRET)
    found = line(tmp_path / "home", "credentials")
    assert (found["status"], "no secret key here" in found["detail"]) == ("wrong", True)
    assert not (tmp_path / "home" / "secret.key").exists()


def test_an_account_that_rests_is_told(sqlite_url: str, tmp_path: Path) -> None:
    """With what the provider said."""
    database = Database(sqlite_url)
    detail = "401, Twilio error 20003"
    open_circuit(database, "twilio:1", trouble="account", detail=detail, pause=lambda _: 600, now=utc_now())
    database.dispose()
    found = line(tmp_path / "home", "provider account")
    said = f"See postern provider status; the provider said: {detail}"
    assert (found["status"], found["advice"]) == ("warning", said)
