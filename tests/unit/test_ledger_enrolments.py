"""Campaigns, enrolments, keys and the audit trail in the ledger, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
from support.domain import NOW, OWNER, SECOND, add_campaign, change, count, enrol, new_campaign, new_key

from postern.errors import NotFoundError, Refusal
from postern.model import IdKind, KeyStatus, is_id
from storage.database import Database
from storage.ledger import audit
from storage.ledger.campaigns import create_campaign, get_campaign, list_campaigns
from storage.ledger.enrolments import (
    EnrolledKey,
    create_enrolment,
    expire_keys,
    is_enrolled,
    list_keys,
    revoke_key,
    touch_key,
)
from storage.tables import campaigns, enrolments, keys

pytest_plugins = ["support.databases"]


def revoke(database: Database, key: EnrolledKey, *, reason: str = "lost") -> EnrolledKey:
    return revoke_key(database, key.id, reason=reason, actor="operator", now=NOW + SECOND)


def told(database: Database, campaign_id: str) -> list[tuple[str, str, Any]]:
    """The audit trail of a campaign, oldest first, without the times."""
    rows = audit.list_audit(database, campaign_id=campaign_id)
    return [(row["action"], row["actor"], row["detail"]) for row in reversed(rows)]


def test_a_campaign_is_read_as_it_was_created(database: Database) -> None:
    """All languages in their order, and the audit trail tells who made it."""
    campaign = new_campaign()
    create_campaign(database, campaign, actor="Mei")
    assert get_campaign(database, campaign.id) == campaign
    assert list(get_campaign(database, campaign.id).templates) == list(campaign.templates)
    assert told(database, campaign.id) == [("campaign.created", "Mei", {})]


def test_campaigns_are_listed_oldest_first(database: Database) -> None:
    """Those that were deleted are not, and cannot be had."""
    first, second = add_campaign(database, name="one"), add_campaign(database, name="two")
    change(database, campaigns, second.id, created_at=NOW - SECOND)
    assert [campaign.id for campaign in list_campaigns(database)] == [second.id, first.id]
    change(database, campaigns, first.id, deleted_at=NOW)
    assert [campaign.id for campaign in list_campaigns(database)] == [second.id]
    with pytest.raises(NotFoundError, match=f"There is no campaign {first.id}"):
        get_campaign(database, first.id)


def test_an_enrolment_has_its_keys_active_at_once(database: Database) -> None:
    """Several keys, one address, sources and expiry; the trail names each key."""
    campaign = add_campaign(database)
    new_keys = [new_key(), new_key()]
    found = create_enrolment(
        database,
        campaign_id=campaign.id,
        email=OWNER,
        sources=["192.0.2.0/24"],
        new_keys=new_keys,
        expires_at=NOW + timedelta(days=1),
        shared=False,
        actor="Mei",
        now=NOW,
    )
    assert {key.fingerprint for key in found} == {key.fingerprint for key in new_keys}
    assert {key.status for key in found} == {KeyStatus.ACTIVE}
    assert len({key.enrolment_id for key in found}) == 1
    one = found[0]
    assert is_id(IdKind.KEY, one.id)
    assert (one.email, one.sources, one.expires_at) == (OWNER, ("192.0.2.0/24",), NOW + timedelta(days=1))
    actions = [(action, actor) for action, actor, _detail in told(database, campaign.id)]
    assert actions == [("campaign.created", "operator"), *[("key.enrolled", "Mei")] * 2]


def test_a_key_is_enrolled_once_for_a_campaign(database: Database) -> None:
    """Not even where keys are shared, and nothing is left of the attempt."""
    campaign = add_campaign(database)
    key = new_key()
    enrol(database, campaign, new_keys=[key])
    for shared in (False, True):
        with pytest.raises(Refusal, match="for this campaign already") as refused:
            enrol(database, campaign, new_keys=[new_key(), key], shared=shared)
        assert refused.value.code == "key_enrolled"
    assert (count(database, enrolments), count(database, keys)) == (1, 1)


def test_a_key_of_another_campaign_takes_insistence(database: Database) -> None:
    """The refusal names the holder and what to do."""
    holder, campaign = add_campaign(database), add_campaign(database)
    key = new_key()
    enrol(database, holder, new_keys=[key])
    with pytest.raises(Refusal, match=f"enrolled for {holder.id}.*--shared") as refused:
        enrol(database, campaign, new_keys=[key])
    assert refused.value.code == "key_of_another_campaign"
    enrol(database, campaign, new_keys=[key], shared=True)
    assert len(list_keys(database, fingerprint=key.fingerprint)) == 2


def test_a_revoked_key_may_be_enrolled_again(database: Database) -> None:
    """Only an active key is in the way."""
    campaign = add_campaign(database)
    key = new_key()
    revoke(database, enrol(database, campaign, new_keys=[key]))
    assert enrol(database, campaign, new_keys=[key]).status is KeyStatus.ACTIVE


def test_a_key_is_revoked_once(database: Database) -> None:
    """The second time changes nothing and tells nothing."""
    campaign = add_campaign(database)
    key = enrol(database, campaign)
    revoked = revoke(database, key)
    assert (revoked.status, revoked.ended_at) == (KeyStatus.REVOKED, NOW + SECOND)
    assert revoke(database, key, reason="again") == revoked
    detail = {"fingerprint": key.fingerprint, "reason": "lost"}
    assert told(database, campaign.id)[2:] == [("key.revoked", "operator", detail)]
    assert list_keys(database, active_only=True) == []


def test_an_unknown_key_is_not_revoked(database: Database) -> None:
    """The message names the id."""
    with pytest.raises(NotFoundError, match="There is no key key_x"):
        revoke_key(database, "key_x", reason="lost", actor="operator", now=NOW)


def test_keys_expire_at_their_time(database: Database) -> None:
    """Neither earlier nor twice, and a revoked one stays revoked."""
    campaign = add_campaign(database)
    due = enrol(database, campaign, expires_at=NOW + SECOND)
    enrol(database, campaign, expires_at=NOW + 2 * SECOND)
    enrol(database, campaign)
    revoke(database, enrol(database, campaign, expires_at=NOW + SECOND))
    assert expire_keys(database, now=NOW) == 0
    assert expire_keys(database, now=NOW + SECOND) == 1
    assert expire_keys(database, now=NOW + SECOND) == 0
    (expired,) = list_keys(database, key_id=due.id)
    assert (expired.status, expired.ended_at) == (KeyStatus.EXPIRED, NOW + SECOND)
    assert revoke(database, due).status is KeyStatus.EXPIRED
    assert len(list_keys(database, active_only=True)) == 2
    detail = {"fingerprint": due.fingerprint}
    assert told(database, campaign.id)[-1] == ("key.expired", "postern", detail)


def test_the_last_use_of_a_key_moves_forward_only(database: Database) -> None:
    """Logins may be told out of order."""
    key = enrol(database, add_campaign(database))
    for at in (NOW, NOW + SECOND, NOW - SECOND):
        touch_key(database, campaign_id=key.campaign_id, fingerprint=key.fingerprint, at=at)
    (used,) = list_keys(database, key_id=key.id)
    assert used.last_used_at == NOW + SECOND


def test_a_key_of_another_campaign_is_not_touched(database: Database) -> None:
    """A shared key is used for one campaign at a time."""
    key = new_key()
    first = enrol(database, add_campaign(database), new_keys=[key])
    second = enrol(database, add_campaign(database), new_keys=[key], shared=True)
    touch_key(database, campaign_id=first.campaign_id, fingerprint=key.fingerprint, at=NOW)
    assert list_keys(database, key_id=second.id) == [second]


def test_an_enrolled_key_is_known_whatever_became_of_it(database: Database) -> None:
    """An upload may come to the ledger after its key was revoked; campaign, enrolment and key must belong together."""
    key, other = enrol(database, add_campaign(database)), enrol(database, add_campaign(database))
    revoke(database, key)
    right = {"campaign_id": key.campaign_id, "enrolment_id": key.enrolment_id, "fingerprint": key.fingerprint}
    assert is_enrolled(database, **right)
    for wrong in (
        {"campaign_id": other.campaign_id},
        {"enrolment_id": other.enrolment_id},
        {"fingerprint": other.fingerprint},
    ):
        assert not is_enrolled(database, **{**right, **wrong})


def test_keys_of_a_deleted_campaign_stop_working(database: Database) -> None:
    """They are no longer listed, so the keyring forgets them."""
    key = enrol(database, add_campaign(database))
    change(database, campaigns, key.campaign_id, deleted_at=NOW)
    assert list_keys(database) == []
    # What the gate has accepted by one before is an upload all the same.
    belongs = {"enrolment_id": key.enrolment_id, "fingerprint": key.fingerprint}
    assert is_enrolled(database, campaign_id=key.campaign_id, **belongs)


def test_the_newest_audit_row_tells_of_a_change(database: Database) -> None:
    """Its id grows with every enrolment, and stays otherwise."""
    assert audit.revision(database) == 0
    campaign = add_campaign(database)
    before = audit.revision(database)
    key = enrol(database, campaign)
    after = audit.revision(database)
    assert after > before
    touch_key(database, campaign_id=key.campaign_id, fingerprint=key.fingerprint, at=NOW)
    assert audit.revision(database) == after


def test_the_audit_trail_is_listed_newest_first(database: Database) -> None:
    """Up to a limit, of one campaign or of all."""
    campaigns_ = [add_campaign(database) for _ in range(3)]
    rows = audit.list_audit(database, limit=2)
    assert [row["subject"] for row in rows] == [campaigns_[2].id, campaigns_[1].id]
    assert [row["at"] for row in rows] == [NOW, NOW]
    assert [row["subject"] for row in audit.list_audit(database, campaign_id=campaigns_[0].id)] == [campaigns_[0].id]
