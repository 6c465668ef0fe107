"""Three workers and an intake on one home and one PostgreSQL, for tests that kill them, and what must hold after.

The ledger is held against what the simulator's journal and the mail server have.
"""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from support.outside import Outside
from support.waiting import until
from support.worker import ROOT

from postern.model import IdKind, new_id
from storage.database import Database
from storage.ledger.enrolments import EnrolledKey
from storage.spool import Spool
from storage.spool_records import Sidecar
from storage.tables import attempts, batches, messages, notices, simulator_journal, uploads

WORKERS = ("worker 1", "worker 2", "worker 3")
PATIENCE = 900.0
POSTERN = Path(sys.executable).with_name("postern")


@dataclass
class Fleet:
    """Three workers and an intake on one home, started again whenever they are dead."""

    home: Path
    database: Database
    outside: Outside
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Start whatever does not run."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
        environ = {
            **plain,
            "POSTERN_HOME": str(self.home),
            "POSTERN_DATABASE_URL": self.database.url,
            "POSTERN_SMTP_URL": self.outside.smtp_url,
            "POSTERN_RECONCILE_INTERVAL": "5",
        }
        for name in ("intake", *WORKERS):
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                with (self.home / "log").open("ab") as log:
                    self.processes[name] = subprocess.Popen(
                        [POSTERN, name.split()[0]], env=environ, stdout=log, stderr=log, cwd=ROOT
                    )

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def log(self) -> str:
        """The end of what they said."""
        return (self.home / "log").read_text(errors="replace")[-4_000:]


def accept(spool: Spool, key: EnrolledKey, number: int, rows: int) -> str:
    """What the gate does on an orderly close; numbers that no other file has."""
    lines = [
        "recipient,language,name",
        *(f"65{90_000_000 + number * 10_000 + row},english,Emily" for row in range(rows)),
    ]
    data = ("\n".join(lines) + "\n").encode()
    upload_id = new_id(IdKind.UPLOAD)
    spool.begin(upload_id).write_bytes(data)
    spool.accept(
        Sidecar(
            upload_id=upload_id,
            campaign_id=key.campaign_id,
            enrolment_id=key.enrolment_id,
            file_name=f"{number}.csv",
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            key_fingerprint=key.fingerprint,
            peer="192.0.2.1",
            received_at="2026-11-20T08:30:00.000+00:00",
        )
    )
    return upload_id


def count(database: Database, table: sa.Table) -> int:
    """How many rows a table has."""
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def all_final(database: Database) -> bool:
    """Whether every upload has its outcome and mail, and every message its end."""
    with database.read() as connection:
        found = connection.execute(sa.select(uploads.c.finished_at)).scalars().all()
        open_mails = sa.select(sa.func.count()).where(notices.c.status != "sent")
        final = messages.c.latest_status.in_(("success", "failure"))
        open_messages = sa.select(sa.func.count()).select_from(messages).where(~final)
        return (
            len(found) > 0
            and all(found)
            and connection.execute(open_mails).scalar_one() == 0
            and connection.execute(open_messages).scalar_one() == 0
        )


def assert_all_is_well(fleet: Fleet, put: list[str], *, is_strict: bool = True) -> int:
    """Hold the ledger against the provider's journal and the mails; returns how many messages are in doubt."""
    database = fleet.database
    until(lambda: count(database, uploads) == len(put), "all uploads", PATIENCE)
    with database.read() as connection:
        found = connection.execute(sa.select(uploads.c.id, uploads.c.status)).all()
        totals = connection.execute(sa.select(batches.c.upload_id, batches.c.total)).all()
        recipients = Counter(connection.execute(sa.select(messages.c.recipient)).scalars())
        handed = Counter(connection.execute(sa.select(simulator_journal.c.recipient)).scalars())
        of = sa.and_(attempts.c.batch == messages.c.batch, attempts.c.row == messages.c.row)
        doubts = sa.select(messages.c.recipient).join(attempts, of).where(attempts.c.inferred)
        doubtful = set(connection.execute(doubts).scalars())
    assert {upload.id: upload.status for upload in found} == dict.fromkeys(put, "accepted")
    assert sorted(upload_id for upload_id, _total in totals) == sorted(put)
    assert max(recipients.values()) == 1
    assert sum(recipients.values()) == sum(total for _id, total in totals)
    assert max(handed.values()) == 1, "a message was handed over twice"
    assert set(recipients) - set(handed) <= doubtful, "a message was lost"
    if is_strict:
        assert not doubtful & set(handed), "a hand-over that the provider knew of was not found"
    mails = fleet.outside.mailbox.mails
    assert len(mails) == len(put), "a mail is missing, or one has two Message-IDs"
    return len(doubtful)
