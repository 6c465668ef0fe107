"""The audit trail: who did what, when and why. Rows are added in the transaction of what they tell."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage.database import Database
from storage.tables import audit


def record(
    connection: sa.Connection,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    campaign_id: str | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add a row, in the caller's transaction."""
    connection.execute(
        audit.insert().values(
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            campaign_id=campaign_id,
            detail=dict(detail or {}),
        )
    )


def actor_of(connection: sa.Connection, action: str, subject: str) -> str:
    """Who did what was done last of that kind to a subject; nobody where the trail does not tell."""
    query = sa.select(audit.c.actor).where(audit.c.action == action, audit.c.subject == subject)
    return connection.execute(query.order_by(audit.c.id.desc()).limit(1)).scalar_one_or_none() or ""


def revision(database: Database) -> int:
    """How many rows there are; it grows with every change of a campaign, an enrolment or a key.

    Not the newest id: ids come from a sequence, and a smaller one may be committed later.
    """
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(audit)).scalar_one()


def list_audit(database: Database, *, campaign_id: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """The newest rows, newest first."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if campaign_id is not None:
        query = query.where(audit.c.campaign_id == campaign_id)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
