"""Campaigns that are paused: nothing of them is claimed. Their messages wait where they are, by whoever they came."""

from datetime import datetime

from postern.errors import Refusal
from postern.model import Campaign
from storage.database import Database
from storage.ledger import audit
from storage.ledger.campaigns import get_campaign
from storage.tables import campaigns


def pause_campaign(database: Database, campaign_id: str, *, actor: str, now: datetime) -> Campaign:
    """Let a campaign's messages wait from now on; what was handed over goes its way.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it is paused already.
    """
    return _set(database, campaign_id, is_paused=True, actor=actor, now=now)


def resume_campaign(database: Database, campaign_id: str, *, actor: str, now: datetime) -> Campaign:
    """Let a campaign's messages go on where they stopped.

    Raises:
        NotFoundError: there is none with that id.
        Refusal: it is not paused.
    """
    return _set(database, campaign_id, is_paused=False, actor=actor, now=now)


def _set(database: Database, campaign_id: str, *, is_paused: bool, actor: str, now: datetime) -> Campaign:
    was = campaigns.c.paused_at.is_(None) if is_paused else campaigns.c.paused_at.is_not(None)
    with database.write() as connection:
        changed = connection.execute(
            campaigns.update()
            .where(campaigns.c.id == campaign_id, campaigns.c.deleted_at.is_(None), was)
            .values(paused_at=now if is_paused else None)
        )
        if changed.rowcount:
            audit.record(
                connection,
                at=now,
                actor=actor,
                action="campaign.paused" if is_paused else "campaign.resumed",
                subject=campaign_id,
                campaign_id=campaign_id,
            )
    campaign = get_campaign(database, campaign_id)
    if not changed.rowcount:
        code, word = ("already_paused", "paused already") if is_paused else ("not_paused", "not paused")
        raise Refusal(code, f"{campaign.id} is {word}.")
    return campaign
