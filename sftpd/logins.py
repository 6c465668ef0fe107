"""What intake is told of logins: that a key was used, and when last.

Every login is a line in the log. For the ledger only the last use of a key counts, so many logins of a key within
a short time leave one event, written off the event loop: a login waits for no disk. A gate that is killed loses
the uses of the last seconds; the log has them.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from postern.logs import get_logger
from sftpd.records import Client, login_event
from storage.spool import Spool
from storage.spool_records import Event

_log = get_logger(__name__)


class LastUses:
    """The last use of each key that intake has not been told of."""

    def __init__(self, spool: Spool, *, zone: ZoneInfo, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._zone = zone
        self._clock = clock
        self._events: dict[tuple[str, str], Event] = {}  # by enrolment and key

    def note(self, client: Client) -> None:
        """A key was used now."""
        event = login_event(client, at=self._clock(), zone=self._zone)
        self._events[client.enrolment_id, client.key_fingerprint] = event

    async def tell(self) -> None:
        """Leave what was noted in the spool."""
        events, self._events = list(self._events.values()), {}
        if events:
            await asyncio.to_thread(self._write, events)

    def _write(self, events: Sequence[Event]) -> None:
        for event in events:
            try:
                self._spool.tell(event)
            except OSError as error:
                _log.error("event.lost", kind=event.kind, event_id=event.event_id, errno=error.errno)
