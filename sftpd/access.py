"""Who may come in: the keyring snapshot, read again whenever the file is replaced.

A snapshot that cannot be read changes nothing: the keys that are known go on working while the programs
that write it are broken. Unknown campaigns, wrong keys and keys that may not be used now all take the same
way through here and get the same answer.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from keys.keyring import Keyring, KeyringEntry, is_usable, read_keyring
from postern.logs import get_logger

_log = get_logger(__name__)

Stamp = tuple[int, int, int] | None


class Access:
    """The active keys, by campaign and public key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp = None
        self._entries: Mapping[tuple[str, str], KeyringEntry] = {}

    def refresh(self) -> bool:
        """Read the snapshot if it is another one. Short, but it reads a file: not for the event loop.

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


def _index(keyring: Keyring) -> Mapping[tuple[str, str], KeyringEntry]:
    return {
        (campaign_id, entry.public_key): entry
        for campaign_id, entries in keyring.campaigns.items()
        for entry in entries
    }


def _stamp(path: Path) -> Stamp:
    """What changes when the file is replaced by rename."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call, and its three fields
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
