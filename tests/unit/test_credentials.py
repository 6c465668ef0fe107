"""Credentials: read from a file, sealed for the database, never shown."""

import json
from pathlib import Path

import pytest
from support.domain import NOW, add_campaign
from support.twilio import new_account

from postern.credentials import TwilioAccount, Vault, read_credentials
from postern.errors import PosternError, Refusal
from postern.model import IdKind, new_id
from storage.database import Database
from storage.ledger.audit import list_audit
from storage.ledger.credentials import get_credentials, owner_of_attempt, set_credentials

pytest_plugins = ["support.databases"]

SECRET = b"s" * 32
CAMPAIGN = "campaign_1"
HIDDEN = ("account_sid", "api_key_sid", "api_key_secret", "messaging_service_sid", "auth_token")


@pytest.fixture
def account() -> TwilioAccount:
    """An account with all that there can be."""
    return new_account(auth_token="a token of the account", rate=25)


def values_of(account: TwilioAccount) -> list[str]:
    return [str(getattr(account, name)) for name in HIDDEN]


def test_what_is_sealed_can_be_opened(account: TwilioAccount) -> None:
    """With the same secret, for the same campaign; sealed twice it looks different."""
    vault = Vault(SECRET)
    sealed = vault.seal(account, CAMPAIGN)
    assert vault.open(sealed, CAMPAIGN) == account
    assert sealed != vault.seal(account, CAMPAIGN)
    assert not [value for value in values_of(account) if value.encode() in sealed]


def test_nobody_else_opens_it(account: TwilioAccount) -> None:
    """Another secret, another campaign, a changed or shortened text."""
    sealed = Vault(SECRET).seal(account, CAMPAIGN)
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for secret, text, campaign in [
        (b"t" * 32, sealed, CAMPAIGN),
        (SECRET, sealed, "campaign_2"),
        (SECRET, changed, CAMPAIGN),
        (SECRET, sealed[:20], CAMPAIGN),
        (SECRET, b"", CAMPAIGN),
    ]:
        with pytest.raises(PosternError, match="POSTERN_SECRET_KEY") as refused:
            Vault(secret).open(text, campaign)
        assert not [value for value in values_of(account) if value in str(refused.value)]


def test_credentials_are_not_shown(account: TwilioAccount) -> None:
    """Not where an object is printed."""
    assert not [value for value in values_of(account) if value in f"{account!r} {account}"]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_file_of_credentials(account: TwilioAccount, tmp_path: Path, form: str) -> None:
    """JSON or YAML; what may be left out may be left out."""
    fields = {name: getattr(account, name) for name in HIDDEN if name != "auth_token"}
    path = tmp_path / "file"
    path.write_text(
        json.dumps(fields) if form == "json" else "".join(f"{name}: {value}\n" for name, value in fields.items())
    )
    found = read_credentials(path)
    assert (found.account_sid, found.auth_token, found.sender_name, found.rate) == (account.account_sid, "", "", 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"account_sid": "AD" + "0" * 32}, "account_sid"),
        ({"api_key_sid": None}, "api_key_sid"),
        ({"api_key_secret": 1234567890123456}, "api_key_secret"),
        ({"messaging_service_sid": "MG1"}, "messaging_service_sid"),
        ({"rate": 0}, "rate"),
        ({"other": "api-secret-value"}, "other"),
    ],
)
def test_a_file_that_cannot_be_right(
    account: TwilioAccount, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    """The field is named, and nothing that the file holds."""
    path = tmp_path / "file"
    path.write_text(json.dumps({**account.model_dump(), **change}))
    with pytest.raises(Refusal, match=says) as refused:
        read_credentials(path)
    shown = [*values_of(account), *map(str, change.values())]
    assert not [value for value in shown if len(value) > 4 and value in str(refused.value)]


@pytest.mark.parametrize("content", [b"{: [", b"\xff", b"- a\n- b\n", b""])
def test_a_file_that_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    """Refused with a reason."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Refusal):
        read_credentials(path)
    with pytest.raises(Refusal, match="cannot be read"):
        read_credentials(tmp_path / "another")


def test_credentials_rotate(database: Database) -> None:
    """The newest count; each change is on the trail, without what it is."""
    campaign = add_campaign(database)
    assert get_credentials(database, campaign.id) is None
    for sealed in (b"one", b"two"):
        set_credentials(database, campaign.id, sealed=sealed, sender_name="AGENCY", actor="operator", now=NOW)
    found = get_credentials(database, campaign.id)
    assert found is not None
    assert (found.sealed, found.sender_name, found.updated_at) == (b"two", "AGENCY", NOW)
    trail = [entry for entry in list_audit(database) if entry["action"] == "campaign.credentials_set"]
    told = [(entry["subject"], entry["actor"], entry["detail"]) for entry in trail]
    assert told == [(campaign.id, "operator", {})] * 2


def test_an_attempt_that_is_not_there_is_nobodys(database: Database) -> None:
    """Neither an error nor somebody else's."""
    assert owner_of_attempt(database, new_id(IdKind.ATTEMPT)) is None
