"""The life cycle of keys: enrolled, listed, revoked, expired; and the keyring that the gate gets.

Keys are parsed and judged here, before the ledger sees them. Every change is on the audit trail.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address

from keys.keyring import Keyring, KeyringEntry, source_network
from keys.parse import PublicKey, parse_public_key
from keys.policy import check_key, check_shared_factors
from postern.errors import NotFoundError, Refusal
from storage.database import Database
from storage.ledger import enrolments
from storage.ledger.campaigns import get_campaign
from storage.ledger.enrolments import EnrolledKey, NewKey

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f<>\"(),:;\\]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def enrol(
    database: Database,
    *,
    campaign_id: str,
    key_texts: Sequence[bytes],
    email: str,
    sources: Sequence[str] = (),
    expires_at: datetime | None = None,
    shared: bool = False,
    actor: str,
    now: datetime,
) -> list[EnrolledKey]:
    """Enrol one or more public keys for a campaign, with one address that its outcome mails go to.

    Args:
        database: the database.
        campaign_id: the campaign, which is also the SFTP user name.
        key_texts: the contents of `.pub` files, OpenSSH format.
        email: exactly one address.
        sources: addresses or CIDR blocks that the keys may be used from; none means anywhere.
        expires_at: when the keys stop working.
        shared: whether a key may belong to another campaign as well.
        actor: who does it, for the audit trail.
        now: the time.

    Raises:
        Refusal: a key, the address, a source or the expiry cannot be used; nothing was enrolled.
        NotFoundError: there is no such campaign.
    """
    get_campaign(database, campaign_id)
    if not _is_address(email):
        raise Refusal(
            "email_invalid", f"{email!r} is no email address. Give exactly one, such as owner@agency.example."
        )
    if expires_at is not None and expires_at <= now:
        raise Refusal("expiry_past", f"{expires_at:%Y-%m-%d %H:%M %Z} is over already. Give a later expiry.")
    found = [parse_public_key(text) for text in key_texts]
    _check_all(found, database)
    return enrolments.create_enrolment(
        database,
        campaign_id=campaign_id,
        email=email,
        sources=[_source(source) for source in sources],
        new_keys=[_new_key(key) for key in found],
        expires_at=expires_at.astimezone(UTC) if expires_at else None,
        shared=shared,
        actor=actor,
        now=now,
    )


def _is_address(email: str) -> bool:
    """Whether a mail can be made for it: our own pattern, and what the mail library takes (RFC 5322, 3.4.1)."""
    if not _EMAIL.fullmatch(email):
        return False
    try:
        return Address(addr_spec=email).addr_spec == email
    except (ValueError, IndexError, HeaderParseError):
        return False


def _check_all(found: Sequence[PublicKey], database: Database) -> None:
    if not found:
        raise Refusal("key_missing", "Give at least one public key file.")
    if len({key.fingerprint for key in found}) < len(found):
        raise Refusal("key_twice", "The same key was given twice.")
    moduli = list(_moduli(enrolments.list_keys(database, active_only=True)))
    for key in found:
        check_key(key)
        check_shared_factors(key, moduli)
        if key.modulus is not None:
            moduli.append(key.modulus)


def _moduli(enrolled: Iterable[EnrolledKey]) -> Iterable[int]:
    for key in enrolled:
        if key.type == "ssh-rsa":
            modulus = parse_public_key(key.public_key).modulus
            if modulus is not None:
                yield modulus


def _source(text: str) -> str:
    try:
        return str(source_network(text.strip()))
    except ValueError as error:
        raise Refusal(
            "source_invalid", f"{text!r} is no address or CIDR block ({error}). Use 203.0.113.7 or 203.0.113.0/24."
        ) from None


def _new_key(key: PublicKey) -> NewKey:
    return NewKey(type=key.type, bits=key.bits, public_key=key.line, comment=key.comment, fingerprint=key.fingerprint)


def find_key(database: Database, wanted: str, *, campaign_id: str | None = None) -> EnrolledKey:
    """One key by its id or fingerprint.

    Raises:
        NotFoundError: there is none.
        Refusal: a fingerprint that several campaigns have; the campaign must be named.
    """
    by_id = enrolments.list_keys(database, key_id=wanted)
    found = by_id or enrolments.list_keys(database, fingerprint=wanted, campaign_id=campaign_id)
    active = [key for key in found if key.ended_at is None] or found[-1:]
    if not active:
        raise NotFoundError("key", wanted)
    if len(active) > 1:
        names = ", ".join(key.campaign_id for key in active)
        raise Refusal("key_ambiguous", f"{wanted} is enrolled for {names}. Name the key's id, or the campaign.")
    return active[0]


def keyring_of(database: Database) -> Keyring:
    """The active keys, as the gate gets them."""
    campaigns: dict[str, list[KeyringEntry]] = {}
    for key in enrolments.list_keys(database, active_only=True):
        campaigns.setdefault(key.campaign_id, []).append(
            KeyringEntry(
                public_key=key.public_key,
                fingerprint=key.fingerprint,
                enrolment_id=key.enrolment_id,
                sources=tuple(key.sources),
                expires_at=key.expires_at.isoformat() if key.expires_at else None,
            )
        )
    return Keyring(campaigns=campaigns)
