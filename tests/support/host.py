"""A gate host with its intake: a real spool, a ledger, a folder of blobs."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.domain import CONTENT, NOW, SimulatedClock, add_campaign, enrol, jobs_of

from pipeline.intake import Intake
from postern.model import IdKind, UploadStatus, new_id
from postern.settings import IntakeSettings
from storage.blobs import BlobMissingError
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD
from storage.ledger.enrolments import EnrolledKey
from storage.ledger.uploads import list_uploads
from storage.local import LocalBlobs
from storage.spool import Spool
from storage.spool_records import Event, EventKind, Sidecar

RECEIVED = NOW.isoformat(timespec="milliseconds")


@dataclass
class Host:
    """A gate host with one enrolled key, and its intake."""

    home: Path
    database: Database
    jobs: Jobs
    clock: SimulatedClock = dataclasses.field(default_factory=SimulatedClock)

    def __post_init__(self) -> None:
        self.settings = IntakeSettings(home=self.home)
        self.spool = Spool(self.settings.spool_folder)
        self.spool.prepare()
        self.blobs = LocalBlobs(self.settings.blob_folder)
        self.key = enrol(self.database, add_campaign(self.database))

    def intake(self, **changes: Any) -> Intake:
        parts = {
            "settings": self.settings,
            "database": self.database,
            "blobs": self.blobs,
            "jobs": self.jobs,
            "spool": self.spool,
            "now": self.clock,
        }
        return Intake(**{**parts, **changes})

    def accept(self, content: bytes = CONTENT, key: EnrolledKey | None = None, **changes: Any) -> Sidecar:
        """What the gate does on an orderly close, with a sidecar that may lie."""
        key = key or self.key
        upload_id = new_id(IdKind.UPLOAD)
        self.spool.begin(upload_id).write_bytes(content)
        fields = {
            "upload_id": upload_id,
            "campaign_id": key.campaign_id,
            "enrolment_id": key.enrolment_id,
            "file_name": "people.csv",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "key_fingerprint": key.fingerprint,
            "peer": "192.0.2.1",
            "received_at": RECEIVED,
        }
        sidecar = Sidecar(**fields)
        self.spool.accept(sidecar)
        told = dataclasses.replace(sidecar, **changes)
        (self.folder(sidecar) / "upload.json").write_text(json.dumps(dataclasses.asdict(told)))
        return sidecar

    def tell(self, kind: EventKind, key: EnrolledKey | None = None, **changes: Any) -> Event:
        """What else the gate has to say."""
        key = key or self.key
        fields = {
            "kind": kind,
            "event_id": new_id(IdKind.UPLOAD),
            "campaign_id": key.campaign_id,
            "enrolment_id": key.enrolment_id,
            "key_fingerprint": key.fingerprint,
            "peer": "192.0.2.1",
            "at": RECEIVED,
            "file_name": "people.txt",
            "size": 7,
            "reason": "The name does not end in .csv.",
        }
        event = Event(**{**fields, **changes})
        self.spool.tell(event)
        return event

    def folder(self, sidecar: Sidecar) -> Path:
        return self.spool.accepted / sidecar.upload_id

    def stored(self, sidecar: Sidecar) -> bytes | None:
        """The bytes in the blob store, if they got there."""
        try:
            with self.blobs.open(f"uploads/{sidecar.campaign_id}/{sidecar.upload_id}.csv") as file:
                return file.read()
        except BlobMissingError:
            return None

    def assert_taken_in(self, sidecar: Sidecar) -> None:
        """Once: bytes, row and job are there, and the spool is empty."""
        (upload,) = list_uploads(self.database)
        assert (upload.id, upload.status, upload.sha256) == (sidecar.upload_id, UploadStatus.RECEIVED, sidecar.sha256)
        assert self.stored(sidecar) == CONTENT
        assert jobs_of(self.database) == {sidecar.upload_id: PROCESS_UPLOAD.name}
        assert self.spool.waiting() == []
        (recent,) = self.spool.recent_uploads(sidecar.campaign_id, self.clock.now)
        assert (recent.file_name, recent.size) == ("people.csv", len(CONTENT))


@contextlib.contextmanager
def host_on(url: str, home: Path) -> Iterator[Host]:
    """A host whose ledger is that database."""
    database, jobs = Database(url), Jobs(url)
    yield Host(home, database, jobs)
    jobs.close()
    database.dispose()
