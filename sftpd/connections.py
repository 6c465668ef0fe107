"""One SSH connection: who it is, what it may open, and why it ends before its client ends it.

Only a public key lets a client in, and only to SFTP sessions. Whether a campaign is unknown or a key is
wrong takes the same way and gets the same answer. Keys are looked at again while a connection lives: one that
is revoked, expires or loses its address ends it. This module limits nothing by address and bans nobody.
"""

import asyncio
import time
from datetime import datetime
from typing import Protocol

import asyncssh
from typing_extensions import override

from keys.keyring import KeyringEntry
from postern.logs import get_logger
from sftpd.access import Access
from sftpd.handler import DropBox
from sftpd.hostkeys import public_line
from sftpd.records import Client
from sftpd.seams import SftpSession, forbid_sha1, limit_failures
from sftpd.session_uploads import Terms

MAX_TRIES = 6  # as OpenSSH's MaxAuthTries
MAX_SESSIONS = 4  # of one connection; clients open one
SHOWN_USER = 80  # characters of a user name in the log; the client made it up

_log = get_logger(__name__)


class House(Protocol):
    """What a connection needs of the gate it came to."""

    access: Access
    terms: Terms

    def is_stopping(self) -> bool:
        """Whether no new file may be started."""

    def enter(self, connection: "Connection") -> None:
        """A client connected."""

    def leave(self, connection: "Connection") -> None:
        """A connection is gone; its sessions may still be clearing up."""

    def log_in(self, client: Client) -> None:
        """A client proved that it holds its key."""

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Wait for this task before leaving."""


class Connection(asyncssh.SSHServer):
    """asyncssh calls it; every method is short and waits for nothing."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._connection: asyncssh.SSHServerConnection | None = None
        self._peer = ""
        self._candidate: tuple[str, str, KeyringEntry] | None = None  # campaign, public key, its entry
        self._client: Client | None = None
        self._heard_at = time.monotonic()
        self._boxes: set[DropBox] = set()

    @property
    def in_flight(self) -> bool:
        """Whether one of its sessions has an unfinished file."""
        return any(box.in_flight for box in self._boxes)

    @property
    def is_serving(self) -> bool:
        """Whether a session is open."""
        return bool(self._boxes)

    @override
    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        peer = conn.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        limit_failures(conn, MAX_TRIES)
        self._house.enter(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connection = None
        self._house.leave(self)

    @override
    def begin_auth(self, username: str) -> bool:
        return True  # False would log the client in without a key

    @override
    def public_key_auth_supported(self) -> bool:
        return True

    @override
    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the key may be used. Runs for unsigned probes, too: nobody is logged in by it."""
        forbid_sha1(key)
        line = public_line(key)
        entry = self._house.access.admit(username, line, peer=self._peer, now=self._house.terms.clock())
        self._candidate = None if entry is None else (username, line, entry)
        if entry is None:
            fingerprint = key.get_fingerprint()
            _log.info("login.refused", user=username[:SHOWN_USER], fingerprint=fingerprint, peer=self._peer)
        return entry is not None

    @override
    def auth_completed(self) -> None:
        if self._candidate is None:
            raise asyncssh.PermissionDenied("No key")  # cannot be: only a key of the keyring completes it
        campaign_id, _line, entry = self._candidate
        self._client = Client(
            campaign_id=campaign_id,
            enrolment_id=entry.enrolment_id,
            key_fingerprint=entry.fingerprint,
            peer=self._peer,
        )
        self._heard_at = time.monotonic()
        self._house.log_in(self._client)

    @override
    def session_requested(self) -> "SftpSession | bool":
        if self._client is None or len(self._boxes) >= MAX_SESSIONS:
            return False
        return SftpSession(serve=self._serve, on_task=self._house.keep, on_data=self._hear)

    def check(self, *, now: datetime, idle_timeout: float) -> None:
        """End the connection if its key may no longer be used or its client fell silent."""
        if self._client is None or self._candidate is None:
            return  # not logged in: the login's own time limit sees to it
        campaign_id, line, _entry = self._candidate
        if self._house.access.admit(campaign_id, line, peer=self._peer, now=now) is None:
            self.end("key_revoked", "This key is no longer enrolled.")
        elif time.monotonic() - self._heard_at > idle_timeout:
            self.end("idle", "Nothing was sent for too long.")

    def end(self, why: str, sentence: str) -> None:
        """Disconnect; files that are not accepted are abandoned."""
        if self._connection is None:
            return
        _log.info("connection.ended", why=why, campaign_id=self._client.campaign_id if self._client else "")
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    def _serve(self, channel: "asyncssh.SSHServerChannel[bytes]") -> DropBox:
        assert self._client is not None
        box = DropBox(
            channel,
            self._client,
            self._house.terms,
            is_stopping=self._house.is_stopping,
            on_exit=self._boxes.discard,
        )
        self._boxes.add(box)
        return box

    def _hear(self) -> None:
        self._heard_at = time.monotonic()
