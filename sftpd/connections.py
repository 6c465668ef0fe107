"""One SSH connection: who it is, what it may open, and why it ends before its client ends it.

Only a public key lets a client in, and only to SFTP sessions. Whether a campaign is unknown or a key is
wrong takes the same way and gets the same answer. Keys are looked at again while a connection lives: one that
is revoked, expires or loses its address ends it; so does silence, an upload that hardly moves, and a client that
does not read its answers.
"""

import asyncio
import time
from datetime import datetime
from typing import Protocol, cast

import asyncssh
from typing_extensions import override

from keys.keyring import KeyringEntry
from postern.logs import get_logger
from sftpd.access import Access
from sftpd.handler import DropBox
from sftpd.hostkeys import public_line
from sftpd.records import Client
from sftpd.seams import GateConnection, SftpSession, bare_channel, forbid_sha1
from sftpd.session_uploads import Terms
from sftpd.sockets import unread

MAX_TRIES = 6  # as OpenSSH's MaxAuthTries
MAX_SESSIONS = 4  # of one connection, channels that run nothing included; clients open one
MAX_UNREAD = 4_000_000  # bytes of answers that wait for a client to read them
LEAST_PROGRESS = 65_536  # bytes that an open file has to grow by in the time that a client may be idle
SHOWN_USER = 80  # characters of a user name in the log; the client made it up

_log = get_logger(__name__)


class House(Protocol):
    """What a connection needs of the gate it came to."""

    access: Access
    terms: Terms

    def enter(self, connection: "Connection") -> None:
        """A client connected."""

    def leave(self, connection: "Connection") -> None:
        """A connection is gone; its sessions may still be clearing up."""

    def log_in(self, connection: "Connection", client: Client) -> None:
        """A client proved that it holds its key. May end the connection again: the campaign has too many."""

    def may_open_session(self, campaign_id: str) -> bool:
        """Whether the campaign may have one more session."""

    def check_upload(self, campaign_id: str) -> None:
        """Raise a `GateRefusal` where no new file may be started now."""

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Wait for this task before leaving."""


class Connection(asyncssh.SSHServer):
    """asyncssh calls it; every method is short and waits for nothing."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._connection: GateConnection | None = None
        self.peer = ""  # the client's address; a load balancer may have told it
        self._candidate: tuple[str, str, KeyringEntry] | None = None  # campaign, public key, its entry
        self.client: Client | None = None  # once it is logged in
        self._heard_at = self._moved_at = time.monotonic()
        self._progress = 0  # bytes since `_moved_at`
        self._sessions: set[SftpSession] = set()  # a channel without a subsystem is one, too
        self._boxes: set[DropBox] = set()

    @property
    def has_spoken(self) -> bool:
        """Whether the client has said anything yet, be it unread: a crowd that comes at once is read after it came."""
        if self._connection is None:
            return False
        return self._connection.get_extra_info("client_version") is not None or bool(
            unread(self._connection.get_extra_info("socket"))
        )

    @property
    def failures(self) -> int:
        """How many tries to log in have failed, without every client's opening `none`."""
        return 0 if self._connection is None else max(0, self._connection.failures - 1)

    @property
    def is_late(self) -> bool:
        """Whether it ended because the login used up its time."""
        return self._connection is not None and self._connection.is_late

    @property
    def sessions(self) -> int:
        """How many sessions it has."""
        return len(self._sessions)

    @property
    def unfinished(self) -> int:
        """How many files it has that are neither accepted nor abandoned."""
        return sum(box.unfinished for box in self._boxes)

    @property
    def is_serving(self) -> bool:
        """Whether a session is open."""
        return bool(self._boxes)

    @override
    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = cast(GateConnection, conn)
        self.peer = conn.get_extra_info("address")
        self._house.enter(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._house.leave(self)
        self._connection = None

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
        self._house.access.refresh()  # else the gate's processes would differ for a moment
        entry = self._house.access.admit(username, line, peer=self.peer, now=self._house.terms.clock())
        self._candidate = None if entry is None else (username, line, entry)
        if entry is None:
            fingerprint = key.get_fingerprint()
            _log.info("login.refused", user=username[:SHOWN_USER], fingerprint=fingerprint, peer=self.peer)
        return entry is not None

    @override
    def auth_completed(self) -> None:
        if self._candidate is None:
            raise asyncssh.PermissionDenied("No key")  # cannot be: only a key of the keyring completes it
        campaign_id, _line, entry = self._candidate
        self.client = Client(
            campaign_id=campaign_id,
            enrolment_id=entry.enrolment_id,
            key_fingerprint=entry.fingerprint,
            peer=self.peer,
        )
        self._heard_at = time.monotonic()
        self._house.log_in(self, self.client)

    @override
    def session_requested(self) -> "tuple[asyncssh.SSHServerChannel[bytes], SftpSession] | bool":
        if self.client is None or self._connection is None or self.sessions >= MAX_SESSIONS:
            return False
        if not self._house.may_open_session(self.client.campaign_id):
            return False
        session = SftpSession(
            serve=self._serve, on_task=self._house.keep, on_data=self._hear, on_end=self._sessions.discard
        )
        channel = bare_channel(self._connection)
        self._sessions.add(session)
        return channel, session

    def check(self, *, now: datetime, idle_timeout: float) -> None:
        """End the connection if its key may no longer be used, or its client fell silent, dawdles or does not read."""
        if self.client is None or self._candidate is None or self._connection is None:
            return  # not logged in: the login's own time limit sees to it
        campaign_id, line, _entry = self._candidate
        moment = time.monotonic()
        if self._house.access.admit(campaign_id, line, peer=self.peer, now=now) is None:
            self.end("key_revoked", "This key is no longer enrolled.")
        elif moment - self._heard_at > idle_timeout:
            self.end("idle", "Nothing was sent for too long.")
        elif self._dawdles(moment, idle_timeout):
            self.end("stalled", "Hardly anything was sent for too long.")
        elif self._connection.unread > MAX_UNREAD:
            self.end("unread", "The answers were not read.")

    def end(self, why: str, sentence: str) -> None:
        """Disconnect; files that are not accepted are abandoned."""
        if self._connection is None:
            return
        _log.info("connection.ended", why=why, campaign_id=self.client.campaign_id if self.client else "")
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    def send_away(self) -> None:
        """Drop a guest: there is no room for it."""
        if self._connection is not None:
            self._connection.abort()

    def _dawdles(self, moment: float, idle_timeout: float) -> bool:
        """Whether a file has been open for the whole time and hardly grew; a new start where one was finished."""
        if self._progress >= LEAST_PROGRESS or not any(box.is_receiving for box in self._boxes):
            self._moved_at, self._progress = moment, 0
        return moment - self._moved_at > idle_timeout

    def _serve(self, channel: "asyncssh.SSHServerChannel[bytes]") -> DropBox:
        assert self.client is not None
        box = DropBox(
            channel,
            self.client,
            self._house.terms,
            check_upload=self._house.check_upload,
            on_exit=self._boxes.discard,
        )
        self._boxes.add(box)
        return box

    def _hear(self, size: int) -> None:
        self._heard_at = time.monotonic()
        self._progress += size
