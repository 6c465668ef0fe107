"""From the rows of a valid file to a batch of messages in the ledger."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from postern.logs import get_logger
from storage.database import Database
from storage.ledger.batches import start_batch
from storage.ledger.new_messages import ROWS_A_COMMIT, NewMessages, write_messages

log = get_logger(__name__)


def write_batch(
    database: Database, *, upload_id: str, campaign_id: str, rows: Path, extent: tuple[int, int, int], now: datetime
) -> str:
    """Write an upload's batch with all of its messages; nothing is sent yet.

    Args:
        database: the database.
        upload_id: the upload.
        campaign_id: its campaign.
        rows: the folder that `pipeline.validate` wrote.
        extent: how many rows there are, the first and the last row number.
        now: the time.

    Returns:
        the batch's id.
    """
    batch_id = start_batch(database, upload_id=upload_id, campaign_id=campaign_id, rows=extent, now=now)
    log.info("batch.started", upload_id=upload_id, batch_id=batch_id, rows=extent[0])
    written = write_messages(database, batch_id=batch_id, parts=_parts(rows))
    log.info("batch.written", batch_id=batch_id, commits=written.commits, longest_commit=round(written.longest, 3))
    return batch_id


def _parts(folder: Path) -> Iterator[NewMessages]:
    for path in sorted(folder.glob("*.arrow")):
        for part in pl.read_ipc(path).iter_slices(ROWS_A_COMMIT):
            yield NewMessages(*(part[name].to_list() for name in NewMessages._fields))
