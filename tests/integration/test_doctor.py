"""`postern doctor`: what is well and what is not, with real servers behind it; it never hangs and tells no secret."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from support.domain import add_campaign, change, enrol, new_upload
from support.s3 import ENVIRON, Store

import storage.migrate
from postern.cli.findings import Status, clock, room
from postern.model import IdKind, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.receiving import receive_upload
from storage.migrate import migrate
from storage.tables import uploads

pytest_plugins = ["support.databases", "support.stores"]

POSTERN = Path(sys.executable).with_name("postern")
PASSWORD = "hunter2"


def run(home: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "POSTERN_HOME": str(home), **settings}
    command = [str(POSTERN), "doctor", *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def lines(home: Path, *options: str, status: int, **settings: str) -> dict[str, dict[str, Any]]:
    """What it says as JSON, by check; every line that is not well has an advice, and the exit status fits."""
    result = run(home, "--json", *options, **settings)
    assert result.returncode == status, result.stderr or result.stdout
    document = json.loads(result.stdout)
    found = {line["check"]: line for line in document["lines"]}
    assert document["isWell"] == (status == 0) == all(line["status"] == "ok" for line in found.values())
    assert all(line["advice"] for line in found.values() if line["status"] != "ok")
    return found


@pytest.fixture
def home(tmp_path: Path, sqlite_url: str) -> Path:
    """A home with a migrated database, and a gate that knows its keys."""
    home = tmp_path / "home"
    for folder in ("gate", "spool/accepted", "spool/events", "spool/quarantine"):
        (home / folder).mkdir(parents=True)
    (home / "gate" / "keyring.json").write_text("{}")
    (home / "secret.key").write_text("A" * 43 + "=")
    (home / "secret.key").chmod(0o600)
    return home


@pytest.fixture
def database(home: Path, sqlite_url: str) -> Iterator[Database]:
    """The database under home."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@contextmanager
def silence() -> Iterator[int]:
    """A server that takes connections and never says a word; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_home_that_nobody_has_used_is_well(tmp_path: Path) -> None:
    """What is made on first start is not missed, and nothing is made."""
    assert lines(tmp_path / "new", status=0)["database"]["detail"].endswith("it is made on first start")
    assert not (tmp_path / "new").exists()


def test_all_is_well_on_one_machine(home: Path) -> None:
    """Every line says what it found, for programs and for people."""
    found = lines(home, status=0)
    assert {"version", "disk of home", "secret.key", "spool", "keyring", "blobs", "mail", "provider"} <= set(found)
    assert {"database", "migrations", "uploads", "mails", "dead jobs"} <= set(found)
    assert found["migrations"]["detail"] == f"revision {storage.migrate.HEAD}"
    for_people = run(home)
    assert (for_people.returncode, "All is well" in for_people.stdout) == (0, True)


def test_all_is_well_with_servers(tmp_path: Path, postgresql_url: str, s3: Store) -> None:
    """PostgreSQL, S3 and SMTP are really asked; no mail is sent and no probe stays."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(Sink(), hostname="127.0.0.1", port=port)
    server.start()
    url = s3.new_url()
    try:
        found = lines(
            tmp_path,
            status=0,
            POSTERN_DATABASE_URL=postgresql_url,
            POSTERN_BLOB_URL=url,
            POSTERN_S3_ENDPOINT_URL=s3.endpoint,
            POSTERN_SMTP_URL=f"smtp://127.0.0.1:{port}?starttls=never",
            **ENVIRON,
        )
    finally:
        server.stop()
    assert found["database"]["detail"].startswith("PostgreSQL 1")
    assert found["blobs"]["detail"] == f"{url}: put, read and removed a probe"
    assert found["mail"]["detail"] == f"127.0.0.1:{port}"
    assert found["clock of the database"]["detail"] == found["clock of the blob store"]["detail"]
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket, Prefix=prefix)


def test_what_is_away_is_told_with_what_to_do(tmp_path: Path) -> None:
    """All of it at once, and without a password."""
    result = run(
        tmp_path,
        POSTERN_DATABASE_URL=f"postgresql://postern:{PASSWORD}@127.0.0.1:1/postern",
        POSTERN_BLOB_URL="s3://bucket",
        POSTERN_S3_ENDPOINT_URL="http://127.0.0.1:1",
        POSTERN_SMTP_URL=f"smtp://user:{PASSWORD}@127.0.0.1:1",
        **(ENVIRON | {"AWS_SECRET_ACCESS_KEY": PASSWORD}),
    )
    assert result.returncode == 1
    assert result.stdout.count("✗") == 3
    assert result.stdout.count("→ See that it runs") == 3
    assert PASSWORD not in result.stdout + result.stderr


def test_it_does_not_hang_where_a_server_does(tmp_path: Path) -> None:
    """Each check has a time limit, and so has the command."""
    with silence() as port:
        began = time.monotonic()
        found = lines(
            tmp_path,
            "--timeout",
            "1",
            status=1,
            POSTERN_DATABASE_URL=f"postgresql://postern@127.0.0.1:{port}/postern",
            POSTERN_BLOB_URL="s3://bucket",
            POSTERN_S3_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            POSTERN_SMTP_URL=f"smtp://127.0.0.1:{port}",
            **ENVIRON,
        )
        assert time.monotonic() - began < 15  # against the half minute and more that the servers would be waited for
    silent = [name for name, line in found.items() if line["detail"] == "no answer within 1 s"]
    assert sorted(silent) == ["blobs", "database", "mail"]


def test_a_store_that_refuses_says_what_to_mend(tmp_path: Path, s3: Store) -> None:
    """The advice is that of the store's answer."""
    found = lines(
        tmp_path, status=1, POSTERN_BLOB_URL="s3://nobody-made-it", POSTERN_S3_ENDPOINT_URL=s3.endpoint, **ENVIRON
    )
    assert "Make the bucket, or mend POSTERN_BLOB_URL" in found["blobs"]["detail"]


def test_a_database_of_another_shape_is_told(
    home: Path, postgresql_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older: with the command; newer: it is used, but not for ever."""
    server = Database(postgresql_url)
    for revision, status, advice in (("0001", "wrong", "Run: postern db migrate"), ("9999", "warning", "upgrade")):
        with server.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :new"), {"new": revision})
        line = lines(home, status=1, POSTERN_DATABASE_URL=postgresql_url)["migrations"]
        assert (line["status"], revision in line["detail"], advice in line["advice"]) == (status, True, True)
    server.dispose()


def test_a_secret_that_others_can_read_is_told(home: Path) -> None:
    """Of the key and of the settings, with the command that mends it."""
    (home / "postern.env").write_text("POSTERN_LOG_LEVEL=INFO\n")
    (home / "postern.env").chmod(0o640)
    (home / "secret.key").chmod(0o644)
    found = lines(home, status=1)
    for name in ("secret.key", "postern.env"):
        assert found[name]["advice"] == f"chmod 600 {home / name}"


def test_a_key_that_is_none_is_told(home: Path) -> None:
    """It could neither sign nor seal."""
    (home / "secret.key").write_text("too short")
    assert "POSTERN_SECRET_KEY" in lines(home, status=1)["secret key"]["detail"]


def test_uploads_that_nobody_takes_in_are_told(home: Path) -> None:
    """Those of the spool that wait for long, and each that was set aside."""
    waits = home / "spool" / "accepted" / new_id(IdKind.UPLOAD)
    waits.mkdir()
    assert lines(home, status=0)["spool"]["detail"].startswith("1 uploads")
    (home / "spool" / "quarantine" / "anything").mkdir()
    old = time.time() - 3600
    os.utime(waits, (old, old))
    found = lines(home, status=1)
    assert [found[name]["status"] for name in ("spool", "spool events", "quarantine")] == ["warning", "ok", "warning"]
    assert "intake" in found["spool"]["advice"]


def test_uploads_that_nobody_judges_are_told(home: Path, database: Database) -> None:
    """By their age, and by that of their jobs' queue."""
    jobs = Jobs(database.url)
    upload = new_upload(enrol(database, add_campaign(database)))
    receive_upload(database, jobs, upload)
    jobs.close()
    change(database, uploads, upload.id, received_at=datetime.now(UTC))
    assert lines(home, status=0)["uploads"]["detail"].startswith("1 waiting")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    change(database, uploads, upload.id, received_at=hour_ago)
    with database.write() as connection:
        created = {"at": int(hour_ago.timestamp() * 1000)}
        connection.execute(sa.text("UPDATE workflow_status SET created_at = :at"), created)
    found = lines(home, status=1)
    assert [found[name]["status"] for name in ("uploads", "queue files", "mails")] == ["warning", "warning", "ok"]


def test_jobs_that_were_given_up_are_told(home: Path, database: Database) -> None:
    """By their kind."""
    jobs = Jobs(database.url)
    receive_upload(database, jobs, new_upload(enrol(database, add_campaign(database))))
    jobs.close()
    with database.write() as connection:
        connection.execute(sa.text("UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'"))
    line = lines(home, status=1)["dead jobs"]
    assert (line["status"], line["detail"]) == ("wrong", "1 (process_upload)")


def test_the_doctor_of_a_gate_looks_at_nothing_behind_it(tmp_path: Path) -> None:
    """It has no settings for that, not even where they are in the environment."""
    found = lines(tmp_path, "--role", "gate", status=0, POSTERN_DATABASE_URL=f"mysql://u:{PASSWORD}@db")
    assert set(found) == {"version", "disk of home", "spool", "keyring"}


def test_a_keyring_that_intake_does_not_look_at_is_told(home: Path) -> None:
    """It is written only when keys change, so intake says beside it that it is still true."""
    keyring, checked = home / "gate" / "keyring.json", home / "gate" / "keyring.checked"
    old = time.time() - 3600
    os.utime(keyring, (old, old))
    line = lines(home, "--role", "gate", status=1)["keyring"]
    assert (line["status"], "compared with the database 60 min ago" in line["detail"]) == ("warning", True)
    assert "See that intake runs on this host" in line["advice"]
    checked.touch()
    assert "written 60 min ago" in lines(home, "--role", "gate", status=0)["keyring"]["detail"]
    os.utime(checked, (old, old))
    assert lines(home, "--role", "gate", status=1)["keyring"]["status"] == "warning"


def test_variables_that_nobody_reads_are_told(home: Path) -> None:
    """Of the environment and of the file, with the setting that was meant, and never with a value."""
    (home / "postern.env").write_text(f"POSTERN_SMPT_URL=smtp://u:{PASSWORD}@mail\nAWS_REGION=eu-west-1\n")
    (home / "postern.env").chmod(0o600)
    line = lines(home, status=1, POSTERN_FUZZ_EXAMPLES=PASSWORD, POSTERN_LOG_LEVEL="INFO")["settings"]
    assert (line["status"], PASSWORD in str(line)) == ("wrong", False)
    assert line["detail"] == (
        "POSTERN_FUZZ_EXAMPLES is no setting. POSTERN_SMPT_URL is no setting; did you mean POSTERN_SMTP_URL?"
    )


def test_settings_that_cannot_be_used_exit_2(tmp_path: Path) -> None:
    """All of them are named, as at the start of a role."""
    result = run(tmp_path, POSTERN_TIMEZONE="Mars", POSTERN_BLOB_URL="ftp://x")
    assert result.returncode == 2
    assert "POSTERN_TIMEZONE" in result.stderr
    assert "POSTERN_BLOB_URL" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_home_of_another_user_is_left_alone(tmp_path: Path) -> None:
    """Files of root's in it would keep the roles from working."""
    os.chown(tmp_path, 65534, 65534)
    result = run(tmp_path)
    assert (result.returncode, "Run it as that user: runuser -u nobody" in result.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("offset", "width", "status"),
    [(-1, 0, "ok"), (1.5, 0, "ok"), (-2.5, 1, "ok"), (-5, 1, "warning"), (5, 1, "warning")],
)
def test_a_clock_may_differ_by_two_seconds(offset: float, width: float, status: str) -> None:
    """More is told, also where the other one tells whole seconds only."""
    now = datetime.now(UTC)
    line = clock("clock", now, now + timedelta(seconds=offset), timedelta(seconds=width))
    assert line.status == status
    assert (line.status is Status.OK) == (line.advice == "")


def test_room_is_told_before_it_runs_out(tmp_path: Path) -> None:
    """A warning near the reserve, and wrong below it, where uploads are refused."""
    stat = os.statvfs(tmp_path)
    free = stat.f_bavail * stat.f_frsize
    found = [room("disk", tmp_path, int(free * part)).status for part in (0.1, 0.7, 1.5)]
    assert found == [Status.OK, Status.WARNING, Status.WRONG]


def test_migrated_databases_only_are_looked_into(home: Path, tmp_path: Path) -> None:
    """Where the shape is another, what waits cannot be known and is not asked."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage.migrate, "HEAD", "0001")
        older = Database(f"sqlite:///{tmp_path / 'older.db'}")
        migrate(older)
        older.dispose()
    found = lines(home, status=1, POSTERN_DATABASE_URL=f"sqlite:///{tmp_path / 'older.db'}")
    assert found["migrations"]["status"] == "wrong"
    assert "uploads" not in found
