"""Gate and intake as two users of one group, on a spool whose folders hand their group on: see docs/operations.md."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

GATE, INTAKE, STRANGER, GROUP = 41001, 41002, 41003, 41000

# Imports first: the interpreter itself may lie where only root can read.
BECOME = """
import asyncio, json, os, sys
from pathlib import Path
from keys.keyring import Keyring, write_keyring
from postern.model import IdKind, new_id
from storage.spool import Event, EventKind, RecentUpload, Sidecar, Spool, shared
home, user, group = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(group)
os.setuid(user)
os.umask(0o007)
spool = Spool(home / "spool")
"""
ACCEPT = """
spool.prepare()
names = {"upload_id": new_id(IdKind.UPLOAD), "campaign_id": new_id(IdKind.CAMPAIGN), "enrolment_id": "e"}
data = spool.begin(names["upload_id"])
os.close(os.open(data, os.O_RDWR | os.O_CREAT | os.O_EXCL, shared(data.parent, 0o600)))
at = "2026-11-21T17:00:00.000+08:00"
record = {**names, "size": 0, "sha256": "0" * 64, "key_fingerprint": "f", "peer": "192.0.2.1"}
spool.accept(Sidecar(**record, file_name="people.csv", received_at=at))
about = {"campaign_id": names["campaign_id"], "enrolment_id": "e", "key_fingerprint": "f", "peer": "192.0.2.1"}
spool.tell(Event(kind=EventKind.LOGIN, event_id=new_id(IdKind.UPLOAD), at=at, **about))
"""
TAKE_IN = """
spool.prepare()
write_keyring(home / "gate" / "keyring.json", Keyring())
for upload_id in spool.waiting():
    sidecar, data = spool.read(upload_id)
    data.read_bytes()
    seen = RecentUpload(file_name="people.csv", size=0, received_at=sidecar.received_at)
    spool.remember(sidecar.campaign_id, upload_id, seen)
    spool.finish(upload_id)
    print(upload_id)
for path, event in spool.pending_events():
    path.unlink()
    print(event.kind)
"""
READ_KEYRING = "print((home / 'gate' / 'keyring.json').read_text())"


def run(user: int, code: str, home: Path, group: int = GROUP) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", BECOME + code, home, str(user), str(group)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def home() -> Iterator[Path]:
    """What deploy/systemd/postern.tmpfiles.conf makes, where everybody may pass: pytest's own folders are root's."""
    with TemporaryDirectory(prefix="postern-two-users-") as folder:
        home = Path(folder)
        home.chmod(0o750)
        os.chown(home, GATE, GROUP)
        for name in ("gate", "spool", "run"):
            (home / name).mkdir()
            os.chown(home / name, GATE, GROUP)
            (home / name).chmod(0o2770)
        yield home


def test_intake_takes_in_what_another_user_accepted(home: Path) -> None:
    """Bytes, record and event are read and removed; the gate reads the keyring that intake wrote."""
    accepted = run(GATE, ACCEPT, home)
    assert accepted.returncode == 0, accepted.stderr
    taken = run(INTAKE, TAKE_IN, home)
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout.split()[1:] == ["login"]
    assert list((home / "spool" / "accepted").iterdir()) == []
    assert run(GATE, READ_KEYRING, home).returncode == 0
    again = run(GATE, ACCEPT, home)  # beside what intake has made
    assert again.returncode == 0, again.stderr


def test_nobody_else_sees_any_of_it(home: Path) -> None:
    """Neither a stranger nor the files' modes let anybody in."""
    assert run(GATE, ACCEPT, home).returncode == 0
    assert run(STRANGER, TAKE_IN, home, group=STRANGER).returncode != 0
    modes = {path.stat().st_mode & 0o007 for path in (home / "spool").rglob("*")}
    assert modes == {0}
