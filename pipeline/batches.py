"""From the rows of a valid file to a batch of messages in the ledger."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from storage.database import Database
from storage.ledger.batches import NewMessage, add_messages, start_batch

_COMMIT = 5_000  # rows; a commit of this size holds SQLite's write lock for well under 100 ms


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
    for path in sorted(rows.glob("*.arrow")):
        for part in pl.read_ipc(path).iter_slices(_COMMIT):
            add_messages(database, batch_id=batch_id, campaign_id=campaign_id, rows=_new_messages(part), now=now)
    return batch_id


def _new_messages(frame: pl.DataFrame) -> Iterator[NewMessage]:
    return map(NewMessage._make, frame.select(NewMessage._fields).iter_rows())
