"""The life cycle of keys on a real database: every refusal, rotation, sharing, and the keyring that comes of it."""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from unit.pipeline_fixtures import NOW, a_campaign

from keys.enrolment import enrol, find_key, keyring_of
from keys.keyring import is_usable, read_keyring, write_keyring
from postern.errors import NotFoundError, Refusal
from postern.model import IdKind, KeyStatus, new_id
from storage.database import Database
from storage.ledger.audit import list_audit
from storage.ledger.campaigns import create_campaign
from storage.ledger.enrolments import EnrolledKey, expire_keys, list_keys, revoke_key

pytest_plugins = ["support.databases"]
OWNER = "owner@agency.example"
DAY = timedelta(days=1)
KNOWN_PUBLIC = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y vagrant"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A ledger without campaigns."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def new_campaign(database: Database) -> Callable[[], str]:
    """Makes a campaign and gives its id."""

    def make() -> str:
        campaign = a_campaign()
        create_campaign(database, campaign, actor="operator")
        return campaign.id

    return make


@pytest.fixture
def campaign_id(new_campaign: Callable[[], str]) -> str:
    """A campaign without keys."""
    return new_campaign()


def new_key() -> bytes:
    """The content of a fresh `.pub` file."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" job@agency\n"


def rsa_keys_with_a_common_prime() -> list[bytes]:
    """Two `.pub` files of which anybody can compute the private halves."""
    numbers = [rsa.generate_private_key(65537, 2048).private_numbers() for _ in range(2)]
    moduli = [numbers[0].p * numbers[0].q, numbers[0].p * numbers[1].q]
    fields = [[b"ssh-rsa", b"\x01\x00\x01", modulus.to_bytes(257, "big")] for modulus in moduli]
    blobs = [b"".join(len(field).to_bytes(4, "big") + field for field in triple) for triple in fields]
    return [b"ssh-rsa " + base64.b64encode(blob) for blob in blobs]


def enrol_keys(database: Database, campaign_id: str, *keys: bytes, **changes: Any) -> list[EnrolledKey]:
    given: dict[str, Any] = {"key_texts": keys, "email": OWNER, "actor": "operator", "now": NOW, **changes}
    return enrol(database, campaign_id=campaign_id, **given)


def refusal_of(database: Database, campaign_id: str, *keys: bytes, **changes: Any) -> Refusal:
    """The refusal of an enrolment, which must have left nothing behind."""
    before = (list_keys(database), list_audit(database))
    with pytest.raises(Refusal) as caught:
        enrol_keys(database, campaign_id, *keys, **changes)
    assert (list_keys(database), list_audit(database)) == before
    return caught.value


def test_an_enrolled_key_is_active_at_once(database: Database, campaign_id: str) -> None:
    """With all that was said of it, and what the file said."""
    text = new_key()
    (key,) = enrol_keys(database, campaign_id, text, sources=["203.0.113.7", " 2001:db8::/32 "], expires_at=NOW + DAY)
    assert (key.campaign_id, key.email, key.status) == (campaign_id, OWNER, KeyStatus.ACTIVE)
    assert (key.type, key.comment) == ("ssh-ed25519", "job@agency")
    assert text.decode().startswith(f"{key.public_key} ")
    assert list(key.sources) == ["203.0.113.7/32", "2001:db8::/32"]
    assert (key.created_at, key.expires_at, key.ended_at, key.last_used_at) == (NOW, NOW + DAY, None, None)


def test_several_keys_are_one_enrolment(database: Database, campaign_id: str) -> None:
    """Each with a line on the audit trail."""
    keys = enrol_keys(database, campaign_id, new_key(), new_key())
    assert len({key.enrolment_id for key in keys}) == 1
    audited = [row for row in list_audit(database, campaign_id=campaign_id) if row["action"] == "key.enrolled"]
    assert {row["subject"] for row in audited} == {key.id for key in keys}
    assert {row["actor"] for row in audited} == {"operator"}


NOT_ONE_ADDRESS = [
    *[
        "",
        "owner",
        "owner@",
        "@agency",
        "a@b@c",
        "a@b, c@d",
        "a@b;c@d",
        "a b@c",
        "Owner <a@b>",
        "a@-b",
        "a@b.",
        "a@b c",
    ],
    *["a@b\n", "a\r\nBcc: x@y", "\0a@b", "a\x1b@b", '"a"@b', "a@[127.0.0.1]"],
]
ADDRESSES = ["a@b", "first.last+tag@agency.gov.sg", "o'neill@agency-x.example"]
NO_SOURCES = ["", "x", "203.0.113.256", "203.0.113.7/24", "203.0.113.0/33", "1", "10.0.0.1-10.0.0.9"]


@pytest.mark.parametrize("email", NOT_ONE_ADDRESS)
def test_anything_but_one_address_is_refused(database: Database, campaign_id: str, email: str) -> None:
    """Nothing that could become a second recipient or a header."""
    assert refusal_of(database, campaign_id, new_key(), email=email).code == "email_invalid"


@pytest.mark.parametrize("email", ["a@b", "first.last+tag@agency.gov.sg", "o'neill@agency-x.example"])
def test_ordinary_addresses_are_accepted(database: Database, campaign_id: str, email: str) -> None:
    """As they are."""
    assert enrol_keys(database, campaign_id, new_key(), email=email)[0].email == email


@pytest.mark.parametrize(
    "source", ["", "x", "203.0.113.256", "203.0.113.7/24", "203.0.113.0/33", "1", "10.0.0.1-10.0.0.9"]
)
def test_a_source_that_is_no_address_is_refused(database: Database, campaign_id: str, source: str) -> None:
    """Nor is a block with bits set that it does not cover: one of the two was not meant."""
    refusal = refusal_of(database, campaign_id, new_key(), sources=["203.0.113.7", source])
    assert refusal.code == "source_invalid"
    assert repr(source) in str(refusal)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
    ],
)
def test_a_source_is_kept_in_one_form(database: Database, campaign_id: str, source: str, kept: str) -> None:
    """However it was written."""
    assert list(enrol_keys(database, campaign_id, new_key(), sources=[source])[0].sources) == [kept]


@pytest.mark.parametrize("late", [timedelta(0), DAY])
def test_an_expiry_that_is_over_is_refused(database: Database, campaign_id: str, late: timedelta) -> None:
    """A key must work for a while."""
    assert refusal_of(database, campaign_id, new_key(), expires_at=NOW - late).code == "expiry_past"


def test_an_expiry_is_kept_in_utc(database: Database, campaign_id: str) -> None:
    """Whatever offset it was given with."""
    expires_at = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=8)))
    assert enrol_keys(database, campaign_id, new_key(), expires_at=expires_at)[0].expires_at == datetime(
        2026, 12, 31, 16, tzinfo=UTC
    )


def test_an_enrolment_needs_a_campaign(database: Database) -> None:
    """One that is there."""
    assert isinstance(refusal_of(database, new_id(IdKind.CAMPAIGN), new_key()), NotFoundError)


def test_an_enrolment_needs_a_key(database: Database, campaign_id: str) -> None:
    """One at least."""
    assert refusal_of(database, campaign_id).code == "key_missing"


def test_the_same_key_twice_is_refused(database: Database, campaign_id: str) -> None:
    """Also under another comment."""
    key = new_key()
    assert refusal_of(database, campaign_id, key, key.replace(b"job", b"other")).code == "key_twice"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "key_empty"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "key_private"),
        (
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y vagrant",
            "key_known_public",
        ),
    ],
)
def test_one_bad_key_refuses_all(database: Database, campaign_id: str, text: bytes, code: str) -> None:
    """The good one beside it is not enrolled."""
    assert refusal_of(database, campaign_id, new_key(), text).code == code


def test_keys_with_a_common_prime_are_refused(database: Database, new_campaign: Callable[[], str]) -> None:
    """In one enrolment, and against what is enrolled for any campaign."""
    first, second = rsa_keys_with_a_common_prime()
    assert refusal_of(database, new_campaign(), first, second).code == "key_rsa_shared_factor"
    enrol_keys(database, new_campaign(), first)
    assert refusal_of(database, new_campaign(), second).code == "key_rsa_shared_factor"


def test_a_key_is_enrolled_once_for_a_campaign(database: Database, campaign_id: str) -> None:
    """Not even insisting helps."""
    key = new_key()
    enrol_keys(database, campaign_id, key)
    assert refusal_of(database, campaign_id, key).code == "key_enrolled"
    assert refusal_of(database, campaign_id, key, shared=True).code == "key_enrolled"


def test_a_key_belongs_to_one_campaign(database: Database, new_campaign: Callable[[], str]) -> None:
    """The refusal names the one that has it, and says how to insist."""
    key, first = new_key(), new_campaign()
    enrol_keys(database, first, key)
    refusal = refusal_of(database, new_campaign(), key)
    assert refusal.code == "key_of_another_campaign"
    assert first in str(refusal)
    assert "--shared" in str(refusal)


@pytest.mark.parametrize("make", [new_key, lambda: rsa_keys_with_a_common_prime()[0]])
def test_an_operator_may_insist(database: Database, new_campaign: Callable[[], str], make: Callable[[], bytes]) -> None:
    """Then both campaigns have the key, each on an enrolment of its own; an RSA key shares no prime with itself."""
    key, first, second = make(), new_campaign(), new_campaign()
    enrol_keys(database, first, key)
    enrol_keys(database, second, key, email="other@agency.example", shared=True)
    keyring = keyring_of(database)
    assert set(keyring.campaigns) == {first, second}
    assert keyring.campaigns[first][0].public_key == keyring.campaigns[second][0].public_key


def test_keys_are_rotated_without_a_gap(database: Database, campaign_id: str) -> None:
    """The new key works before the old one is revoked; the old one can come back under a new enrolment."""
    old_text = new_key()
    (old,) = enrol_keys(database, campaign_id, old_text)
    (new,) = enrol_keys(database, campaign_id, new_key())
    assert {entry.fingerprint for entry in keyring_of(database).campaigns[campaign_id]} == {
        old.fingerprint,
        new.fingerprint,
    }
    revoke_key(database, old.id, reason="rotation", actor="operator", now=NOW + DAY)
    assert [entry.fingerprint for entry in keyring_of(database).campaigns[campaign_id]] == [new.fingerprint]
    (again,) = enrol_keys(database, campaign_id, old_text, now=NOW + 2 * DAY)
    assert again.id != old.id
    assert len(keyring_of(database).campaigns[campaign_id]) == 2


def test_a_revoked_key_may_go_to_another_campaign(database: Database, new_campaign: Callable[[], str]) -> None:
    """It belongs to nobody then."""
    key, first, second = new_key(), new_campaign(), new_campaign()
    (enrolled,) = enrol_keys(database, first, key)
    revoke_key(database, enrolled.id, reason="moved", actor="operator", now=NOW)
    assert enrol_keys(database, second, key)[0].campaign_id == second
    assert set(keyring_of(database).campaigns) == {second}


def test_a_key_is_found_by_id_and_by_fingerprint(database: Database, campaign_id: str) -> None:
    """Ended ones as well."""
    (key,) = enrol_keys(database, campaign_id, new_key())
    assert find_key(database, key.id) == find_key(database, key.fingerprint) == key
    assert find_key(database, key.fingerprint, campaign_id=campaign_id) == key
    revoke_key(database, key.id, reason="lost", actor="operator", now=NOW)
    assert find_key(database, key.fingerprint).status is KeyStatus.REVOKED


def test_an_active_key_is_found_before_an_ended_one(database: Database, campaign_id: str) -> None:
    """The same key, revoked once and enrolled again; of ended ones only, the latest."""
    text = new_key()
    (old,) = enrol_keys(database, campaign_id, text)
    revoke_key(database, old.id, reason="mistake", actor="operator", now=NOW)
    (new,) = enrol_keys(database, campaign_id, text, now=NOW + DAY)
    assert find_key(database, old.fingerprint).id == new.id
    assert find_key(database, old.id).id == old.id
    revoke_key(database, new.id, reason="lost", actor="operator", now=NOW + DAY)
    assert find_key(database, old.fingerprint).id == new.id


def test_a_fingerprint_of_several_campaigns_is_ambiguous(database: Database, new_campaign: Callable[[], str]) -> None:
    """Unless the campaign is named."""
    key, first, second = new_key(), new_campaign(), new_campaign()
    (one,) = enrol_keys(database, first, key)
    (other,) = enrol_keys(database, second, key, shared=True)
    with pytest.raises(Refusal, match=first) as caught:
        find_key(database, one.fingerprint)
    assert caught.value.code == "key_ambiguous"
    assert find_key(database, one.fingerprint, campaign_id=second) == other
    assert find_key(database, one.id) == one


@pytest.mark.parametrize("wanted", ["", "SHA256:x", "key_0f9a8b7c-1d2e-4f30-8a4b-5c6d7e8f9a0b", "%"])
def test_a_key_that_nobody_has_is_not_found(database: Database, campaign_id: str, wanted: str) -> None:
    """By no name."""
    enrol_keys(database, campaign_id, new_key())
    with pytest.raises(NotFoundError):
        find_key(database, wanted)


def test_the_keyring_of_an_empty_ledger_is_empty(database: Database, campaign_id: str) -> None:
    """A campaign without keys is not in it."""
    assert keyring_of(database).campaigns == {}


def test_the_keyring_is_what_the_gate_reads(database: Database, campaign_id: str, tmp_path: Path) -> None:
    """From the ledger through the file to a login, with sources and expiry."""
    (key,) = enrol_keys(database, campaign_id, new_key(), sources=["203.0.113.0/24"], expires_at=NOW + DAY)
    write_keyring(tmp_path / "keyring.json", keyring_of(database))
    entry = read_keyring(tmp_path / "keyring.json").entry(campaign_id, key.public_key)
    assert entry is not None
    assert entry.enrolment_id == key.enrolment_id
    assert is_usable(entry, peer="203.0.113.7", now=NOW)
    assert not is_usable(entry, peer="203.0.114.7", now=NOW)
    assert not is_usable(entry, peer="203.0.113.7", now=NOW + DAY)


def test_an_expired_key_leaves_the_keyring(database: Database, campaign_id: str) -> None:
    """When its time is over and somebody has looked; the audit trail says so."""
    (key,) = enrol_keys(database, campaign_id, new_key(), expires_at=NOW + DAY)
    assert expire_keys(database, now=NOW) == 0
    assert expire_keys(database, now=NOW + DAY) == 1
    assert keyring_of(database).campaigns == {}
    assert find_key(database, key.id).status is KeyStatus.EXPIRED
    assert list_audit(database)[0]["action"] == "key.expired"


@pytest.mark.parametrize(
    "address", ["a..b@x.example", ".a@x.example", "a.@x.example", "é@x.example", "[a]@x.example", "x@a..b"]
)
def test_an_address_that_no_mail_can_be_made_for_is_refused(
    database: Database, new_campaign: Callable[[], str], address: str
) -> None:
    """Found at enrolment, not when the first mail is due."""
    with pytest.raises(Refusal) as refused:
        enrol(
            database,
            campaign_id=new_campaign(),
            key_texts=[KNOWN_PUBLIC],
            email=address,
            actor="operator",
            now=NOW,
        )
    assert refused.value.code == "email_invalid"
