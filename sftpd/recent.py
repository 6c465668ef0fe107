"""What sessions see of their campaign's uploads, remembered for a moment.

The spool keeps a file for each upload of the last 24 h, and a client may ask for its list as often as it likes.
So a list is read once a second at most, and again once something was accepted: a client may have several connections,
and look for its upload in another process of the gate than the one that has it. All of them see that by the time of the
campaign's folder.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

from postern.times import from_iso
from sftpd.listing import Sight
from storage.spool import Spool, shared

KEEP = 1.0  # seconds
MAX_CAMPAIGNS = 1000


class RecentUploads:
    """The lists of all campaigns that were asked for lately."""

    def __init__(self, spool: Spool, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._clock = clock
        self._lists: dict[str, tuple[float, int, Mapping[str, Sight]]] = {}  # when read, of which time of the folder
        self._readings: dict[str, object] = {}  # under way, and of before the last upload no longer among these

    async def of(self, campaign_id: str) -> Mapping[str, Sight]:
        """The campaign's accepted uploads, by name."""
        changed_at = self._changed_at(campaign_id)
        read_at, read_of, seen = self._lists.get(campaign_id, (-KEEP, 0, {}))
        if read_of == changed_at and read_at + KEEP > time.monotonic():
            return seen
        reading = self._readings[campaign_id] = object()
        found = await asyncio.to_thread(self._spool.recent_uploads, campaign_id, self._clock())
        seen = {upload.file_name: Sight(size=upload.size, seen_at=from_iso(upload.received_at)) for upload in found}
        if self._readings.get(campaign_id) is reading:
            del self._readings[campaign_id]
            if len(self._lists) >= MAX_CAMPAIGNS:
                self._lists.clear()
            self._lists[campaign_id] = (time.monotonic(), changed_at, seen)
        return seen

    def forget(self, campaign_id: str) -> None:
        """An upload was accepted: what was read before is no longer all of it, by whichever process."""
        self._lists.pop(campaign_id, None)
        self._readings.pop(campaign_id, None)
        folder = self._spool.recent / campaign_id
        with suppress(OSError):  # then the others see it within the second
            folder.mkdir(mode=shared(folder.parent, 0o700), exist_ok=True)
            os.utime(folder)

    def _changed_at(self, campaign_id: str) -> int:
        try:
            return os.stat(self._spool.recent / campaign_id).st_mtime_ns  # noqa: PTH116 - one call, and its field
        except OSError:
            return 0
