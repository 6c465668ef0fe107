"""The keyring: who may log in from where and until when, and a file that is never seen half-written."""

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keys.keyring import Keyring, KeyringEntry, is_usable, read_keyring, write_keyring
from postern.model import IdKind, new_id

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
CAMPAIGN = new_id(IdKind.CAMPAIGN)


def entry(*sources: str, expires_at: str | None = None, public_key: str = "ssh-ed25519 AAAA") -> KeyringEntry:
    return KeyringEntry(
        public_key=public_key,
        fingerprint="SHA256:x",
        enrolment_id="enrolment_1",
        sources=sources,
        expires_at=expires_at,
    )


@pytest.mark.parametrize(
    ("sources", "peer", "usable"),
    [
        ([], "203.0.113.7", True),
        ([], "2001:db8::1", True),
        (["203.0.113.7"], "203.0.113.7", True),
        (["203.0.113.7"], "203.0.113.8", False),
        (["203.0.113.7/32"], "203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.113.255", True),
        (["203.0.113.0/24"], "203.0.114.0", False),
        (["203.0.113.9/24"], "203.0.113.7", True),
        (["198.51.100.1", "203.0.113.0/24"], "203.0.113.7", True),
        (["0.0.0.0/0"], "203.0.113.7", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["203.0.113.7"], "::ffff:203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
        (["203.0.113.7"], "::ffff:203.0.113.8", False),
        (["::ffff:203.0.113.7"], "203.0.113.7", True),
        (["::ffff:203.0.113.7"], "::ffff:203.0.113.7", True),
        (["::ffff:203.0.113.0/120"], "203.0.113.255", True),
        (["::ffff:203.0.113.0/120"], "203.0.114.0", False),
        (["::ffff:0:0/96"], "::ffff:198.51.100.1", True),
        (["::203.0.113.7"], "203.0.113.7", False),
    ],
)
def test_a_key_works_from_its_sources(sources: list[str], peer: str, usable: bool) -> None:
    """Single addresses and blocks of either version; an IPv4 address is one however the socket shows it."""
    assert is_usable(entry(*sources), peer=peer, now=NOW) is usable


@pytest.mark.parametrize(
    ("expires_in", "usable"),
    [(None, True), (timedelta(seconds=1), True), (timedelta(0), False), (timedelta(seconds=-1), False)],
)
def test_a_key_works_until_it_expires(expires_in: timedelta | None, usable: bool) -> None:
    """Not at that moment any more."""
    expires_at = None if expires_in is None else (NOW + expires_in).isoformat()
    assert is_usable(entry(expires_at=expires_at), peer="203.0.113.7", now=NOW) is usable


def test_an_expiry_counts_in_its_own_offset() -> None:
    """Half past four in Singapore is half past eight in UTC."""
    assert not is_usable(entry(expires_at="2026-11-20T16:30:00+08:00"), peer="203.0.113.7", now=NOW)
    assert is_usable(entry(expires_at="2026-11-20T16:30:01+08:00"), peer="203.0.113.7", now=NOW)


def test_an_expired_key_does_not_work_from_its_sources_either() -> None:
    """Both have to be right."""
    expired = entry("203.0.113.7", expires_at=NOW.isoformat())
    assert not is_usable(expired, peer="203.0.113.7", now=NOW)


def test_a_key_is_found_by_campaign_and_text() -> None:
    """The very key, for the very campaign."""
    first, second = entry(public_key="ssh-ed25519 AAAA"), entry(public_key="ssh-ed25519 BBBB")
    keyring = Keyring(campaigns={CAMPAIGN: [first, second], "other": [first]})
    assert keyring.entry(CAMPAIGN, "ssh-ed25519 BBBB") is second
    assert keyring.entry("other", "ssh-ed25519 BBBB") is None
    assert keyring.entry(CAMPAIGN, "ssh-ed25519 CCCC") is None
    assert keyring.entry("nobody", "ssh-ed25519 AAAA") is None


def test_what_was_written_can_be_read(tmp_path: Path) -> None:
    """Every field, and no keyring at all is an empty one."""
    path = tmp_path / "gate" / "keyring.json"
    assert read_keyring(path) == Keyring()
    written = [entry("203.0.113.7", "2001:db8::/32", expires_at=NOW.isoformat()), entry()]
    write_keyring(path, Keyring(campaigns={CAMPAIGN: written}))
    read = read_keyring(path).campaigns
    assert [replace(found, sources=tuple(found.sources)) for found in read[CAMPAIGN]] == written
    assert list(read) == [CAMPAIGN]


def test_the_file_holds_nothing_but_what_a_gate_needs(tmp_path: Path) -> None:
    """Public keys, addresses, expiry: no mail address, no comment."""
    path = tmp_path / "keyring.json"
    write_keyring(path, Keyring(campaigns={CAMPAIGN: [entry()]}))
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {"version", "campaigns"}
    assert set(document["campaigns"][CAMPAIGN][0]) == {
        "public_key",
        "fingerprint",
        "enrolment_id",
        "sources",
        "expires_at",
    }


def test_the_same_keyring_is_not_written_again(tmp_path: Path) -> None:
    """The gate does not have to read it again, either."""
    path = tmp_path / "keyring.json"
    keyring = Keyring(campaigns={"b": [entry()], "a": [entry()]})
    assert write_keyring(path, keyring)
    before = path.stat()
    assert not write_keyring(path, Keyring(campaigns={"a": [entry()], "b": [entry()]}))
    assert path.stat().st_ino == before.st_ino
    assert write_keyring(path, Keyring())
    assert path.stat().st_ino != before.st_ino


def test_a_reader_never_sees_half_a_keyring(tmp_path: Path) -> None:
    """However often it is replaced meanwhile."""
    path = tmp_path / "keyring.json"
    small, large = Keyring(), Keyring(campaigns={CAMPAIGN: [entry()] * 200})
    write_keyring(path, small)
    done = threading.Event()

    def replace_again_and_again() -> None:
        for number in range(20):
            write_keyring(path, large if number % 2 else small)
        done.set()

    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    sizes = set()
    while not done.is_set():
        sizes.add(sum(len(entries) for entries in read_keyring(path).campaigns.values()))
    writer.join()
    assert sizes <= {0, 200}
    assert [entry.name for entry in os.scandir(tmp_path)] == ["keyring.json"]


@pytest.mark.parametrize("content", ["", "{", '{"version": 2, "campaigns": {}}', '{"campaigns": {}}'])
def test_a_file_that_is_no_keyring_is_told(tmp_path: Path, content: str) -> None:
    """It is never taken for an empty one."""
    path = tmp_path / "keyring.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r".+"):
        read_keyring(path)
