"""The time of the database's server, so that workers on several hosts agree on when a campaign may send.

Between two looks it runs on by this machine's monotonic clock: a jump of the wall clock here moves nothing.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from postern.errors import TransientError
from postern.logs import get_logger
from storage.database import Database

_SECONDS = 10.0  # between two looks; a machine's clock drifts by a millisecond in that time, at worst

log = get_logger(__name__)


class ServerClock:
    """PostgreSQL's time. Call it for the time in UTC."""

    def __init__(self, database: Database) -> None:
        """Look at the server's clock.

        Raises:
            TransientError: it does not answer.
        """
        self._database = database
        self._look()

    def __call__(self) -> datetime:
        at, then = self._seen
        return at + timedelta(seconds=time.monotonic() - then)

    async def keep_right(self, stop: asyncio.Event) -> None:
        """Look again from time to time, until told to stop."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), _SECONDS)
            except TimeoutError:
                try:
                    await asyncio.to_thread(self._look)
                except TransientError as error:
                    log.warning("clock.not_seen", error=str(error))

    def _look(self) -> None:
        with self._database.read() as connection:
            before = time.monotonic()
            at: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
            after = time.monotonic()
        self._seen = (at.astimezone(UTC), (before + after) / 2)
