"""The nouns of Postern: ids, states and frozen values. No I/O, no clock, no randomness but `new_id` and `new_ids`."""

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

UUID_PATTERN = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_COUNTER_BITS = 12
_VARIANTS = "89ab"  # the two highest bits are 10


class IdKind(StrEnum):
    """The word before the underscore of an identifier."""

    CAMPAIGN = "campaign"
    TEMPLATE = "template"
    TEMPLATE_BODY = "template-body"
    ENROLMENT = "enrolment"
    KEY = "key"
    UPLOAD = "upload"
    BATCH = "batch"
    MESSAGE = "message"
    ATTEMPT = "attempt"
    NOTICE = "notice"
    SUPPORT = "support"
    USER = "user"


def new_id(kind: IdKind) -> str:
    """A fresh identifier, `<kind>_<uuid4>`."""
    return f"{kind}_{uuid.uuid4()}"


def new_ids(kind: IdKind, count: int, now: datetime) -> list[str]:
    """As many fresh identifiers, in their order, and after most that were made before: `<kind>_<uuid7>`.

    So those of rows that are written together stand together in an index, however large it is (RFC 9562, 5.7 and 6.2,
    method 1: a counter follows the milliseconds). The random bytes are asked for once: each time lets go of the
    interpreter.
    """
    first = int(now.timestamp() * 1000) << _COUNTER_BITS
    random = os.urandom(8 * count).hex()
    made = []
    for number in range(count):
        time = f"{first + number:015x}"  # 48 bits of milliseconds, 12 of the counter
        tail = random[16 * number : 16 * number + 16]
        variant = _VARIANTS[int(tail[0], 16) & 3]
        made.append(f"{kind}_{time[:8]}-{time[8:12]}-7{time[12:]}-{variant}{tail[1:4]}-{tail[4:]}")
    return made


def derived_id(kind: IdKind, parent: str, name: str) -> str:
    """The identifier of `name` under `parent`: UUIDv5, so making it twice makes it the same (RFC 9562, 5.5)."""
    return f"{kind}_{uuid.uuid5(uuid_of(parent), name)}"


def uuid_of(identifier: str) -> uuid.UUID:
    """The UUID in an identifier of ours."""
    return uuid.UUID(identifier.rpartition("_")[2])


def is_id(kind: IdKind, text: str) -> bool:
    """Whether `text` is a well-formed identifier of that kind; safe to use as a file name then."""
    return re.fullmatch(f"{kind}_{UUID_PATTERN}", text) is not None


class Language(StrEnum):
    """The languages that a campaign may offer."""

    ENGLISH = "english"
    CHINESE = "chinese"
    MALAY = "malay"
    TAMIL = "tamil"


class Channel(StrEnum):
    """Who receives a campaign: members of the public, or the agency's own staff."""

    PUBLIC = "public"
    INTERNAL = "internal"


class Environment(StrEnum):
    """What kind of installation this is."""

    PRODUCTION = "production"
    TEST = "test"
    LOADTEST = "loadtest"


class KeyStatus(StrEnum):
    """The life cycle of an enrolled public key."""

    REQUESTED = "requested"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class UploadStatus(StrEnum):
    """Where an upload is on its way."""

    RECEIVED = "received"  # in the ledger with its job; the bytes are in the blob store
    VALIDATING = "validating"
    ACCEPTED = "accepted"  # its batch is enqueued
    REJECTED = "rejected"  # the file has errors; a report says which
    HELD = "held"  # a probable repeat, or it looks cut off; a person decides
    DROPPED = "dropped"  # final; nothing is sent of it
    FAILED = "failed"  # our fault; there is a support id
    REFUSED = "refused"  # never accepted by the gate


class BatchStatus(StrEnum):
    """Where a batch is on its way."""

    CREATED = "created"
    MESSAGES_ENQUEUING = "messages_enqueuing"  # rows are being written; nothing is sent yet
    MESSAGES_ENQUEUED = "messages_enqueued"
    MESSAGES_ENQUEUING_FAILED = "messages_enqueuing_failed"
    CANCELLED = "cancelled"


class MessageStatus(StrEnum):
    """Where a message is on its way; the order of the members is the order of the way."""

    CREATED = "created"
    ENQUEUED = "enqueued"
    SENDING = "sending"
    SENT = "sent"
    SENT_TO_TELCO = "sent_to_telco"
    SUCCESS = "success"
    FAILURE = "failure"


class ErrorType(StrEnum):
    """Whose fault a failed attempt is."""

    DELIVERY_ERROR = "delivery_error"
    SERVER_ERROR = "server_error"


class ErrorCode(StrEnum):
    """Why an attempt failed."""

    RECIPIENT_INVALID = "recipient_invalid"
    RECIPIENT_UNAVAILABLE = "recipient_unavailable"
    CONTENT_INVALID = "content_invalid"
    ROUTING_ERROR = "routing_error"
    MESSAGE_EXPIRED = "message_expired"
    DELIVERY_UNKNOWN_ERROR = "delivery_unknown_error"
    SERVER_UNKNOWN_ERROR = "server_unknown_error"

    @property
    def type(self) -> ErrorType:
        """The error type that the code belongs to."""
        return ErrorType.SERVER_ERROR if self is ErrorCode.SERVER_UNKNOWN_ERROR else ErrorType.DELIVERY_ERROR


class NoticeKind(StrEnum):
    """The mails about an upload: one outcome, and before it a hold notice where the upload was held."""

    HELD = "held"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REFUSED = "refused"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One message template in one to four languages, with its settings. Its content never changes."""

    id: str
    name: str
    agency: str
    channel: Channel
    templates: Mapping[Language, str]  # body by language
    parameters: Sequence[str]  # in the order in which the first language names them
    rate: float  # messages a second
    created_at: datetime
    template_id: str
    template_body_ids: Mapping[Language, str]
    paused_at: datetime | None = None  # its messages wait since
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One error or warning about an uploaded file.

    `row` is the row that a spreadsheet shows (the header is 1), None for the file as a whole.
    """

    code: str
    sentence: str
    row: int | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What validation found out about a file; plain data, so that it can be stored and mailed."""

    is_valid: bool
    total_rows: int
    num_rows: int  # rows with errors
    num_errors: int
    has_avoidable_character: bool
    has_unicode: bool
    by_code: Mapping[str, int]  # how often each error code occurs
    first_errors: Sequence[Finding]
    warnings: Mapping[str, int]  # how often each warning occurs
    first_warnings: Sequence[Finding]
    rows_by_language: Mapping[str, int]
    segments: int = 0
    local_segments: int = 0
    foreign_segments: int = 0

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values, for the ledger."""
        return {
            "isValid": self.is_valid,
            "totalRows": self.total_rows,
            "numRows": self.num_rows,
            "numErrors": self.num_errors,
            "fileHasAvoidableExpensiveCharacter": self.has_avoidable_character,
            "fileHasUnicode": self.has_unicode,
            "byCode": dict(self.by_code),
            "firstErrors": [finding_json(finding) for finding in self.first_errors],
            "warnings": dict(self.warnings),
            "firstWarnings": [finding_json(finding) for finding in self.first_warnings],
            "rowsByLanguage": dict(self.rows_by_language),
            "segments": self.segments,
            "localSegments": self.local_segments,
            "foreignSegments": self.foreign_segments,
        }


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding as plain JSON values."""
    return {
        "row": finding.row,
        "column": finding.column,
        "code": finding.code,
        "sentence": finding.sentence,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file received over SFTP, or refused there."""

    id: str
    campaign_id: str
    enrolment_id: str | None
    file_name: str
    size: int
    sha256: str | None
    status: UploadStatus
    received_at: datetime
    finished_at: datetime | None = None
    blob_key: str | None = None
    report_key: str | None = None
    report_url: str | None = None
    batch_id: str | None = None
    support_id: str | None = None
    reason: str | None = None  # why it was refused, held or dropped, or failed
    peer: str | None = None
    key_fingerprint: str | None = None
    total_rows: int | None = None
    num_rows: int | None = None
    num_errors: int | None = None
    has_avoidable_character: bool | None = None
    has_unicode: bool | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)
    is_cut_off: bool = False  # its end looks as if the client had been interrupted
    repeat_of: str | None = None  # the upload of the same bytes that it was held for
    held_at: datetime | None = None
    decided_at: datetime | None = None  # released, or dropped
    decided_by: str | None = None
    num_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One mail of the outbox: what happened, to whom it goes, and all that the templates need."""

    id: str
    upload_id: str
    kind: NoticeKind
    recipient: str
    context: Mapping[str, Any]
    created_at: datetime
    sent_at: datetime | None = None
    is_settled: bool = False  # sent, or refused for good
