"""Intake: from the spool to the ledger, and from the ledger to the gate's keyring.

The spool is treated as hostile: ids by pattern, no links, size and SHA-256 computed again over the very bytes that
are stored, campaign and key checked again. Every step can be done twice: the blob is replaced as long as no row names
it and never after, the row is there already, the folder is removed last. A crash anywhere leaves the upload in the
spool, where the next look finds it. While the database or the blob store is away, uploads wait there.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from time import monotonic

import watchfiles

from keys.enrolment import keyring_of
from keys.keyring import CHECKED, write_keyring
from pipeline.context import notice_context
from pipeline.holding import count_lines, holding_of
from pipeline.look import Look
from postern.errors import NotFoundError, TransientError
from postern.logs import get_logger
from postern.model import Upload, UploadStatus
from postern.settings import IntakeSettings
from postern.times import from_iso
from storage.blobs import BlobMismatchError, BlobMissingError, Blobs, Content
from storage.database import Database
from storage.jobs import JobBoard
from storage.ledger import audit, enrolments
from storage.ledger.campaigns import get_campaign
from storage.ledger.receiving import Holding, receive_upload, refuse_upload
from storage.ledger.uploads import get_upload, is_recorded
from storage.spool import Spool
from storage.spool_records import Event, EventKind, RecentUpload, Sidecar, SpoolError

_LARGEST = 1_000_000_000  # bytes; more is not even read
_RESCAN = 2_000  # ms; certainty, should a notification be missed
_KEYRING_INTERVAL = 0.5  # seconds
_SAY_CHECKED = 10.0  # seconds between two times that a gate's host is told that its keyring is true
_EVENTS_FIRST = 200  # that are taken in before uploads; the others come after
_LAST_LOOK = 10.0  # seconds; what is left waits for the next start

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What intake needs."""

    settings: IntakeSettings
    database: Database
    blobs: Blobs
    jobs: JobBoard
    spool: Spool
    now: Callable[[], datetime]


async def watch_spool(intake: Intake, stop: asyncio.Event) -> None:
    """Take in whatever is accepted, until told to stop; by notification, and by a look every few seconds."""
    look = Look(stop.is_set)
    await asyncio.to_thread(take_in, intake, look)
    async for _ in watchfiles.awatch(
        intake.spool.accepted,
        intake.spool.events,
        stop_event=stop,
        recursive=False,
        debounce=50,
        step=10,
        rust_timeout=_RESCAN,
        yield_on_timeout=True,
    ):
        await asyncio.to_thread(take_in, intake, look)
    end = monotonic() + _LAST_LOOK
    last = Look(lambda: monotonic() > end, patience=1)
    await asyncio.to_thread(take_in, intake, last)  # what the gate, which stops first, accepted last


async def keep_keyring(intake: Intake, stop: asyncio.Event) -> None:
    """Keep the gate's keyring true to the ledger, until told to stop."""
    known: int | None = None
    said = -_SAY_CHECKED
    while not stop.is_set():
        try:
            known = await asyncio.to_thread(_refresh_keyring, intake, known)
            if monotonic() - said >= _SAY_CHECKED:
                (intake.settings.gate_folder / CHECKED).touch(mode=0o640)
                said = monotonic()
        except (TransientError, OSError) as error:
            log.warning("keyring.not_refreshed", error=str(error))
        try:
            await asyncio.wait_for(stop.wait(), _KEYRING_INTERVAL)
        except TimeoutError:
            continue


async def leave_soon(intake: Intake, stop: asyncio.Event) -> None:
    """Once told to stop, wait for a blob store that does not answer no longer than one answer may take."""
    await stop.wait()
    await asyncio.to_thread(intake.blobs.hurry)


def take_in(intake: Intake, look: Look | None = None) -> None:
    """Take in all that waits now, or until the look is over. One upload's trouble does not hold up the next.

    Some events come first: while the blob store is away, refusals are still mailed.
    """
    look = look or Look()
    look.begin()
    for path in intake.spool.strange():
        _set_aside(intake, path, SpoolError("The gate writes nothing of that name."))
    _take_in_events(intake, look, most=_EVENTS_FIRST)
    look.begin()  # no event keeps uploads waiting
    _take_in_uploads(intake, look)
    _take_in_events(intake, look)
    intake.spool.forget_old(intake.now())


def _take_in_uploads(intake: Intake, look: Look) -> None:
    for upload_id in look.in_turn(intake.spool.waiting()):
        try:
            _take_in_or_set_aside(intake, upload_id)
            look.went_well()
        except TransientError as error:
            look.has_to_wait()
            log.warning("intake.upload_waits", upload_id=upload_id, error=str(error))
        except OSError as error:  # of its folder, which says nothing of the others'
            log.warning("intake.upload_waits", upload_id=upload_id, error=str(error))
        except Exception as error:  # what cannot be stored, say, must not hold up the next; it stays
            log.critical("intake.upload_stuck", upload_id=upload_id, exc_info=error)


def _take_in_events(intake: Intake, look: Look, *, most: int | None = None) -> None:
    for path, event in islice(look.through(intake.spool.pending_events()), most):
        try:
            _take_in_event(intake, event)
            look.went_well()
        except (TransientError, OSError) as error:
            look.has_to_wait()
            log.warning("intake.event_waits", path=path.name, error=str(error))
            continue
        except Exception as error:
            log.critical("intake.event_stuck", path=path.name, exc_info=error)
            continue
        path.unlink(missing_ok=True)


def _take_in_or_set_aside(intake: Intake, upload_id: str) -> None:
    try:
        _take_in_upload(intake, upload_id)
    except SpoolError as error:
        _refuse_to_take(intake, upload_id, error)


def _take_in_upload(intake: Intake, upload_id: str) -> None:
    try:
        with intake.spool.opened(upload_id) as (sidecar, data):
            _check(intake, sidecar)
            key = f"uploads/{sidecar.campaign_id}/{sidecar.upload_id}.csv"
            recorded = _recorded(intake, sidecar)
            if recorded is None or _is_lost(intake, recorded):
                intake.blobs.put(key, data, Content(sidecar.size, sidecar.sha256))
    except FileNotFoundError:
        if intake.spool.is_waiting(upload_id):
            raise
        return  # another look finished it, or the gate took it back
    except BlobMismatchError:
        raise SpoolError(f"{upload_id}: the bytes are not those of its record") from None
    if not intake.spool.is_waiting(upload_id):
        return  # the gate took it back
    status = None
    if recorded is None:
        status = receive_upload(intake.database, intake.jobs, _upload(sidecar, key), _holding(intake, sidecar, key))
    intake.spool.remember(
        sidecar.campaign_id,
        upload_id,
        RecentUpload(file_name=sidecar.file_name, size=sidecar.size, received_at=sidecar.received_at),
    )
    intake.spool.finish(upload_id)
    about = {"upload_id": upload_id, "campaign_id": sidecar.campaign_id, "size": sidecar.size}
    log.info("upload.held" if status is UploadStatus.HELD else "upload.received", new=status is not None, **about)


def _recorded(intake: Intake, sidecar: Sidecar) -> Upload | None:
    """The upload as an earlier look recorded it, before a crash.

    Raises:
        SpoolError: that was another one. Its bytes, which may have been judged or released, stay what they were.
    """
    if not is_recorded(intake.database, sidecar.upload_id):
        return None
    recorded = get_upload(intake.database, sidecar.upload_id)
    found = (sidecar.campaign_id, sidecar.enrolment_id, sidecar.size, sidecar.sha256)
    if found != (recorded.campaign_id, recorded.enrolment_id, recorded.size, recorded.sha256):
        raise SpoolError(f"{sidecar.upload_id}: an upload of that id is recorded, and it is another one")
    return recorded


def _is_lost(intake: Intake, recorded: Upload) -> bool:
    """Whether the ledger says that an upload's bytes are kept, and they are not."""
    if recorded.blob_key is None:  # retention removed them
        return False
    try:
        intake.blobs.size(recorded.blob_key)
    except BlobMissingError:
        return True
    return False


def _holding(intake: Intake, sidecar: Sidecar, key: str) -> Holding | None:
    try:
        campaign = get_campaign(intake.database, sidecar.campaign_id)
    except NotFoundError:  # deleted since; then the upload is dropped on its way
        return None
    lines = count_lines(intake.blobs, key) if sidecar.is_cut_off else None
    return holding_of(intake.settings, campaign, write_block=sidecar.write_block, lines=lines, now=intake.now())


def _refuse_to_take(intake: Intake, upload_id: str, error: SpoolError) -> None:
    """Set aside what the gate did not write, and remove what is left of an upload that is in the ledger."""
    if intake.spool.is_leftover(upload_id) and is_recorded(intake.database, upload_id):
        intake.spool.finish(upload_id)
        return
    _set_aside(intake, intake.spool.accepted / upload_id, error)


def _set_aside(intake: Intake, path: Path, error: SpoolError) -> None:
    try:
        intake.spool.set_aside(path, error)
    except OSError as trouble:
        log.critical("intake.not_quarantined", name=ascii(path.name), error=str(trouble))


def _check(intake: Intake, sidecar: Sidecar) -> None:
    if sidecar.size > max(_LARGEST, intake.settings.max_file_size):  # which may be less than when it was accepted
        raise SpoolError(f"{sidecar.upload_id}: {sidecar.size} bytes are more than the gate takes")
    if not enrolments.is_enrolled(
        intake.database,
        campaign_id=sidecar.campaign_id,
        enrolment_id=sidecar.enrolment_id,
        fingerprint=sidecar.key_fingerprint,
    ):
        raise SpoolError(f"{sidecar.upload_id}: no such enrolment of {sidecar.campaign_id}")


def _upload(sidecar: Sidecar, blob_key: str) -> Upload:
    return Upload(
        id=sidecar.upload_id,
        campaign_id=sidecar.campaign_id,
        enrolment_id=sidecar.enrolment_id,
        file_name=sidecar.file_name,
        size=sidecar.size,
        sha256=sidecar.sha256,
        status=UploadStatus.RECEIVED,
        received_at=from_iso(sidecar.received_at),
        blob_key=blob_key,
        peer=sidecar.peer,
        key_fingerprint=sidecar.key_fingerprint,
        is_cut_off=sidecar.is_cut_off,
    )


def _take_in_event(intake: Intake, event: Event) -> None:
    at = from_iso(event.at)
    enrolled = enrolments.list_keys(
        intake.database,
        campaign_id=event.campaign_id,
        enrolment_id=event.enrolment_id,
        fingerprint=event.key_fingerprint,
    )
    if not enrolled:
        log.critical("intake.event_of_nobody", campaign_id=event.campaign_id, kind=event.kind)
        return
    if event.kind is EventKind.LOGIN:
        enrolments.touch_key(intake.database, campaign_id=event.campaign_id, fingerprint=event.key_fingerprint, at=at)
        return
    _refuse(intake, event, at, enrolled[0].email)


def _refuse(intake: Intake, event: Event, at: datetime, email: str) -> None:
    upload = Upload(
        id=event.event_id,
        campaign_id=event.campaign_id,
        enrolment_id=event.enrolment_id,
        file_name=event.file_name,
        size=event.size,
        sha256=None,
        status=UploadStatus.REFUSED,
        received_at=at,
        finished_at=at,
        reason=event.reason,
        peer=event.peer,
        key_fingerprint=event.key_fingerprint,
    )
    try:
        campaign = get_campaign(intake.database, event.campaign_id)
    except NotFoundError:
        return
    context = notice_context(upload, campaign, intake.settings, reason=event.reason)
    refuse_upload(intake.database, intake.jobs, upload, recipient=email, context=context)
    log.info("upload.refused", upload_id=upload.id, campaign_id=event.campaign_id, reason=event.reason)


def _refresh_keyring(intake: Intake, known: int | None) -> int:
    enrolments.expire_keys(intake.database, now=intake.now())
    newest = audit.revision(intake.database)
    if newest != known and write_keyring(intake.settings.gate_folder / "keyring.json", keyring_of(intake.database)):
        log.info("keyring.written")
    return newest
