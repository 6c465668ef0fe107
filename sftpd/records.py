"""What the gate writes into the spool: the record of an accepted upload, a refusal, a login. Pure."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from postern.model import IdKind, new_id
from postern.times import iso
from sftpd.uploads import Upload
from storage.spool_records import Event, EventKind, Sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Whom a session is for: taken once at login, because the connection may be gone when it is needed."""

    campaign_id: str
    enrolment_id: str
    key_fingerprint: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFile:
    """What is known of a file that was refused."""

    name: str
    size: int  # bytes that came
    reason: str


def sidecar_of(client: Client, upload: Upload, *, at: datetime, zone: ZoneInfo) -> Sidecar:
    """The record of a sealed upload."""
    return Sidecar(
        upload_id=upload.id,
        campaign_id=client.campaign_id,
        enrolment_id=client.enrolment_id,
        file_name=upload.name.final,
        size=upload.size,
        sha256=upload.sha256,
        key_fingerprint=client.key_fingerprint,
        peer=client.peer,
        received_at=str(iso(at, zone)),
        write_block=upload.write_block,
        is_cut_off=upload.is_cut_off,
    )


def refused_event(client: Client, file: RefusedFile, *, at: datetime, zone: ZoneInfo) -> Event:
    """The event of a refusal that the owner is told of."""
    return _event(client, EventKind.REFUSED, at, zone, file)


def login_event(client: Client, *, at: datetime, zone: ZoneInfo) -> Event:
    """The event of a login: the last use of a key."""
    return _event(client, EventKind.LOGIN, at, zone, RefusedFile(name="", size=0, reason=""))


def _event(client: Client, kind: EventKind, at: datetime, zone: ZoneInfo, file: RefusedFile) -> Event:
    return Event(
        kind=kind,
        event_id=new_id(IdKind.UPLOAD),
        campaign_id=client.campaign_id,
        enrolment_id=client.enrolment_id,
        key_fingerprint=client.key_fingerprint,
        peer=client.peer,
        at=str(iso(at, zone)),
        file_name=file.name,
        size=file.size,
        reason=file.reason,
    )
