"""Who may come in, as the keyring says at that moment."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from keys.keyring import Keyring, KeyringEntry, write_keyring
from postern.model import IdKind, new_id
from sftpd.access import Access

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = "2026-01-01T00:01:00+00:00"
CAMPAIGN = new_id(IdKind.CAMPAIGN)
KEY = "ssh-ed25519 AAAA"


def entry(**options: object) -> KeyringEntry:
    values = {"public_key": KEY, "fingerprint": "SHA256:x", "enrolment_id": "enrolment_1", **options}
    return KeyringEntry(**values)  # type: ignore[arg-type]


def access_to(path: Path, *entries: KeyringEntry) -> Access:
    write_keyring(path, Keyring(campaigns={CAMPAIGN: entries}))
    access = Access(path)
    assert access.refresh()
    return access


def test_a_key_opens_its_own_campaign_only(tmp_path: Path) -> None:
    """The pair of campaign and key counts."""
    access = access_to(tmp_path / "keyring.json", entry())
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is not None
    assert access.admit(new_id(IdKind.CAMPAIGN), KEY, peer="192.0.2.1", now=NOW) is None
    assert access.admit(CAMPAIGN, "ssh-ed25519 BBBB", peer="192.0.2.1", now=NOW) is None


def test_time_and_address_are_looked_at(tmp_path: Path) -> None:
    """An expired key and a foreign address are refused."""
    access = access_to(tmp_path / "keyring.json", entry(sources=("192.0.2.0/24",), expires_at=LATER))
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is not None
    assert access.admit(CAMPAIGN, KEY, peer="::ffff:192.0.2.1", now=NOW) is not None
    assert access.admit(CAMPAIGN, KEY, peer="198.51.100.1", now=NOW) is None
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW + timedelta(minutes=1)) is None


def test_an_entry_that_makes_no_sense_lets_nobody_in(tmp_path: Path) -> None:
    """Doubt is a refusal, not a crash."""
    access = access_to(tmp_path / "keyring.json", entry(sources=("nonsense",)))
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is None


def test_a_replaced_keyring_is_read_again(tmp_path: Path) -> None:
    """A revoked key is gone at the next look, and a look without news reads nothing."""
    path = tmp_path / "keyring.json"
    access = access_to(path, entry())
    assert not access.refresh()
    write_keyring(path, Keyring())
    assert access.refresh()
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is None


def test_a_broken_keyring_changes_nothing(tmp_path: Path) -> None:
    """The keys that are known go on working."""
    path = tmp_path / "keyring.json"
    access = access_to(path, entry())
    for content in ("{", "[]", '{"version": 1}', '{"version": 2, "campaigns": {}}', '{"version": 1, "campaigns": 5}'):
        path.write_text(content)
        assert not access.refresh()
        assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is not None


def test_no_keyring_is_an_empty_one(tmp_path: Path) -> None:
    """A gate that starts before intake waits for keys."""
    access = Access(tmp_path / "keyring.json")
    assert not access.refresh()
    assert access.admit(CAMPAIGN, KEY, peer="192.0.2.1", now=NOW) is None


def test_an_enrolment_names_where_it_comes_from(tmp_path: Path) -> None:
    """Addresses and networks that a source lists are named; nobody names half the internet."""
    sources = ("192.0.2.7", "198.51.100.0/24", "2001:db8::/48", "10.0.0.0/8", "nonsense")
    access = access_to(tmp_path / "keyring.json", entry(sources=sources))
    named = ["192.0.2.7", "::ffff:192.0.2.7", "198.51.100.200", "2001:db8:0:1::1"]
    assert [peer for peer in [*named, "192.0.2.8", "10.0.0.1", "2001:db9::1", "", "x"] if access.names(peer)] == named
    write_keyring(tmp_path / "keyring.json", Keyring())
    access.refresh()
    assert not access.names("192.0.2.7")
