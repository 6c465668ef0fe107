"""Campaigns, uploads and batches for tests, put into the ledger the way the programs do it."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postern.model import (
    Campaign,
    Channel,
    Finding,
    IdKind,
    Language,
    NoticeKind,
    Upload,
    UploadStatus,
    Verdict,
    derived_id,
    new_id,
)
from storage.database import Database
from storage.jobs import JobBoard
from storage.ledger.accounts import SendingAccount
from storage.ledger.batches import enqueue_batch, start_batch
from storage.ledger.campaigns import create_campaign
from storage.ledger.enrolments import EnrolledKey, NewKey, create_enrolment
from storage.ledger.new_messages import NewMessages, write_messages
from storage.ledger.receiving import Holding, receive_upload
from storage.ledger.results import Result, write_results
from storage.ledger.uploads import get_upload, start_validation
from storage.tables import attempts, batches, messages, notices

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
OWNER = "owner@agency.example"
RECIPIENT = "6591234567"
SIMULATOR = SendingAccount(id="simulator", provider="simulator")
CONTENT = b"recipient,language,name\n6591234567,english,Emily\n"


class SimulatedClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def new_campaign(*, rate: float = 20.0, name: str = "Passports") -> Campaign:
    """A campaign that is in no ledger yet."""
    return Campaign(
        id=new_id(IdKind.CAMPAIGN),
        name=name,
        agency="Immigration",
        channel=Channel.PUBLIC,
        templates={Language.ENGLISH: "Dear {{name}}", Language.CHINESE: "{{name}} 您好"},
        parameters=("name",),
        rate=rate,
        created_at=NOW,
        template_id=new_id(IdKind.TEMPLATE),
        template_body_ids={
            Language.ENGLISH: new_id(IdKind.TEMPLATE_BODY),
            Language.CHINESE: new_id(IdKind.TEMPLATE_BODY),
        },
    )


def add_campaign(database: Database, *, rate: float = 20.0, name: str = "Passports") -> Campaign:
    """A campaign in the ledger."""
    campaign = new_campaign(rate=rate, name=name)
    create_campaign(database, campaign, actor="operator")
    return campaign


def new_key(mark: str = "") -> NewKey:
    """A public key of its own; no client could log in with it."""
    digest = hashlib.sha256(f"{mark}{new_id(IdKind.KEY)}".encode()).hexdigest()
    return NewKey(
        type="ssh-ed25519",
        bits=256,
        public_key=f"ssh-ed25519 {digest}",
        comment="",
        fingerprint=f"SHA256:{digest[:43]}",
    )


def enrol(database: Database, campaign: Campaign, *, email: str = OWNER, **options: Any) -> EnrolledKey:
    """An enrolment with one key."""
    settings: dict[str, Any] = {
        "sources": (),
        "new_keys": [new_key()],
        "expires_at": None,
        "shared": False,
        "actor": "operator",
        "now": NOW,
    }
    (key,) = create_enrolment(database, campaign_id=campaign.id, email=email, **{**settings, **options})
    return key


def new_upload(key: EnrolledKey, *, file_name: str = "people.csv", **changes: Any) -> Upload:
    """An upload that intake would record, or a refused one."""
    upload_id = new_id(IdKind.UPLOAD)
    fields: dict[str, Any] = {
        "id": upload_id,
        "campaign_id": key.campaign_id,
        "enrolment_id": key.enrolment_id,
        "file_name": file_name,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "status": UploadStatus.RECEIVED,
        "received_at": NOW,
        "blob_key": f"uploads/{key.campaign_id}/{upload_id}.csv",
        "peer": "192.0.2.1",
        "key_fingerprint": key.fingerprint,
    }
    return Upload(**{**fields, **changes})


def new_refusal(key: EnrolledKey, *, at: datetime = NOW, file_name: str = "people.txt") -> Upload:
    """What the gate refused."""
    return new_upload(
        key,
        file_name=file_name,
        status=UploadStatus.REFUSED,
        received_at=at,
        finished_at=at,
        sha256=None,
        blob_key=None,
        reason="The name does not end in .csv.",
    )


def verdict(*, is_valid: bool = True, rows: int = 1) -> Verdict:
    """A verdict on a file of so many rows, all good or all bad."""
    errors = () if is_valid else (Finding(code="recipient_missing", sentence="No recipient.", row=2),)
    return Verdict(
        is_valid=is_valid,
        total_rows=rows,
        num_rows=0 if is_valid else rows,
        num_errors=0 if is_valid else rows,
        has_avoidable_character=False,
        has_unicode=False,
        by_code={} if is_valid else {"recipient_missing": rows},
        first_errors=errors,
        warnings={},
        first_warnings=(),
        rows_by_language={"english": rows},
        segments=rows,
        local_segments=rows,
    )


def validating_upload(database: Database, jobs: JobBoard, campaign: Campaign) -> Upload:
    """An upload whose validation has started."""
    upload = new_upload(enrol(database, campaign))
    receive_upload(database, jobs, upload)
    started = start_validation(database, upload.id)
    assert started is not None
    return started


def holding(now: datetime = NOW, *, window: timedelta = DAY) -> Holding:
    """What is held back, with a notice that has no more in it than it needs."""
    return Holding(window=window, context=_hold_context, now=now)


def _hold_context(upload: Upload, earlier: Upload | None) -> dict[str, Any]:
    about = {"environment": "production", "provider": "simulator"}
    return about | {"fileName": upload.file_name, "hold": {"repeatOf": earlier and earlier.id}}


def held_upload(
    database: Database, jobs: JobBoard, key: EnrolledKey, *, is_cut_off: bool = False, **changes: Any
) -> Upload:
    """An upload that is held: as a repeat of one that is being validated, or because it looks cut off."""
    if not is_cut_off:
        receive_upload(database, jobs, new_upload(key), holding())
    upload = new_upload(key, is_cut_off=is_cut_off, **changes)
    assert receive_upload(database, jobs, upload, holding()) is UploadStatus.HELD
    return get_upload(database, upload.id)


def message_rows(recipients: Sequence[str], *, first_row: int = 2) -> NewMessages:
    """Rows of a valid file; the first stands in row 2, under the header."""
    count = len(recipients)
    return NewMessages(
        row=range(first_row, first_row + count),
        recipient=recipients,
        language=["english"] * count,
        values=[json.dumps({"name": "Emily"})] * count,
        segments=[1] * count,
    )


def write_batch(database: Database, upload: Upload, recipients: Sequence[str], *, now: datetime = NOW) -> str:
    """An upload's batch with its rows, which nothing is sent of yet; returns its id."""
    bounds = (len(recipients), 2, len(recipients) + 1)
    batch_id = start_batch(database, upload_id=upload.id, campaign_id=upload.campaign_id, rows=bounds, now=now)
    write_messages(database, batch_id=batch_id, parts=[message_rows(recipients)])
    return batch_id


def enqueued_batch(database: Database, jobs: JobBoard, campaign: Campaign, recipients: Sequence[str]) -> str:
    """A batch of which messages may be sent; returns its id."""
    upload = validating_upload(database, jobs, campaign)
    batch_id = write_batch(database, upload, recipients)
    accepted = enqueue_batch(
        database,
        jobs,
        batch_id=batch_id,
        upload_id=upload.id,
        rate=campaign.rate,
        verdict=verdict(rows=len(recipients)),
        context={},
        now=NOW,
    )
    assert accepted
    return batch_id


def message_id(batch_id: str, row: int) -> str:
    """The id of the message of a row."""
    return derived_id(IdKind.MESSAGE, batch_id, str(row))


def notice_id(upload_id: str, kind: NoticeKind) -> str:
    """The id of an upload's notice."""
    return derived_id(IdKind.NOTICE, upload_id, kind)


def change(database: Database, table: sa.Table, row_id: str, **values: Any) -> None:
    """Set what no transition sets yet."""
    with database.write() as connection:
        connection.execute(table.update().where(table.c.id == row_id).values(**values))


def change_message(database: Database, batch_id: str, row: int, **values: Any) -> None:
    """Set what no transition sets yet, of one message."""
    batch = sa.select(batches.c.number).where(batches.c.id == batch_id).scalar_subquery()
    with database.write() as connection:
        connection.execute(messages.update().where(messages.c.batch == batch, messages.c.row == row).values(**values))


def count(database: Database, table: sa.Table) -> int:
    """How many rows a table has."""
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def jobs_of(database: Database) -> dict[str, str]:
    """The jobs in the engine's table: the name of the workflow by the job's id."""
    return {row.workflow_uuid: row.name for row in _workflows(database)}


def job_states(database: Database) -> dict[str, tuple[str, int]]:
    """The state of each job, and how often it was started."""
    return {row.workflow_uuid: (row.status, row.recovery_attempts) for row in _workflows(database)}


def notices_of(database: Database, upload_id: str) -> list[NoticeKind]:
    """The kinds of mail in the outbox for an upload."""
    query = sa.select(notices.c.kind).where(notices.c.upload_id == upload_id).order_by(notices.c.kind)
    with database.read() as connection:
        return [NoticeKind(kind) for kind in connection.execute(query).scalars()]


def _workflows(database: Database) -> Sequence[sa.Row[Any]]:
    table = sa.table(
        "workflow_status",
        sa.column("workflow_uuid"),
        sa.column("name"),
        sa.column("status"),
        sa.column("recovery_attempts"),
        schema=None if database.is_sqlite else "dbos",
    )
    with database.read() as connection:
        return connection.execute(sa.select(table)).all()


def open_ids(database: Database, batch_id: str) -> list[str]:
    """The attempts of a batch of which nobody has recorded anything."""
    query = (
        sa.select(attempts.c.id)
        .join(batches, batches.c.number == attempts.c.batch)
        .where(batches.c.id == batch_id, attempts.c.status == "sending", attempts.c.external_id == "")
        .order_by(attempts.c.row)
    )
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def record_results(
    database: Database, token: str, results: Sequence[Result], *, now: datetime, handed_over: datetime | None = None
) -> None:
    """Write what came of the hand-overs of one claim, in a transaction of its own. See `write_results`."""
    with database.write() as connection:
        write_results(connection, [(token, result) for result in results], now=now, handed_over=handed_over)
