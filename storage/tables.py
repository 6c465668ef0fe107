"""The tables of the domain. They hold the truth; the engine's own tables only see to it that work gets done.

Times are UTC. A message stores its values, not its text: text is rendered where it is sent or shown.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator
from typing_extensions import override


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite has no time zones, so there it is stored naive and comes back aware."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    @override
    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id(**options: Any) -> sa.Column[str]:
    return sa.Column("id", sa.String(64), primary_key=True, **options)


def _reference(name: str, target: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), sa.ForeignKey(f"{target}.id"), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcDateTime, nullable=nullable)


def _partial_index(name: str, *columns: str, where: str) -> sa.Index:
    """An index of few rows. A query uses it where its condition stands in it as it does here, without parameters."""
    condition = sa.text(where)
    return sa.Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


campaigns = sa.Table(
    "campaigns",
    metadata,
    _id(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("agency", sa.Text, nullable=False),
    sa.Column("channel", sa.String(16), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("rate", sa.Float, nullable=False),  # messages a second
    _time("created_at"),
    _time("paused_at", nullable=True),  # its messages wait since
    _time("deleted_at", nullable=True),
)

templates = sa.Table(  # one row a language; its id is the template body's
    "templates",
    metadata,
    _id(),
    sa.Column("template_id", sa.String(64), nullable=False),
    _reference("campaign_id", "campaigns"),
    sa.Column("language", sa.String(16), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    _time("created_at"),
    sa.UniqueConstraint("campaign_id", "language"),
)

enrolments = sa.Table(
    "enrolments",
    metadata,
    _id(),
    _reference("campaign_id", "campaigns"),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("sources", sa.JSON, nullable=False),  # addresses or CIDR; empty: anywhere
    _time("created_at"),
)

keys = sa.Table(
    "keys",
    metadata,
    _id(),
    _reference("enrolment_id", "enrolments"),
    _reference("campaign_id", "campaigns"),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("bits", sa.Integer, nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),  # `<type> <base64>`
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    _time("expires_at", nullable=True),
    _time("created_at"),
    _time("ended_at", nullable=True),  # revoked or expired
    _time("last_used_at", nullable=True),
    sa.Index("ix_keys_campaign_id_status", "campaign_id", "status"),
)

audit = sa.Table(  # append-only: the database itself refuses to change or delete a row
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _time("at"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(64), nullable=False),
    sa.Column("campaign_id", sa.String(64), nullable=True, index=True),
    sa.Column("detail", sa.JSON, nullable=False),
)

uploads = sa.Table(
    "uploads",
    metadata,
    _id(),
    _reference("campaign_id", "campaigns"),
    _reference("enrolment_id", "enrolments", nullable=True),
    sa.Column("file_name", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),  # bytes
    sa.Column("sha256", sa.String(64), nullable=True),
    sa.Column("peer", sa.String(64), nullable=True),
    sa.Column("key_fingerprint", sa.String(64), nullable=True),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("blob_key", sa.Text, nullable=True),
    sa.Column("report_key", sa.Text, nullable=True),
    sa.Column("report_url", sa.Text, nullable=True),
    sa.Column("support_id", sa.String(64), nullable=True, index=True),
    sa.Column("total_rows", sa.Integer, nullable=True),
    sa.Column("num_rows", sa.Integer, nullable=True),
    sa.Column("num_errors", sa.Integer, nullable=True),
    sa.Column("has_avoidable_character", sa.Boolean, nullable=True),
    sa.Column("has_unicode", sa.Boolean, nullable=True),
    sa.Column("verdict", sa.JSON, nullable=True),
    sa.Column("is_cut_off", sa.Boolean, nullable=False, server_default=sa.false()),  # as far as the gate can tell
    sa.Column("repeat_of", sa.String(64), nullable=True),  # the upload whose bytes it repeats
    sa.Column("decided_by", sa.Text, nullable=True),  # who released or dropped it
    sa.Column("num_retries", sa.Integer, nullable=False, server_default="0"),
    _time("received_at"),
    _time("held_at", nullable=True),
    _time("decided_at", nullable=True),
    _time("finished_at", nullable=True),
    sa.Index("ix_uploads_campaign_id_received_at", "campaign_id", "received_at"),
    sa.Index("ix_uploads_campaign_id_sha256", "campaign_id", "sha256"),
)

batches = sa.Table(
    "batches",
    metadata,
    _id(),
    sa.Column("number", sa.Integer, nullable=False, unique=True),  # what its messages know it by
    sa.Column("upload_id", sa.String(64), sa.ForeignKey("uploads.id"), nullable=True, unique=True),
    _reference("campaign_id", "campaigns"),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("first_row", sa.Integer, nullable=False),
    sa.Column("last_row", sa.Integer, nullable=False),
    sa.Column("is_indexed", sa.Boolean, nullable=False, server_default=sa.false()),  # `message_ids` has all of it
    sa.Column("num_retries", sa.Integer, nullable=False, server_default="0"),  # how often something of it was retried
    _time("enqueued_at", nullable=True),  # from then on its messages may be sent; null: none of it ever was
    _time("created_at"),
    _time("updated_at"),
    sa.Index("ix_batches_campaign_id_created_at", "campaign_id", "created_at"),
)

# A new row says only what differs from row to row: it is written twice as fast as with all that follows from its batch.
messages = sa.Table(  # the id of a message follows from batch and row: `storage.ledger.message_ids`
    "messages",
    metadata,
    # The number of a batch that is there: PostgreSQL would check a foreign key row by row, two seconds of a full file.
    sa.Column("batch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("row", sa.Integer, primary_key=True, autoincrement=False),  # the row that a spreadsheet shows
    sa.Column("recipient", sa.String(32), nullable=False),
    sa.Column("language", sa.String(16), nullable=False),
    sa.Column("values", sa.Text, nullable=False),  # JSON object, by parameter
    sa.Column("latest_status", sa.String(16), nullable=False, server_default="enqueued"),
    sa.Column("num_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("segments", sa.Integer, nullable=False),
    _time("created_at", nullable=True),  # null: when its batch was
    _time("updated_at", nullable=True),  # null: never since
    _partial_index("ix_messages_created", "batch", "row", where="latest_status = 'created'"),
)

# Where a message stands, by its id. Written once the batch is enqueued (`storage.ledger.message_index`), and in the
# order of the ids, so that each page of the database is written once.
message_ids = sa.Table(
    "message_ids",
    metadata,
    sa.Column("batch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("head", sa.BigInteger, primary_key=True, autoincrement=False),  # see `storage.ledger.message_ids`
    sa.Column("row", sa.Integer, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

attempts = sa.Table(
    "attempts",
    metadata,
    _id(),
    sa.Column("batch", sa.Integer, nullable=False),  # with `row`: where the message stands
    sa.Column("row", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("claim", sa.String(64), nullable=False),  # who may write the result of the hand-over
    sa.Column("provider", sa.String(16), nullable=False),
    sa.Column("external_id", sa.String(64), nullable=False),
    sa.Column("error_type", sa.String(32), nullable=True),
    sa.Column("error_code", sa.String(32), nullable=True),
    sa.Column("error_note", sa.Text, nullable=True),
    sa.Column("inferred", sa.Boolean, nullable=False),  # the failure is our conclusion, not the provider's word
    _time("created_at"),
    _time("sent_at", nullable=True),
    _time("delivered_at", nullable=True),
    _time("updated_at"),
    _time("due_at", nullable=True),  # no final report: when somebody looks at it next; null: nobody need
    sa.UniqueConstraint("batch", "row", "number"),
    _partial_index("ix_attempts_external_id", "external_id", where="external_id <> ''"),
    _partial_index("ix_attempts_failed", "batch", "row", where="status = 'failure'"),
    _partial_index("ix_attempts_due_at", "due_at", where="due_at IS NOT NULL"),
)

notices = sa.Table(
    "notices",
    metadata,
    _id(),
    _reference("upload_id", "uploads"),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("context", sa.JSON, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),  # pending, sent, failed
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("last_error", sa.Text, nullable=True),
    _time("created_at"),
    _time("sent_at", nullable=True),
    sa.UniqueConstraint("upload_id", "kind"),
    sa.Index("ix_notices_status", "status"),
)

rates = sa.Table(  # the pace of a campaign: GCRA's theoretical arrival time, in seconds since the epoch
    "rates",
    metadata,
    _id(),
    sa.Column("tat", sa.Float(53), nullable=False),
)

circuits = sa.Table(  # an account at a provider that takes nothing now, or did not lately
    "circuits",
    metadata,
    _id(),
    sa.Column("failures", sa.Integer, nullable=False),  # in a row; 0: closed, messages flow
    sa.Column("trouble", sa.String(16), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    _time("opened_at"),
    _time("open_until"),  # afterwards one message goes ahead of the others
    _time("probed_until", nullable=True),  # somebody sends that one; a dead worker's lapses
)

credentials = sa.Table(  # of a campaign that sends by an account of its agency's; sealed, see `postern.credentials`
    "credentials",
    metadata,
    sa.Column("campaign_id", sa.String(64), sa.ForeignKey("campaigns.id"), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("sender_name", sa.Text, nullable=False),  # what may be shown of it
    _time("updated_at"),
)

simulator_journal = sa.Table(  # what the simulator, as a provider, was handed; never touched by the rest
    "simulator_journal",
    metadata,
    _id(),
    sa.Column("attempt_id", sa.String(64), nullable=False, index=True),
    sa.Column("message_id", sa.String(64), nullable=False, index=True),
    sa.Column("recipient", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(32), nullable=False),  # accepted, or the error code of a refusal
    _time("accepted_at"),
    _time("receipt_due_at", nullable=True),
    _time("receipt_sent_at", nullable=True),
    sa.Index("ix_simulator_journal_receipt_due_at", "receipt_due_at"),
)
