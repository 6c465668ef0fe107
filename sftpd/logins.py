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

_log = get_logger(__name__)


class LastUses:
    """The last use of each key that intake has not been told of."""

    def __init__(self, spool: Spool, *, zone: ZoneInfo, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._zone = zone
        self._clock = clock
        self._uses: dict[tuple[str, str], tuple[Client, datetime]] = {}  # by enrolment and key

    def note(self, client: Client) -> None:
        """A key was used now."""
        self._uses[client.enrolment_id, client.key_fingerprint] = client, self._clock()

    async def tell(self) -> None:
        """Leave what was noted in the spool."""
        uses, self._uses = list(self._uses.values()), {}
        if uses:
            await asyncio.to_thread(self._write, uses)

    def _write(self, uses: Sequence[tuple[Client, datetime]]) -> None:
        for client, at in uses:
            event = login_event(client, at=at, zone=self._zone)
            try:
                self._spool.tell(event)
            except OSError as error:
                _log.error("event.lost", kind=event.kind, event_id=event.event_id, errno=error.errno)
