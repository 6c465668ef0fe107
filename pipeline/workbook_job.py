"""The job that makes the workbook of a rejected upload, when the outcome mail is long on its way.

It judges the bytes once more, in a process of its own that gives way to validation: the verdict is a function of the
bytes. It can be done twice, and then makes the same workbook; so a worker that is told to stop does not wait for it.
A workbook that cannot be made is an empty blob, by which `web` knows to say so; the report as CSV is there anyway.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ruleset import ruleset_for, to_json
from pipeline.scratch import copy_blob, scratch
from pipeline.watched import WatchedProcess
from postern.errors import TransientError
from postern.logs import get_logger
from postern.model import Upload
from postern.settings import WorkerSettings
from storage.blobs import BlobMissingError, Blobs
from storage.database import Database
from storage.engine import PATIENCE, Engine, patiently, pause
from storage.jobs import MAKE_WORKBOOK
from storage.ledger.campaigns import get_campaign
from storage.ledger.uploads import get_upload

_TIMEOUT = 900.0  # seconds; a full upload takes about five, the worst file some twenty, where nothing goes before it
_MEMORY = 1024  # MiB; a full upload takes about 250, the worst file twice that
_LONG = 86_400.0  # seconds

log = get_logger(__name__)


def _process() -> WatchedProcess:
    return WatchedProcess("pipeline.workbook", name="workbook", timeout=_TIMEOUT, memory=_MEMORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookbinder:
    """What making workbooks needs."""

    settings: WorkerSettings
    database: Database
    blobs: Blobs
    start: Callable[[], WatchedProcess] = field(default=_process)
    patience: float = PATIENCE


def register(engine: Engine, binder: Bookbinder) -> None:
    """Let this worker make workbooks."""

    async def make_workbook(upload_id: str) -> bool:
        return await bind(binder, upload_id)

    engine.register(MAKE_WORKBOOK, make_workbook)


async def bind(binder: Bookbinder, upload_id: str) -> bool:
    """Make a workbook, unless it is there.

    Returns:
        whether that is done; not where the trouble lasts too long. The ledger does not tell, so the job's record does.

    Raises:
        asyncio.CancelledError: the worker was told to stop. The job stays pending, and the next worker runs it.
    """
    process = binder.start()
    making = asyncio.create_task(patiently(make, binder, process, upload_id, patience=binder.patience))
    told = asyncio.create_task(pause(_LONG))  # ends early where the worker is told to stop
    try:
        await asyncio.wait({making, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        process.stop()  # whatever waits for it now is told to come again
    return await making


def make(binder: Bookbinder, process: WatchedProcess, upload_id: str) -> None:
    """Judge the bytes of a rejected upload again and store the workbook.

    Raises:
        TransientError: something is away, or the worker stops; to be tried again.
    """
    upload = get_upload(binder.database, upload_id)
    if _is_there(binder.blobs, workbook_key(upload)):
        return
    try:
        _make(binder, process, upload)
    except TransientError:
        raise
    except Exception:  # whatever it was, nobody must wait for what never comes
        log.exception("workbook.failed", upload_id=upload.id)
        _say_there_is_none(binder, upload)
    else:
        log.info("workbook.made", upload_id=upload.id)
    finally:
        process.close()


def give_up(binder: Bookbinder, upload_id: str) -> None:
    """Say that there is no workbook, where its job took its worker along again and again."""
    upload = get_upload(binder.database, upload_id)
    if not _is_there(binder.blobs, workbook_key(upload)):
        _say_there_is_none(binder, upload)


def _say_there_is_none(binder: Bookbinder, upload: Upload) -> None:
    with tempfile.NamedTemporaryFile() as empty:
        binder.blobs.put(workbook_key(upload), Path(empty.name))


def workbook_key(upload: Upload) -> str:
    """Where the workbook of an upload is kept."""
    return f"validation-reports/{upload.campaign_id}/{upload.id}.xlsx"


def _make(binder: Bookbinder, process: WatchedProcess, upload: Upload) -> None:
    assert upload.blob_key is not None
    rules = ruleset_for(get_campaign(binder.database, upload.campaign_id), binder.settings)
    with scratch(binder.settings) as folder:
        data, workbook = folder / "data.csv", folder / "workbook.xlsx"
        copy_blob(binder.blobs, upload.blob_key, data)
        process.ask({"data": str(data), "workbook": str(workbook), "rules": to_json(rules)})
        binder.blobs.put(workbook_key(upload), workbook)


def _is_there(blobs: Blobs, key: str) -> bool:
    try:
        blobs.size(key)
    except BlobMissingError:
        return False
    return True
