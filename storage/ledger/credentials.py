"""The credentials of campaigns that send by an account of their agency's, and whose an attempt is.

They are sealed: nothing here can read them.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postern.model import Channel
from storage.database import Database
from storage.ledger import audit
from storage.tables import attempts, batches, campaigns, credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCredentials:
    """What the database keeps; see `postern.credentials.Vault`."""

    sealed: bytes
    sender_name: str
    updated_at: datetime


def set_credentials(
    database: Database, campaign_id: str, *, sealed: bytes, sender_name: str, actor: str, now: datetime
) -> None:
    """Give a campaign its credentials, or other ones; what was there is gone."""
    values = {"sealed": sealed, "sender_name": sender_name, "updated_at": now}
    with database.write() as connection:
        connection.execute(database.insert_ignore(credentials).values(campaign_id=campaign_id, **values))
        connection.execute(credentials.update().where(credentials.c.campaign_id == campaign_id).values(**values))
        audit.record(
            connection,
            at=now,
            actor=actor,
            action="campaign.credentials_set",
            subject=campaign_id,
            campaign_id=campaign_id,
        )


def get_credentials(database: Database, campaign_id: str) -> SealedCredentials | None:
    """The credentials of a campaign; None where it has none."""
    query = sa.select(credentials).where(credentials.c.campaign_id == campaign_id)
    with database.read() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _sealed(row)


def list_credentials(database: Database) -> dict[str, SealedCredentials]:
    """The credentials of all campaigns that have some and are not deleted, by campaign."""
    query = (
        sa.select(credentials)
        .join(campaigns, campaigns.c.id == credentials.c.campaign_id)
        .where(campaigns.c.deleted_at.is_(None))
        .order_by(credentials.c.campaign_id)
    )
    with database.read() as connection:
        return {row["campaign_id"]: _sealed(row) for row in connection.execute(query).mappings()}


def _sealed(row: sa.RowMapping) -> SealedCredentials:
    return SealedCredentials(sealed=bytes(row["sealed"]), sender_name=row["sender_name"], updated_at=row["updated_at"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOwner:
    """Whose an attempt is."""

    campaign_id: str
    channel: Channel


def owner_of_attempt(database: Database, attempt_id: str) -> AttemptOwner | None:
    """The campaign of an attempt, a deleted one too; None where there is no such attempt."""
    query = (
        sa.select(campaigns.c.id, campaigns.c.channel)
        .join(batches, batches.c.campaign_id == campaigns.c.id)
        .join(attempts, attempts.c.batch == batches.c.number)
        .where(attempts.c.id == attempt_id)
    )
    with database.read() as connection:
        row = connection.execute(query).first()
    return None if row is None else AttemptOwner(campaign_id=row.id, channel=Channel(row.channel))
