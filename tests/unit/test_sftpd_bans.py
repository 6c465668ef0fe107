"""Which addresses are banned, for how long, and who never is."""

import pytest

from sftpd import bans
from sftpd.bans import DRAIN, KNOWN_FOR, TRICKLE, Bans, neighbourhood

LIMIT = 10.0
PEER = "192.0.2.1"


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def watched(clock: Clock) -> Bans:
    """Nothing is known of anybody; an enrolment names 198.51.100.7."""
    return Bans(limit=LIMIT, is_named=lambda address: address == "198.51.100.7", clock=clock)


def ban(watched: Bans, address: str = PEER) -> None:
    watched.failed(address, 2 * LIMIT)


def test_enough_points_ban(watched: Bans) -> None:
    """Not one less; and the ban is told once."""
    assert [watched.failed(PEER, 1.0) for _ in range(11)] == [False] * 9 + [True, False]


def test_a_ban_is_a_trickle(watched: Bans, clock: Clock) -> None:
    """One connection a second gets in, so that an enrolled key does."""
    ban(watched)
    assert [watched.admits(PEER) for _ in range(3)] == [True, False, False]
    clock.now += TRICKLE
    assert [watched.admits(PEER) for _ in range(3)] == [True, False, False]


def test_a_ban_ends_by_itself(watched: Bans, clock: Clock) -> None:
    """After a time that does not grow with what was done."""
    for _ in range(1000):
        ban(watched)
    clock.now += LIMIT / DRAIN + 1
    assert [watched.admits(PEER) for _ in range(3)] == [True] * 3


def test_a_login_ends_a_ban_and_prevents_the_next_one(watched: Bans, clock: Clock) -> None:
    """A neighbour behind the same NAT that goes on failing locks nobody out."""
    ban(watched)
    watched.succeeded(PEER)
    for _ in range(100):
        assert not watched.failed(PEER, LIMIT)
        assert watched.admits(PEER)
    clock.now += KNOWN_FOR + 1
    ban(watched)
    assert [watched.admits(PEER) for _ in range(2)] == [True, False]


def test_an_address_that_an_enrolment_names_is_never_banned(watched: Bans) -> None:
    """Before its first login, too."""
    ban(watched, "198.51.100.7")
    assert [watched.admits("198.51.100.7") for _ in range(3)] == [True] * 3


def test_others_are_not_banned_with_it(watched: Bans) -> None:
    """Each address for itself."""
    ban(watched)
    assert [watched.admits("192.0.2.2") for _ in range(3)] == [True] * 3


def test_a_limit_of_zero_bans_nobody(clock: Clock) -> None:
    """It is switched off."""
    watched = Bans(limit=0, is_named=lambda _address: False, clock=clock)
    assert not watched.failed(PEER, 1e9)
    assert [watched.admits(PEER) for _ in range(3)] == [True] * 3


def test_a_flood_of_addresses_is_forgotten_before_those_that_are_known(
    watched: Bans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and the strangers pay for it."""
    monkeypatch.setattr(bans, "MAX_RECORDS", 3)
    watched.succeeded(PEER)
    for number in range(10):
        watched.failed(f"203.0.113.{number}", 1.0)
    ban(watched)
    assert [watched.admits(PEER) for _ in range(2)] == [True] * 2


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_ipv6_counts_by_customer(address: str, counted_as: str) -> None:
    """A customer has a whole /64 to dial from."""
    assert neighbourhood(address) == counted_as
