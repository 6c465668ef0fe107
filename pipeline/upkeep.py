"""What a worker does besides its jobs: it sees that nothing stands still, and clears away what was kept long enough."""

import asyncio
from datetime import timedelta

from pipeline.reconciler import Reconciler
from pipeline.retention import INTERVAL, keep_clearing
from pipeline.workflow import Pipeline
from storage.job_records import JobRecords


async def keep_up(pipeline: Pipeline, stop: asyncio.Event) -> None:
    """Reconcile and clear away, until told to stop."""
    records = JobRecords(pipeline.settings.database)
    seconds = pipeline.settings.reconcile_interval
    reconciler = Reconciler(pipeline, records, grace=timedelta(seconds=2 * seconds))
    try:
        await asyncio.gather(reconciler.keep_on(seconds, stop), keep_clearing(pipeline, records, INTERVAL, stop))
    finally:
        records.close()
