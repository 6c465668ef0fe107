"""What commands that look into the ledger share: opening it, and how its nouns look as JSON."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from postern.model import Campaign, Upload
from postern.settings import StoreSettings
from postern.sms.simulation import is_simulated
from postern.times import iso

if TYPE_CHECKING:
    from storage.database import Database
    from storage.engine import Jobs
    from storage.ledger.batches import Batch
    from storage.ledger.enrolments import EnrolledKey
    from storage.ledger.messages import Attempt, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """An open ledger."""

    settings: StoreSettings
    database: "Database"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that times are shown in."""
        return self.settings.timezone


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """Open the ledger that the settings name; make it where there is none yet."""
    from storage.database import Database
    from storage.migrate import ensure_migrated

    settings = StoreSettings.load()
    database = Database(settings.database)
    try:
        ensure_migrated(database)
        yield Ledger(settings=settings, database=database)
    finally:
        database.dispose()


@contextmanager
def open_jobs(ledger: Ledger) -> Iterator["Jobs"]:
    """Where the ledger's jobs are left. Takes a while to load, so only commands that leave any open it."""
    from storage.engine import Jobs

    jobs = Jobs(ledger.settings.database)
    try:
        yield jobs
    finally:
        jobs.close()


def actor() -> str:
    """Who runs this command, for the audit trail."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def campaign_json(campaign: Campaign, zone: ZoneInfo) -> dict[str, Any]:
    """A campaign in the API's words."""
    return {
        "id": campaign.id,
        "name": campaign.name,
        "agency": campaign.agency,
        "channel": campaign.channel.value,
        "rate": campaign.rate,
        "parameters": list(campaign.parameters),
        "templates": {language.value: body for language, body in campaign.templates.items()},
        "createdAt": iso(campaign.created_at, zone),
        "pausedAt": iso(campaign.paused_at, zone),
    }


def key_json(key: "EnrolledKey", zone: ZoneInfo) -> dict[str, Any]:
    """An enrolled key in the API's words."""
    return {
        "id": key.id,
        "campaignId": key.campaign_id,
        "enrolmentId": key.enrolment_id,
        "email": key.email,
        "sources": list(key.sources),
        "type": key.type,
        "bits": key.bits,
        "fingerprint": key.fingerprint,
        "comment": key.comment,
        "status": key.status.value,
        "createdAt": iso(key.created_at, zone),
        "expiresAt": iso(key.expires_at, zone),
        "endedAt": iso(key.ended_at, zone),
        "lastUsedAt": iso(key.last_used_at, zone),
    }


def upload_json(upload: Upload, zone: ZoneInfo, *, simulated: bool) -> dict[str, Any]:
    """An upload in the API's words; `simulated`: the simulator took messages of it."""
    return {
        "id": upload.id,
        "campaignId": upload.campaign_id,
        "fileName": upload.file_name,
        "size": upload.size,
        "sha256": upload.sha256,
        "status": upload.status.value,
        "totalRows": upload.total_rows,
        "numRows": upload.num_rows,
        "numErrors": upload.num_errors,
        "fileHasAvoidableExpensiveCharacter": upload.has_avoidable_character,
        "fileHasUnicode": upload.has_unicode,
        "batchId": upload.batch_id,
        "reportURL": upload.report_url,
        "supportId": upload.support_id,
        "reason": upload.reason,
        "repeatOf": upload.repeat_of,
        "isCutOff": upload.is_cut_off,
        "heldAt": iso(upload.held_at, zone),
        "decidedAt": iso(upload.decided_at, zone),
        "decidedBy": upload.decided_by,
        "numRetries": upload.num_retries,
        "simulated": simulated,
        "peer": upload.peer,
        "keyFingerprint": upload.key_fingerprint,
        "receivedAt": iso(upload.received_at, zone),
        "finishedAt": iso(upload.finished_at, zone),
    }


def batch_json(batch: "Batch", counts: dict[str, int] | None, zone: ZoneInfo, *, simulated: bool) -> dict[str, Any]:
    """A batch in the API's words; `simulated`: the simulator took messages of it."""
    document: dict[str, Any] = {
        "id": batch.id,
        "campaignId": batch.campaign_id,
        "uploadId": batch.upload_id,
        "status": batch.status.value,
        "total": batch.total,
        "numRetries": batch.num_retries,
        "simulated": simulated,
        "enqueuedAt": iso(batch.enqueued_at, zone),
        "createdAt": iso(batch.created_at, zone),
        "updatedAt": iso(batch.updated_at, zone),
    }
    return document if counts is None else {**document, "messages": counts}


def message_json(message: "Message", zone: ZoneInfo) -> dict[str, Any]:
    """A message in the API's words."""
    return {
        "id": message.id,
        "batchId": message.batch_id,
        "campaignId": message.campaign_id,
        "row": message.row,
        "recipient": message.recipient,
        "language": message.language,
        "values": dict(message.values),
        "latestStatus": message.latest_status.value,
        "numAttempts": message.num_attempts,
        "segments": message.segments,
        "simulated": bool(message.attempts) and is_simulated(message.attempts[-1].provider),
        "createdAt": iso(message.created_at, zone),
        "updatedAt": iso(message.updated_at, zone),
        "messageAttempts": [_attempt_json(attempt, message.id, zone) for attempt in message.attempts],
    }


def _attempt_json(attempt: "Attempt", message_id: str, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "messageId": message_id,
        "provider": attempt.provider or None,
        "simulated": is_simulated(attempt.provider),
        "externalAttemptId": attempt.external_id,
        "status": attempt.status.value,
        "errorType": attempt.error_code.type.value if attempt.error_code else None,
        "errorCode": attempt.error_code.value if attempt.error_code else None,
        "errorNote": attempt.error_note,
        "isInferred": attempt.inferred,
        "createdAt": iso(attempt.created_at, zone),
        "updatedAt": iso(attempt.updated_at, zone),
        "sentAt": iso(attempt.sent_at, zone),
        "deliveredAt": iso(attempt.delivered_at, zone),
    }
