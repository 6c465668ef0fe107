"""The keyring: the snapshot of active public keys that the gate authenticates by, `keyring.json`.

Intake writes it whenever enrolments change; the gate reads it and needs nothing else, so logins work while
the database is down. It holds public keys, addresses and expiry only. A half-written file cannot be seen:
it is replaced by rename.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from postern.times import from_iso

VERSION = 1
CHECKED = "keyring.checked"  # an empty file beside it, as old as the last look whether the keyring is true
_MAPPED_PREFIX = 96  # bits before the IPv4 address in ::ffff:0:0/96


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringEntry:
    """One active key of a campaign."""

    public_key: str  # OpenSSH, `<type> <base64>`, no comment
    fingerprint: str  # SHA256:…
    enrolment_id: str
    sources: Sequence[str] = ()  # addresses or CIDR; empty means anywhere
    expires_at: str | None = None  # ISO 8601 with offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """All active keys, by campaign id."""

    campaigns: Mapping[str, Sequence[KeyringEntry]] = field(default_factory=dict)

    def entry(self, campaign_id: str, public_key: str) -> KeyringEntry | None:
        """The entry of this very key (`<type> <base64>`) for this campaign, if it is enrolled."""
        for entry in self.campaigns.get(campaign_id, ()):
            if entry.public_key == public_key:
                return entry
        return None


def is_usable(entry: KeyringEntry, *, peer: str, now: datetime) -> bool:
    """Whether a login from `peer` with this key may go on now: not expired, and from an allowed address."""
    if entry.expires_at is not None and from_iso(entry.expires_at) <= now:
        return False
    if not entry.sources:
        return True
    address = ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in source_network(source, strict=False) for source in entry.sources)


def source_network(text: str, *, strict: bool = True) -> IPv4Network | IPv6Network:
    """An address or CIDR block as a network; an IPv4-mapped one (RFC 4291, 2.5.5.2) is the IPv4 one it stands for.

    Raises:
        ValueError: it is neither, or (where `strict`) has bits set outside its prefix.
    """
    network = ip_network(text, strict=strict)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_PREFIX:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))


def write_keyring(path: Path, keyring: Keyring) -> bool:
    """Replace the snapshot if it says something else.

    Returns:
        whether it was written.
    """
    text = json.dumps(
        {
            "version": VERSION,
            "campaigns": {
                campaign: [asdict(entry) for entry in entries]
                for campaign, entries in sorted(keyring.campaigns.items())
            },
        },
        indent=1,
    )
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return True


def read_keyring(path: Path) -> Keyring:
    """Read the snapshot; none at all is an empty keyring.

    Raises:
        ValueError: the file is not a keyring of this version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Keyring()
    if document.get("version") != VERSION:
        raise ValueError(f"{path}: version {document.get('version')!r}, expected {VERSION}")
    return Keyring(
        campaigns={
            campaign: tuple(KeyringEntry(**entry) for entry in entries)
            for campaign, entries in document["campaigns"].items()
        }
    )
