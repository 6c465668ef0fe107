"""Who may come in: the keyring snapshot, read again whenever the file is replaced.

A snapshot that cannot be read changes nothing: the keys that are known go on working while the programs
that write it are broken. Unknown campaigns, wrong keys and keys that may not be used now all take the same
way through here and get the same answer.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from keys.keyring import Keyring, KeyringEntry, is_usable, read_keyring, source_network
from postern.logs import get_logger

_log = get_logger(__name__)

Stamp = tuple[int, int, int] | None
Network = IPv4Network | IPv6Network

_WIDEST = {4: 16, 6: 40}  # bits; an enrolment for half the internet names nobody


class Access:
    """The active keys, by campaign and public key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp = None
        self._entries: Mapping[tuple[str, str], KeyringEntry] = {}
        self._sources: frozenset[Network] = frozenset()
        self._prefixes: frozenset[tuple[int, int]] = frozenset()  # IP version and bits of the sources

    def refresh(self) -> bool:
        """Read the snapshot if it is another one, which is seldom. Else this is one call of the kernel.

        Returns:
            whether the keys may have changed.
        """
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        try:
            keyring = read_keyring(self._path)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            _log.error("keyring.unreadable", error=str(error))
            self._stamp = stamp
            return False
        self._entries = _index(keyring)
        self._sources = frozenset(_sources(keyring))
        self._prefixes = frozenset((source.version, source.prefixlen) for source in self._sources)
        self._stamp = stamp
        _log.info("keyring.read", campaigns=len(keyring.campaigns), keys=len(self._entries))
        return True

    def admit(self, campaign_id: str, public_key: str, *, peer: str, now: datetime) -> KeyringEntry | None:
        """The entry of a key that may be used now, from there; None says no more than no."""
        entry = self._entries.get((campaign_id, public_key))  # one look-up, whichever of the two is unknown
        if entry is None:
            return None
        try:
            return entry if is_usable(entry, peer=peer, now=now) else None
        except ValueError:
            _log.exception("keyring.entry_unusable", campaign_id=campaign_id, fingerprint=entry.fingerprint)
            return None

    def names(self, peer: str) -> bool:
        """Whether an enrolment lists this address, or a network that it is in, as where it comes from."""
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(
            source_network(f"{address}/{bits}", strict=False) in self._sources
            for version, bits in self._prefixes
            if version == address.version
        )


def _index(keyring: Keyring) -> Mapping[tuple[str, str], KeyringEntry]:
    return {
        (campaign_id, entry.public_key): entry
        for campaign_id, entries in keyring.campaigns.items()
        for entry in entries
    }


def _sources(keyring: Keyring) -> Iterator[Network]:
    for entries in keyring.campaigns.values():
        for source in (source for entry in entries for source in entry.sources):
            try:
                network = source_network(source, strict=False)
            except ValueError:
                continue  # lets nobody in either; `admit` says so
            if network.prefixlen >= _WIDEST[network.version]:
                yield network


def _stamp(path: Path) -> Stamp:
    """What changes when the file is replaced by rename."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call, and its three fields
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
