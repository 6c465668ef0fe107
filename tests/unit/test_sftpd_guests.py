"""Room for those who have not logged in: newcomers are let in, and whom that costs its place."""

import socket
from dataclasses import dataclass, field

from sftpd.guests import Guests
from sftpd.sockets import unread


@dataclass(eq=False)
class Dial:
    """A guest that notes that it was sent away."""

    address: str = "192.0.2.1"
    has_spoken: bool = False
    gone: list["Dial"] = field(default_factory=list)

    def send_away(self) -> None:
        self.gone.append(self)


def arrive(guests: Guests, *dials: Dial) -> list[Dial]:
    """Let them in and return who had to go, in that order."""
    gone: list[Dial] = []
    for dial in dials:
        dial.gone = gone
        guests.enter(dial, dial.address)
    return gone


def test_the_oldest_of_a_full_address_goes() -> None:
    """Silent connections never keep a newcomer out."""
    guests = Guests(most=10, most_per_address=2)
    dials = [Dial() for _ in range(4)]
    assert arrive(guests, *dials) == dials[:2]
    assert len(guests) == 2


def test_the_silent_go_before_those_who_are_logging_in() -> None:
    """Who exchanges keys keeps its place while there are others."""
    guests = Guests(most=10, most_per_address=2)
    speaking, silent, third, fourth = Dial(has_spoken=True), Dial(), Dial(has_spoken=True), Dial()
    assert arrive(guests, speaking, silent, third, fourth) == [silent, speaking]


def test_an_address_pays_for_itself() -> None:
    """Others keep their places, also where the house is full: the address with most guests gives way."""
    guests = Guests(most=4, most_per_address=3)
    crowd = [Dial() for _ in range(3)]
    others = [Dial("198.51.100.1"), Dial("198.51.100.2")]
    assert arrive(guests, *crowd, *others) == [crowd[0]]


def test_an_ipv6_customer_is_one_address() -> None:
    """A /64 counts once."""
    guests = Guests(most=10, most_per_address=2)
    dials = [Dial(f"2001:db8::{number}") for number in range(1, 4)]
    assert arrive(guests, *dials) == dials[:1]


def test_who_leaves_makes_room() -> None:
    """A login is a leaving; leaving twice is harmless."""
    guests = Guests(most=2, most_per_address=2)
    first, second, third = Dial(), Dial(), Dial()
    assert arrive(guests, first, second) == []
    guests.leave(first, first.address)
    guests.leave(first, first.address)
    assert len(guests) == 1
    assert arrive(guests, third) == []
    assert len(guests) == 2


def test_what_a_client_said_counts_before_it_is_read() -> None:
    """A crowd that comes at once is let in before anybody of it is listened to."""
    ours, theirs = socket.socketpair()
    assert unread(ours) == 0
    theirs.sendall(b"SSH-2.0-x\r\n")
    assert unread(ours) == 11
    ours.close()
    theirs.close()
    assert (unread(ours), unread(None)) == (0, 0)
