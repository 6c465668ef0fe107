"""What all connections of a gate share: the keys, the limits, and the list of them.

Limits are counted from the connections that are there, so nothing can be counted twice or forgotten. Several
processes on one port share out the number of guests, and the disk's reserve is one; the others hold for each process.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import asyncssh

from postern.logs import get_logger
from postern.settings import GateSettings
from postern.times import utc_now
from sftpd.access import Access
from sftpd.algorithms import host_key_types
from sftpd.bans import TIMED_OUT, Bans
from sftpd.connections import MAX_TRIES, Connection
from sftpd.guests import Guests
from sftpd.hostkeys import Stamp, load_host_keys, load_next_keys, make_host_keys, stamp_of
from sftpd.logins import LastUses
from sftpd.metrics import Login, Metrics
from sftpd.paths import NameRules
from sftpd.recent import RecentUploads
from sftpd.records import Client
from sftpd.refusals import RefusalCode, refuse
from sftpd.room import Room
from sftpd.seams import GateConnection, HostKeys, check_seams, host_key_pairs
from sftpd.session_uploads import Terms
from sftpd.ssh_options import ssh_options
from storage.spool import Spool

KEYRING = "keyring.json"

LOOK_EVERY = 0.3  # seconds between looks at the keyring and at the connections
TELL_EVERY = 2.0  # seconds between the times that intake is told of logins
GOODBYE = 2.0  # seconds for clients that have their OK to close their session, scp's exit status included
CLEAR_UP = 10.0  # seconds for ended sessions to remove their files

_log = get_logger(__name__)


class Gate:
    """One gate; it knows no socket."""

    def __init__(self, settings: GateSettings, spool: Spool, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.access = Access(settings.gate_folder / KEYRING)
        self.metrics = Metrics()
        self.terms = Terms(
            spool=spool,
            recent=RecentUploads(spool, clock),
            names=NameRules(settings.temporary_suffixes),
            max_file_size=settings.max_file_size,
            zone=settings.timezone,
            clock=clock,
            metrics=self.metrics,
        )
        most_guests = -(-settings.max_guests // settings.gate_processes)  # all processes together, rounded up
        self._guests = Guests(most=most_guests, most_per_address=settings.max_guests_per_address)
        self._bans = Bans(limit=settings.ban_points, is_named=self.access.names)
        self._room = Room(settings, spool)
        self._last_uses = LastUses(spool, zone=settings.timezone, clock=clock)
        self._turned_away = {"banned": 0, "crowded": 0}
        self._keys = HostKeys(used=(), announced=())
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._host_keys_read: Stamp = {}

    def prepare(self) -> None:
        """Make folders and host keys, clear away leftovers, read the keyring. Slow: not for the event loop."""
        check_seams()
        self.terms.spool.prepare()
        swept = self.terms.spool.sweep()
        if swept:
            _log.warning("spool.swept", leftovers=swept)
        self.access.refresh()
        self._read_host_keys()

    async def watch(self) -> None:
        """Keep the keys true and end the connections whose key or time has run out."""
        told_at = time.monotonic()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "gate-watch") as thread:  # uploads that wait for the disk fill the loop's own ones
            while True:
                await asyncio.sleep(LOOK_EVERY)
                await loop.run_in_executor(thread, self._refresh)
                now = self.terms.clock()
                for connection in list(self._connections):
                    connection.check(now=now, idle_timeout=self.settings.idle_timeout)
                self._count()
                if time.monotonic() - told_at >= TELL_EVERY:
                    told_at = time.monotonic()
                    self.keep(loop.create_task(self._last_uses.tell()))
                    self._report_guests()

    async def drain(self) -> None:
        """Let the files under way end, then end everything."""
        self._is_stopping = True
        deadline = time.monotonic() + self.settings.drain_timeout
        await _until(lambda: not any(each.unfinished for each in self._connections), deadline)
        await _until(
            lambda: not any(each.is_serving for each in self._connections),
            min(deadline, time.monotonic() + GOODBYE),
        )
        for connection in list(self._connections):
            connection.end("stopping", "The gate is being restarted.")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEAR_UP)
        await self._last_uses.tell()

    # What the door asks of it

    def let_in(self, address: str) -> asyncio.Protocol | None:
        """The connection that a newcomer from there gets, if any."""
        if not self._bans.admits(address):
            self._turn_away("banned", 1)
            return None
        assert self._options is not None
        return GateConnection(self._options, self._keys, address=address, most_failures=MAX_TRIES)

    # What connections ask of it

    def enter(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.metrics.entered()
        self._turn_away("crowded", self._guests.enter(connection, connection.peer))

    def leave(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._guests.leave(connection, connection.peer)
        if connection.client is not None:
            return
        self.metrics.login_ended(self._outcome(connection))
        if self._bans.failed(connection.peer, self._points(connection)):
            self.metrics.banned()
            _log.warning("address.banned", peer=connection.peer)

    def log_in(self, connection: Connection, client: Client) -> None:
        self._guests.leave(connection, connection.peer)
        self._bans.succeeded(connection.peer)
        self.metrics.login_ended(Login.ACCEPTED)
        self._last_uses.note(client)
        _log.info(
            "login.accepted",
            campaign_id=client.campaign_id,
            enrolment_id=client.enrolment_id,
            fingerprint=client.key_fingerprint,
            peer=client.peer,
        )
        if sum(1 for _each in self._of(client.campaign_id)) > self.settings.max_sessions:
            connection.end("too_many_connections", "This campaign has too many connections; close one first.")

    def may_open_session(self, campaign_id: str) -> bool:
        return sum(each.sessions for each in self._of(campaign_id)) < self.settings.max_sessions

    def check_upload(self, campaign_id: str) -> None:
        limit = self.settings.max_unfinished
        if self._is_stopping:
            raise refuse(RefusalCode.STOPPING)
        if sum(each.unfinished for each in self._of(campaign_id)) >= limit:
            raise refuse(RefusalCode.TOO_MANY_OPEN, limit=limit, place="campaign")
        self._room.check()

    def keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _of(self, campaign_id: str) -> Iterator[Connection]:
        return (
            each for each in self._connections if each.client is not None and each.client.campaign_id == campaign_id
        )

    def _points(self, connection: Connection) -> float:
        points = max(float(connection.failures), 1.0 if connection.has_spoken else 0.0)
        return points + (TIMED_OUT if connection.is_late else 0.0)

    def _outcome(self, connection: Connection) -> Login:
        if connection.is_late:
            return Login.TIMED_OUT
        return Login.REFUSED if connection.failures else Login.LEFT

    def _count(self) -> None:
        self.metrics.see(
            connections=len(self._connections),
            guests=len(self._guests),
            unfinished=sum(each.unfinished for each in self._connections),
        )

    def _turn_away(self, why: str, count: int) -> None:
        if count:
            self._turned_away[why] += count
            self.metrics.turned_away(why, count)

    def _report_guests(self) -> None:
        if any(self._turned_away.values()):
            _log.warning("guests.turned_away", **self._turned_away)
            self._turned_away = dict.fromkeys(self._turned_away, 0)

    def _refresh(self) -> None:
        self.access.refresh()
        if stamp_of(self.settings.host_key_folder) != self._host_keys_read:
            try:
                self._read_host_keys()
            except (OSError, ValueError) as error:
                _log.error("host_keys.unreadable", error=str(error))

    def _read_host_keys(self) -> None:
        folder, wanted = self.settings.host_key_folder, host_key_types(self.settings.ssh_policy)
        make_host_keys(folder)
        stamp = stamp_of(folder)  # before they are read: what changes meanwhile is read again
        used, coming = (
            host_key_pairs([key for key in keys if key.get_algorithm() in wanted])
            for keys in (load_host_keys(folder), load_next_keys(folder))
        )
        keys = HostKeys(used=used, announced=[*used, *coming])
        self._options, self._keys = ssh_options(self.settings, keys, lambda: Connection(self)), keys
        self._host_keys_read = stamp
        _log.info("host_keys.read", announced=len({pair.public_data for pair in keys.announced}))


async def _until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - many conditions, and only at the end
        await asyncio.sleep(0.02)
