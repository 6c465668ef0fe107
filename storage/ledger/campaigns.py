"""Campaigns in the ledger."""

from datetime import datetime

import sqlalchemy as sa

from postern.errors import NotFoundError
from postern.model import Campaign, Channel, Language
from storage.database import Database
from storage.jobs import END_UNSENT, JobBoard
from storage.ledger import audit
from storage.ledger.decisions import drop_some_held
from storage.tables import campaigns, templates


def create_campaign(database: Database, campaign: Campaign, *, actor: str) -> None:
    """Record a new campaign with its templates."""
    with database.write() as connection:
        connection.execute(
            campaigns.insert().values(
                id=campaign.id,
                name=campaign.name,
                agency=campaign.agency,
                channel=campaign.channel.value,
                parameters=list(campaign.parameters),
                rate=campaign.rate,
                created_at=campaign.created_at,
            )
        )
        connection.execute(
            templates.insert(),
            [
                {
                    "id": campaign.template_body_ids[language],
                    "template_id": campaign.template_id,
                    "campaign_id": campaign.id,
                    "language": language.value,
                    "position": position,
                    "body": body,
                    "created_at": campaign.created_at,
                }
                for position, (language, body) in enumerate(campaign.templates.items())
            ],
        )
        audit.record(
            connection,
            at=campaign.created_at,
            actor=actor,
            action="campaign.created",
            subject=campaign.id,
            campaign_id=campaign.id,
        )


def delete_campaign(database: Database, jobs: JobBoard, campaign_id: str, *, actor: str, now: datetime) -> None:
    """Delete a campaign for good: its keys stop working, nothing more is sent, what is held of it is dropped.

    Its rows stay, for operators and billing. A job ends what was not handed over, and drops what is held beyond the
    first slice. What is being validated is dropped
    by the worker that is at it.

    Raises:
        NotFoundError: there is none with that id.
    """
    there = sa.and_(campaigns.c.id == campaign_id, campaigns.c.deleted_at.is_(None))
    with database.write() as connection:
        if connection.execute(campaigns.update().where(there).values(deleted_at=now)).rowcount == 0:
            raise NotFoundError("campaign", campaign_id)
        jobs.enqueue(connection, END_UNSENT, f"end:{campaign_id}", campaign_id)
        drop_some_held(database, connection, jobs, campaign_id=campaign_id, actor=actor, now=now)
        audit.record(
            connection, at=now, actor=actor, action="campaign.deleted", subject=campaign_id, campaign_id=campaign_id
        )


def get_campaign(database: Database, campaign_id: str, *, even_deleted: bool = False) -> Campaign:
    """A campaign; one that was deleted only when asked for.

    Raises:
        NotFoundError: there is none with that id.
    """
    is_there = sa.true() if even_deleted else campaigns.c.deleted_at.is_(None)
    found = _select(database, sa.and_(campaigns.c.id == campaign_id, is_there))
    if not found:
        raise NotFoundError("campaign", campaign_id)
    return found[0]


def list_campaigns(database: Database, *, even_deleted: bool = False) -> list[Campaign]:
    """All campaigns, oldest first; those that were deleted only when asked for."""
    return _select(database, sa.true() if even_deleted else campaigns.c.deleted_at.is_(None))


def _select(database: Database, condition: sa.ColumnElement[bool]) -> list[Campaign]:
    query = (
        sa.select(
            campaigns,
            templates.c.id.label("body_id"),
            templates.c.template_id,
            templates.c.language,
            templates.c.body,
        )
        .join(templates, templates.c.campaign_id == campaigns.c.id)
        .where(condition)
        .order_by(campaigns.c.created_at, campaigns.c.id, templates.c.position)
    )
    grouped: dict[str, list[sa.RowMapping]] = {}
    with database.read() as connection:
        for row in connection.execute(query).mappings():
            grouped.setdefault(row["id"], []).append(row)
    return [_campaign(rows) for rows in grouped.values()]


def _campaign(rows: list[sa.RowMapping]) -> Campaign:
    first = rows[0]
    return Campaign(
        id=first["id"],
        name=first["name"],
        agency=first["agency"],
        channel=Channel(first["channel"]),
        templates={Language(row["language"]): row["body"] for row in rows},
        parameters=tuple(first["parameters"]),
        rate=first["rate"],
        created_at=first["created_at"],
        template_id=first["template_id"],
        template_body_ids={Language(row["language"]): row["body_id"] for row in rows},
        paused_at=first["paused_at"],
        deleted_at=first["deleted_at"],
    )
