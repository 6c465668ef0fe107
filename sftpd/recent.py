"""What sessions see of their campaign's uploads, remembered for a moment.

The spool keeps a file for each upload of the last 24 h, and a client may ask for its list as often as it likes.
So a list is read once a second at most. What this gate accepts is seen at once; what another process of the gate
accepts, within that second.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from postern.times import from_iso
from sftpd.listing import Sight
from storage.spool import Spool

KEEP = 1.0  # seconds
MAX_CAMPAIGNS = 1000


class RecentUploads:
    """The lists of all campaigns that were asked for lately."""

    def __init__(self, spool: Spool, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._clock = clock
        self._lists: dict[str, tuple[float, Mapping[str, Sight]]] = {}
        self._readings: dict[str, object] = {}  # under way, and of before the last upload no longer among these

    async def of(self, campaign_id: str) -> Mapping[str, Sight]:
        """The campaign's accepted uploads, by name."""
        read_at, seen = self._lists.get(campaign_id, (-KEEP, {}))
        if read_at + KEEP > time.monotonic():
            return seen
        reading = self._readings[campaign_id] = object()
        found = await asyncio.to_thread(self._spool.recent_uploads, campaign_id, self._clock())
        seen = {upload.file_name: Sight(size=upload.size, seen_at=from_iso(upload.received_at)) for upload in found}
        if self._readings.get(campaign_id) is reading:
            del self._readings[campaign_id]
            if len(self._lists) >= MAX_CAMPAIGNS:
                self._lists.clear()
            self._lists[campaign_id] = (time.monotonic(), seen)
        return seen

    def forget(self, campaign_id: str) -> None:
        """An upload was accepted: what was read before is no longer all of it."""
        self._lists.pop(campaign_id, None)
        self._readings.pop(campaign_id, None)
