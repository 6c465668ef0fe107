"""Enrolments and their keys in the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postern.errors import NotFoundError, Refusal
from postern.model import IdKind, KeyStatus, new_id
from storage.database import Database
from storage.ledger import audit
from storage.tables import campaigns, enrolments, keys


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A public key to be enrolled, parsed and found good."""

    type: str
    bits: int
    public_key: str  # `<type> <base64>`
    comment: str
    fingerprint: str  # SHA256:…


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledKey:
    """A key in the ledger, with what its enrolment says."""

    id: str
    enrolment_id: str
    campaign_id: str
    email: str
    sources: Sequence[str]
    type: str
    bits: int
    public_key: str
    comment: str
    fingerprint: str
    status: KeyStatus
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    last_used_at: datetime | None


def create_enrolment(
    database: Database,
    *,
    campaign_id: str,
    email: str,
    sources: Sequence[str],
    new_keys: Sequence[NewKey],
    expires_at: datetime | None,
    shared: bool,
    actor: str,
    now: datetime,
) -> list[EnrolledKey]:
    """Record an enrolment with its keys, active at once.

    Raises:
        Refusal: a key is active already, for this campaign or (unless `shared`) for another one.
    """
    enrolment_id = new_id(IdKind.ENROLMENT)
    with database.write() as connection:
        for key in new_keys:
            _check_unused(connection, key, campaign_id=campaign_id, shared=shared)
        connection.execute(
            enrolments.insert().values(
                id=enrolment_id, campaign_id=campaign_id, email=email, sources=list(sources), created_at=now
            )
        )
        for key in new_keys:
            key_id = new_id(IdKind.KEY)
            connection.execute(
                keys.insert().values(
                    id=key_id,
                    enrolment_id=enrolment_id,
                    campaign_id=campaign_id,
                    type=key.type,
                    bits=key.bits,
                    public_key=key.public_key,
                    comment=key.comment,
                    fingerprint=key.fingerprint,
                    status=KeyStatus.ACTIVE.value,
                    expires_at=expires_at,
                    created_at=now,
                )
            )
            audit.record(
                connection,
                at=now,
                actor=actor,
                action="key.enrolled",
                subject=key_id,
                campaign_id=campaign_id,
                detail={"fingerprint": key.fingerprint, "email": email, "sources": list(sources)},
            )
    return list_keys(database, enrolment_id=enrolment_id)


def _check_unused(connection: sa.Connection, key: NewKey, *, campaign_id: str, shared: bool) -> None:
    holders = connection.execute(
        sa.select(keys.c.campaign_id).where(
            keys.c.fingerprint == key.fingerprint, keys.c.status == KeyStatus.ACTIVE.value
        )
    ).scalars()
    for holder in holders:
        if holder == campaign_id:
            raise Refusal("key_enrolled", f"{key.fingerprint} is enrolled for this campaign already.")
        if not shared:
            raise Refusal(
                "key_of_another_campaign",
                f"{key.fingerprint} is enrolled for {holder}. A key belongs to one campaign: make a new one with "
                "ssh-keygen -t ed25519 -f KEYFILE, or insist with --shared.",
            )


def revoke_key(database: Database, key_id: str, *, reason: str, actor: str, now: datetime) -> EnrolledKey:
    """End an active key. Revoking one that has ended already changes nothing.

    Raises:
        NotFoundError: there is no such key.
    """
    with database.write() as connection:
        revoked = connection.execute(
            keys.update()
            .where(keys.c.id == key_id, keys.c.status == KeyStatus.ACTIVE.value)
            .values(status=KeyStatus.REVOKED.value, ended_at=now)
            .returning(keys.c.campaign_id, keys.c.fingerprint)
        ).first()
        if revoked is not None:
            audit.record(
                connection,
                at=now,
                actor=actor,
                action="key.revoked",
                subject=key_id,
                campaign_id=revoked.campaign_id,
                detail={"fingerprint": revoked.fingerprint, "reason": reason},
            )
    found = list_keys(database, key_id=key_id)
    if not found:
        raise NotFoundError("key", key_id)
    return found[0]


def expire_keys(database: Database, *, now: datetime) -> int:
    """Mark keys whose time is over; returns how many."""
    due = sa.and_(keys.c.status == KeyStatus.ACTIVE.value, keys.c.expires_at.is_not(None), keys.c.expires_at <= now)
    with database.read() as connection:
        if connection.execute(sa.select(keys.c.id).where(due).limit(1)).first() is None:
            return 0
    with database.write() as connection:
        expired = connection.execute(
            keys.update()
            .where(due)
            .values(status=KeyStatus.EXPIRED.value, ended_at=now)
            .returning(keys.c.id, keys.c.campaign_id, keys.c.fingerprint)
        ).all()
        for key in expired:
            audit.record(
                connection,
                at=now,
                actor="postern",
                action="key.expired",
                subject=key.id,
                campaign_id=key.campaign_id,
                detail={"fingerprint": key.fingerprint},
            )
    return len(expired)


def touch_key(database: Database, *, campaign_id: str, fingerprint: str, at: datetime) -> None:
    """Remember when a key was last used."""
    with database.write() as connection:
        connection.execute(
            keys.update()
            .where(
                keys.c.campaign_id == campaign_id,
                keys.c.fingerprint == fingerprint,
                sa.or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < at),
            )
            .values(last_used_at=at)
        )


def list_keys(
    database: Database,
    *,
    campaign_id: str | None = None,
    enrolment_id: str | None = None,
    key_id: str | None = None,
    fingerprint: str | None = None,
    active_only: bool = False,
) -> list[EnrolledKey]:
    """Keys of campaigns that were not deleted, oldest first."""
    query = (
        sa.select(keys, enrolments.c.email, enrolments.c.sources)
        .join(enrolments, enrolments.c.id == keys.c.enrolment_id)
        .join(campaigns, campaigns.c.id == keys.c.campaign_id)
        .where(campaigns.c.deleted_at.is_(None))
        .order_by(keys.c.created_at, keys.c.id)
    )
    wanted = {
        keys.c.campaign_id: campaign_id,
        keys.c.enrolment_id: enrolment_id,
        keys.c.id: key_id,
        keys.c.fingerprint: fingerprint,
        keys.c.status: KeyStatus.ACTIVE.value if active_only else None,
    }
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    with database.read() as connection:
        return [_key(row) for row in connection.execute(query).mappings()]


def is_enrolled(database: Database, *, campaign_id: str, enrolment_id: str, fingerprint: str) -> bool:
    """Whether this key was ever enrolled so, whatever became of it or of the campaign since."""
    query = sa.select(keys.c.id).where(
        keys.c.campaign_id == campaign_id, keys.c.enrolment_id == enrolment_id, keys.c.fingerprint == fingerprint
    )
    with database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


def _key(row: sa.RowMapping) -> EnrolledKey:
    return EnrolledKey(
        id=row["id"],
        enrolment_id=row["enrolment_id"],
        campaign_id=row["campaign_id"],
        email=row["email"],
        sources=tuple(row["sources"]),
        type=row["type"],
        bits=row["bits"],
        public_key=row["public_key"],
        comment=row["comment"],
        fingerprint=row["fingerprint"],
        status=KeyStatus(row["status"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        ended_at=row["ended_at"],
        last_used_at=row["last_used_at"],
    )
