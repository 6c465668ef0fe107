"""Retention: reports, uploaded files and the engine's finished jobs go when they have been kept as long as was set.

In slices of a bounded size, by one worker at a time. A blob goes first, then the ledger's word that it is kept, so
that a crash in between only does it again. A file that may still be tried again goes under its row's lock. What the
ledger says of uploads, batches and messages stays for good.
"""

import asyncio
from datetime import timedelta
from functools import partial

from pipeline.workflow import Pipeline
from postern.errors import TransientError
from postern.logs import get_logger
from storage.job_records import JobRecords
from storage.ledger import expiry
from storage.takeover import alone

_SLICE = 500
_PAUSE = 0.1  # seconds between two slices, for whoever else wants the database
INTERVAL = 3600.0  # seconds

log = get_logger(__name__)


async def keep_clearing(pipeline: Pipeline, records: JobRecords, seconds: float, stop: asyncio.Event) -> None:
    """Clear away every so many seconds, until told to stop."""
    pause = seconds
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            is_all = await asyncio.to_thread(_clear_in_peace, pipeline, records)
            pause = seconds if is_all else _PAUSE


def clear(pipeline: Pipeline, records: JobRecords) -> bool:
    """Clear away one slice of each kind, unless another worker is just at it.

    Returns:
        whether nothing is left to be cleared away now.

    Raises:
        TransientError: the database or the blob store is away.
    """
    settings, now = pipeline.settings, pipeline.now()
    with alone(pipeline.database, "retention") as is_ours:
        if not is_ours:
            return True
        reports = expiry.old_reports(pipeline.database, before=now - timedelta(days=settings.report_days), most=_SLICE)
        keys = [form for _id, key in reports for form in (key, f"{key.removesuffix('.csv')}.xlsx")]
        _delete(pipeline, *keys)
        expiry.forget_reports(pipeline.database, [upload_id for upload_id, _key in reports])
        before = now - timedelta(days=settings.upload_days)
        files = expiry.old_files(pipeline.database, before=before, most=_SLICE)
        for upload_id, key in files:
            expiry.clear_file(pipeline.database, upload_id, before=before, delete=partial(_delete, pipeline, key))
        jobs = records.forget_over(now - timedelta(days=settings.job_days), most=_SLICE)
    if reports or files or jobs:
        log.info("retention.cleared", reports=len(reports), uploads=len(files), jobs=jobs)
    return max(len(reports), len(files), jobs) < _SLICE


def _delete(pipeline: Pipeline, *keys: str) -> None:
    try:
        for key in keys:
            pipeline.blobs.delete(key)
    except OSError as error:
        raise TransientError(f"The blob store refused to delete: {error.strerror}.") from error


def _clear_in_peace(pipeline: Pipeline, records: JobRecords) -> bool:
    try:
        return clear(pipeline, records)
    except TransientError as error:
        log.warning("retention.waits", error=str(error))
    except Exception as error:  # a bug here must not take a working worker along
        log.critical("retention.failed", exc_info=error)
    return True
