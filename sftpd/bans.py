"""Which addresses have failed too often lately, and what a ban is.

An address collects points for logins that come to nothing and loses them with time. From a set number on it is
banned: one connection a second is let in, the others are turned away before a byte is exchanged. So a ban makes
guessing slow, and an enrolled key still gets in. It never holds up an address that is known: from which an
enrolled key has come in lately, or which an enrolment names. However often a neighbour behind the same NAT
fails, those who belong there are served as always.
IPv6 counts by /64, which one customer has whole (RFC 6177). All of it is of this process and forgotten when it ends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

TIMED_OUT = 5.0  # points for a login that used up its time; one that failed costs a point for each key
DRAIN = 0.1  # points that are forgiven each second
TRICKLE = 1.0  # seconds between the connections of a banned address that are let in
KNOWN_FOR = 30 * 86_400.0  # seconds that a login makes an address known
MAX_RECORDS = 20_000  # of some 200 bytes each

_CUSTOMER_PREFIX = 64


@lru_cache(maxsize=4096)
def neighbourhood(address: str) -> str:
    """The address, or for IPv6 the /64, that is counted as one. Something that is no address stands for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _CUSTOMER_PREFIX), strict=False))


@dataclass(slots=True)
class _Record:
    points: float
    counted_at: float
    known_until: float
    next_entry: float


class Bans:
    """The points of all addresses. A limit of 0 bans nobody."""

    def __init__(
        self, *, limit: float, is_named: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._is_named = is_named
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def admits(self, address: str) -> bool:
        """Whether a connection from there may come in now; for a banned address the answer uses up its turn."""
        record = self._records.get(neighbourhood(address))
        if record is None or not self._is_banned(record, address):
            return True
        now = self._clock()
        if now < record.next_entry:
            return False
        record.next_entry = now + TRICKLE
        return True

    def failed(self, address: str, points: float) -> bool:
        """Count a login that came to nothing.

        Returns:
            whether this is what banned the address.
        """
        if not self._limit or points <= 0:
            return False
        record = self._record(neighbourhood(address))
        was_banned = self._is_banned(record, address)
        # Never over twice the limit: a ban ends after a time that does not depend on how long it was earned.
        record.points = min(self._points(record) + points, 2 * self._limit)
        record.counted_at = self._clock()
        return not was_banned and self._is_banned(record, address)

    def succeeded(self, address: str) -> None:
        """An enrolled key came in from there: all is forgiven, and the address is known."""
        record = self._record(neighbourhood(address))
        record.points = 0.0
        record.known_until = self._clock() + KNOWN_FOR

    def _is_banned(self, record: _Record, address: str) -> bool:
        return (
            0 < self._limit <= self._points(record)
            and record.known_until <= self._clock()
            and not self._is_named(address)
        )

    def _points(self, record: _Record) -> float:
        return max(0.0, record.points - (self._clock() - record.counted_at) * DRAIN)

    def _record(self, key: str) -> _Record:
        record = self._records.pop(key, None)
        if record is None:
            while len(self._records) >= MAX_RECORDS:
                del self._records[self._least_missed()]
            now = self._clock()
            record = _Record(points=0.0, counted_at=now, known_until=now, next_entry=now)
        self._records[key] = record  # last: the one that was touched last
        return record

    def _least_missed(self) -> str:
        """The one untouched for longest that is not known; the known ones go last."""
        now = self._clock()
        return next(
            (key for key, record in self._records.items() if record.known_until <= now), next(iter(self._records))
        )
