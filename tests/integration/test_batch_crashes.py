"""A worker that is killed while it writes a batch and its index, at each transaction: the next one makes them whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import sqlalchemy as sa
from support.domain import NOW, add_campaign, count, jobs_of, message_id, validating_upload

from postern.model import BatchStatus, IdKind, derived_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import get_batch
from storage.ledger.messages import get_message
from storage.tables import batches, message_ids, messages

pytest_plugins = ["support.databases"]

ROWS = 45_000  # five commits of messages, two of their index
WRITE = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
import sqlalchemy as sa
from pipeline.batches import write_batch
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import enqueue_batch
from storage.ledger.message_index import index_messages
from support.domain import verdict
url, upload_id, campaign_id, folder, rows, last, now = sys.argv[1:]
database = Database(url)
left = int(last)

@sa.event.listens_for(database.engine, "commit")
def die_before_the_last(connection):
    global left
    left -= bool(connection.get_execution_options().get("postern_write"))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

extent = (int(rows), 2, int(rows) + 1)
now = datetime.fromisoformat(now)
upload = {"upload_id": upload_id, "campaign_id": campaign_id}
batch_id = write_batch(database, **upload, rows=Path(folder), extent=extent, now=now)
options = {"rate": 20, "verdict": verdict(rows=int(rows)), "context": {}, "now": now}
enqueue_batch(database, Jobs(url), batch_id=batch_id, upload_id=upload_id, **options)
index_messages(database, batch_id)
"""


def test_a_batch_survives_its_writers(database: Database, jobs: Jobs, tmp_path: Path) -> None:
    """Killed before one commit after another, until a writer comes through."""
    upload = validating_upload(database, jobs, add_campaign(database))
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = pl.DataFrame({"row": range(2, ROWS + 2)}).select(
        "row", recipient=pl.lit("6591234567"), language=pl.lit("english"), values=pl.lit("{}"), segments=pl.lit(1)
    )
    rows.write_ipc(folder / "1.arrow")
    arguments = [database.url, upload.id, upload.campaign_id, str(folder), str(ROWS)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    batch_id = derived_id(IdKind.BATCH, upload.id, "batch")
    seen = []
    for last in range(1, 30):
        command = [sys.executable, "-c", WRITE, *arguments, str(last), NOW.isoformat()]
        ended = subprocess.run(command, check=False, timeout=60, env=environ)
        seen.append((count(database, messages), f"index:{batch_id}" in jobs_of(database), count(database, message_ids)))
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        if seen[-1][1]:
            assert get_message(database, message_id(batch_id, 10_001)).row == 10_001  # whatever there is of the index
    assert seen[0] == (0, False, 0)
    assert {(10_000, False, 0), (40_000, False, 0), (ROWS, False, 0), (ROWS, True, 0)} <= set(seen)
    assert {(ROWS, True, 40_000), (ROWS, True, ROWS)} <= set(seen)
    assert seen[-1] == (ROWS, True, ROWS)
    assert count(database, batches) == 1
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUED
    with database.read() as connection:
        assert connection.execute(sa.select(batches.c.is_indexed)).scalar_one()
    for row in (2, 10_001, 10_002, ROWS + 1):
        assert get_message(database, message_id(batch_id, row)).row == row
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count(messages.c.row.distinct()))).scalar_one() == ROWS
