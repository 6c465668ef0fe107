"""Whether there is room for one more file: on the disk, and among the files that wait for intake.

Asked when a file is opened, so that a client hears of it before it sends anything. Only accepted files count, over all
processes of the gate, and they are counted at most once a second. Files that are still being written do not, however
long that takes; so a limit may be passed by all that is open at that time, and by what is opened within that second.
What must not be passed, the room on the disk, is asked for each file.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from postern.settings import GateSettings
from sftpd.refusals import RefusalCode, refuse
from storage.spool import Spool

_FRESH = 1.0  # seconds


class Room:
    """The room of one spool."""

    def __init__(self, settings: GateSettings, spool: Spool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._spool = spool
        self._monotonic = monotonic
        self._counted_at = -_FRESH
        self._files = self._bytes = 0

    def check(self) -> None:
        """See whether one more file may come.

        Raises:
            GateRefusal: there is no room.
            OSError: the disk does not say.
        """
        disk = os.statvfs(self._spool.root)
        if disk.f_bavail * disk.f_frsize < self._settings.disk_reserve:
            raise refuse(RefusalCode.DISK_FULL)
        if self._monotonic() - self._counted_at >= _FRESH:
            self._count()
        if self._files >= self._settings.spool_max_files or self._bytes >= self._settings.spool_max_bytes:
            raise refuse(RefusalCode.SPOOL_FULL, count=f"{self._files:,}")

    def _count(self) -> None:
        self._counted_at = self._monotonic()
        self._files = self._bytes = 0
        with os.scandir(self._spool.accepted) as entries:
            for entry in entries:
                with suppress(OSError):  # taken in meanwhile
                    self._bytes += os.lstat(f"{entry.path}/data").st_size
                    self._files += 1
