"""Gate and intake as two users of one group, on a spool whose folders hand their group on: see docs/operations.md."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncssh
import pytest
from integration.gate_fixtures import GOOD, make_key
from support.domain import add_campaign, enrol
from support.waiting import until

from postern.running import announcement
from storage.database import Database
from storage.ledger.enrolments import EnrolledKey, NewKey
from storage.ledger.uploads import list_uploads

pytest_plugins = ["support.databases"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

GATE, INTAKE, STRANGER, GROUP = 41001, 41002, 41003, 41000

# Imports first: the interpreter itself may lie where only root can read.
BECOME = """
import asyncio, json, os, sys
from pathlib import Path
from keys.keyring import Keyring, write_keyring
from postern.model import IdKind, new_id
from storage.spool import Spool, shared
from storage.spool_records import Event, EventKind, RecentUpload, Sidecar
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
# The real command, as systemd starts it with UMask=: what a role loads is loaded before, see above.
RUN_ROLE = """
import encodings.idna, os, sys
import dbos, psycopg, sqlalchemy.dialects.postgresql.psycopg, typer.main
import pipeline.intake, postern.cli.app, postern.cli.gates, sftpd.server, storage.blobs, storage.engine
import storage.local, storage.migrate
from postern.cli import main
user, group, umask = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 8)
os.setgroups([])
os.setgid(group)
os.setuid(user)
os.umask(umask)
sys.argv = ["postern", sys.argv[4]]
main()
"""
READ_KEYRING = "print((home / 'gate' / 'keyring.json').read_text())"


def run(user: int, code: str, home: Path, group: int = GROUP) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", BECOME + code, home, str(user), str(group)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def role(name: str, user: int, home: Path, umask: str = "0007", **settings: str) -> Iterator[None]:
    """A role of its own user, from when it is ready; it has ended in order after the block."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("POSTERN_")}
    environ = {**plain, "POSTERN_HOME": str(home), **settings}
    command = [sys.executable, "-P", "-c", RUN_ROLE, str(user), str(GROUP), umask, name]
    log = home / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
    try:
        until(lambda: announcement(home / "run", name) or process.poll() is not None, f"the {name}")
        assert process.poll() is None, log.read_text()
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def enrolled(database: Database, key: Path) -> EnrolledKey:
    """A new key pair in that file, enrolled."""
    public = asyncssh.read_public_key(make_key(key).with_suffix(".pub"))
    kind, data = public.export_public_key().decode().split()[:2]
    fingerprint = public.get_fingerprint()
    new = NewKey(type=kind, bits=256, public_key=f"{kind} {data}", comment="", fingerprint=fingerprint)
    return enrol(database, add_campaign(database), new_keys=[new], expires_at=None)


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    """The ledger."""
    database = Database(postgresql_url)
    yield database
    database.dispose()


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


def test_the_roles_work_as_two_users(home: Path, tmp_path: Path, postgresql_url: str, database: Database) -> None:
    """By their commands, under the umask of their units: the gate reads intake's keyring, intake the gate's upload."""
    blobs = home / "blobs"  # S3 in earnest
    for folder, owner, bits in ((home / "gate" / "host_keys", GATE, 0o700), (blobs, INTAKE, 0o700)):
        folder.mkdir()
        os.chown(folder, owner, GROUP)
        folder.chmod(bits)
    key = enrolled(database, tmp_path / "key")
    stores = {"POSTERN_DATABASE_URL": postgresql_url, "POSTERN_BLOB_URL": f"file://{blobs}"}
    gate = {"POSTERN_SFTP_HOST": "127.0.0.1", "POSTERN_SFTP_PORT": "0", "POSTERN_DISK_RESERVE": "0"}
    people = tmp_path / "people.csv"
    people.write_bytes(GOOD)
    with ExitStack() as roles:
        roles.enter_context(role("intake", INTAKE, home, **stores))
        until((home / "gate" / "keyring.json").exists, "the keyring")
        roles.enter_context(role("gate", GATE, home, **gate))
        told = announcement(home / "run", "gate")
        assert told is not None
        options = ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        command = ["sftp", "-b", "-", "-F", "/dev/null", "-P", str(told["port"]), "-i", str(tmp_path / "key")]
        command += [part for option in options for part in ("-o", option)]
        put = subprocess.run(
            [*command, f"{key.campaign_id}@127.0.0.1"],
            input=f"put {people}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert put.returncode == 0, put.stderr
        until(lambda: list_uploads(database), "the upload in the ledger")
        until(lambda: not any((home / "spool" / "accepted").iterdir()), "the spool to be empty")
        (upload,) = list_uploads(database)
    assert (blobs / str(upload.blob_key)).read_bytes() == GOOD
    assert mode(home / "gate" / "keyring.json") == 0o660
    private = [path for path in (home / "gate" / "host_keys").iterdir() if path.is_file()]
    assert private
    assert {mode(path) for path in private} == {0o600}


@pytest.mark.parametrize(("inherited", "kept"), [("0007", 0o660), ("0077", 0o600), ("0022", 0o600), ("0027", 0o640)])
def test_a_mask_is_kept_if_it_shuts_others_out(home: Path, postgresql_url: str, inherited: str, kept: int) -> None:
    """Otherwise what a role writes is its owner's alone."""
    with role("intake", INTAKE, home, inherited, POSTERN_DATABASE_URL=postgresql_url):
        until((home / "gate" / "keyring.json").exists, "the keyring")
    assert mode(home / "gate" / "keyring.json") == kept
