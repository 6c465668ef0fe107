"""Connections that have not logged in yet: how many there may be at a time, in all and from one address.

Where there is no room for a newcomer, another guest has to go: the one of the same address that has been silent
for longest, or, where the whole house is full, of the address that has most guests. Turning the newcomer away
instead would let a few silent connections lock an address out for as long as a login may take.
"""

from typing import Protocol

from sftpd.bans import neighbourhood


class Guest(Protocol):
    """A connection that has not logged in."""

    @property
    def has_spoken(self) -> bool:
        """Whether the client has said anything yet."""

    def send_away(self) -> None:
        """Drop the connection at once."""


class Guests:
    """Who is there. Enter and leave by address; to leave twice is harmless."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._count = 0
        self._by_address: dict[str, dict[Guest, None]] = {}  # the oldest first

    def __len__(self) -> int:
        return self._count

    def enter(self, guest: Guest, address: str) -> int:
        """Take a newcomer in.

        Returns:
            how many had to go for it.
        """
        key = neighbourhood(address)
        before = self._count
        while len(self._by_address.get(key, ())) >= self._most_per_address:
            self._send_one_away(key)
        while self._count >= self._most:
            self._send_one_away(max(self._by_address, key=lambda each: len(self._by_address[each])))
        gone = before - self._count
        self._by_address.setdefault(key, {})[guest] = None
        self._count += 1
        return gone

    def leave(self, guest: Guest, address: str) -> None:
        """A guest logged in or is gone."""
        key = neighbourhood(address)
        company = self._by_address.get(key, {})
        if guest in company:
            del company[guest]
            self._count -= 1
            if not company:
                del self._by_address[key]

    def _send_one_away(self, key: str) -> None:
        company = self._by_address[key]
        guest = next((each for each in company if not each.has_spoken), next(iter(company)))
        self.leave(guest, key)
        guest.send_away()
