"""Many hosts: two gates with an intake each, workers and webs that share only database, blob store and secret key."""

import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.hosts import PATIENCE, Part, Site, Surroundings, many_hosts, wait_for
from support.outside import Outside
from support.postgresql import Cluster
from support.s3 import ENVIRON, Store
from support.zeros import check, is_all_done, make_files

from postern.settings import GateSettings

pytest_plugins = ["support.databases", "support.stores"]

WORKERS = 2


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    """A mail server."""
    with Outside() as outside:
        yield outside


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: Cluster,
    migrated_template: str,
    s3_server: Store,
    outside: Outside,
) -> Iterator[Site]:
    """All of them, running, and two campaigns; at the end they must leave in order."""
    name = postgresql.create(template=migrated_template)
    reached = Surroundings(
        database_url=postgresql.url(name),
        blob_url=s3_server.new_url(),
        s3_endpoint=s3_server.endpoint,
        s3_credentials=ENVIRON,
        smtp_url=outside.smtp_url,
    )
    with many_hosts(tmp_path_factory.mktemp("hosts"), reached, workers=WORKERS).running() as site:
        for campaign in ("first", "second"):
            site.enrolled(campaign, rate=50)
        yield site
    postgresql.drop(name)


def test_uploads_through_two_gates_come_to_one_outcome_each(site: Site, outside: Outside, tmp_path: Path) -> None:
    """Twelve at once, a third of them bad: each judged, mailed and sent once; every web has every report."""
    files = make_files(tmp_path / "files", list(site.keys), 12, rows=20, one_bad_in=3)
    gates = site.of("gate")
    with ThreadPoolExecutor(6) as pool:
        # Each campaign's files go through both gates.
        list(pool.map(lambda n: site.put(gates[n // 2 % 2], files[n].campaign_id, files[n].path), range(12)))
    wait_for("everything to be done", lambda: is_all_done(site, files))
    check(site, files, outside.mailbox.mails)

    reports = [urlsplit(url) for (url,) in site.query("SELECT report_url FROM uploads WHERE status = 'rejected'")]
    assert len(reports) == 4
    for web in site.of("web"):
        address = f"http://127.0.0.1:{web.port('web')}"
        assert _status(f"{address}/readyz") == 200
        for report in reports:
            assert _status(f"{address}{report.path}?{report.query}") == 200
            assert _status(f"{address}{report.path}?{report.query[:-3]}AAA") == 403

    taken = [(host.home / "spool" / "recent").rglob("*.json") for host in gates]
    assert [len(list(found)) for found in taken] == [6, 6], "a session sees what came through its own gate host"
    health = {
        part.name: {line["check"]: line for line in site.postern("doctor", "--role", part.role, as_part=part)["lines"]}
        for part in (site.part("worker-1"), site.part("web-2"))
    }
    assert [line for lines in health.values() for line in lines.values() if line["status"] == "wrong"] == []
    assert health["worker-1"]["secret key"]["detail"] == health["web-2"]["secret key"]["detail"]


def test_a_gate_among_many_holds_nothing_of_the_others(site: Site) -> None:
    """Each role was told what it needs: the secret key is with workers and webs, the gate has settings of its own."""
    told = {part.name: _environ_of(part) for part in site.parts}
    for name in ("gate-1", "gate-2"):
        assert {variable for variable in told[name] if variable.startswith("POSTERN_")} <= set(GateSettings.variables())
        assert not any(variable.startswith("AWS_") for variable in told[name])
    holders = {name.partition("-")[0] for name, environ in told.items() if "POSTERN_SECRET_KEY" in environ}
    assert holders == {"worker", "web"}
    assert not list(site.folder.rglob("secret.key"))


def test_the_same_bytes_through_two_gates_at_once_go_on_once(site: Site, tmp_path: Path) -> None:
    """The lock on the campaign is one for all hosts."""
    (file,) = make_files(tmp_path / "files", list(site.keys), 1, rows=5, one_bad_in=2, start=101)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda gate: site.put(gate, file.campaign_id, file.path), site.of("gate")))
    statement = f"SELECT status FROM uploads WHERE file_name = '{file.path.name}' ORDER BY status"
    wait_for("one to go on", lambda: site.query(statement) == [("accepted",), ("held",)])


def test_an_upload_that_lies_on_two_hosts_is_one(site: Site, outside: Outside, tmp_path: Path) -> None:
    """A spool that was copied with its host: whichever intake comes second finds the upload in the ledger."""
    files = make_files(tmp_path / "files", list(site.keys), 1, rows=5, one_bad_in=2, start=103)
    spools = [part.home / "spool" for part in site.of("gate")]
    intakes = site.of("intake")
    for intake in intakes:
        intake.send(signal.SIGSTOP)
    try:
        site.put(site.part("gate-1"), files[0].campaign_id, files[0].path)
        (upload,) = (spools[0] / "accepted").iterdir()
        shutil.copytree(upload, spools[1] / "accepted" / upload.name)
    finally:
        for intake in intakes:
            intake.send(signal.SIGCONT)
    wait_for("both spools to be empty", lambda: not any(list((spool / "accepted").iterdir()) for spool in spools))
    assert not any(list((spool / "quarantine").iterdir()) for spool in spools)
    wait_for("everything to be done", lambda: is_all_done(site, files))
    check(site, files, outside.mailbox.mails)


def test_a_key_is_enrolled_and_revoked_once_for_all_gates(site: Site) -> None:
    """Within seconds on both, which have the same host keys; sessions that are open on either are ended."""
    campaign = site.enrolled("revoked")  # waits until both let it in
    gates = site.of("gate")
    sessions = [
        subprocess.Popen(
            [word for word in site.sftp(gate, campaign) if word not in {"-b", "-"}],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for gate in gates
    ]  # fmt: skip
    try:
        for session in sessions:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write(b"pwd\n")
            session.stdin.flush()
            said = b""
            while b"Remote working directory" not in said:  # until then it may still be logging in
                said = session.stdout.readline()
                assert said, "the session ended"
        (key,) = site.postern("key", "list", "--campaign", campaign)
        site.postern("key", "revoke", key["fingerprint"], "--reason", "lost")
        for gate in gates:
            wait_for(f"{gate.name} to refuse it", lambda gate=gate: not site.gets_in(gate, campaign), 10)
            wait_for(f"{gate.name} to end its session", lambda gate=gate: _has_ended(gate, campaign), 10)
    finally:
        for session in sessions:
            session.kill()
            session.communicate()


def test_host_keys_are_rotated_on_one_gate_and_copied_to_the_other(site: Site) -> None:
    """The next keys are copied, then each gate takes them: clients know both by the same keys all the time."""
    first, second = site.of("gate")
    coming = [key for key in site.postern("host-key", "rotate", as_part=first) if key["state"] == "next"]
    folders = [gate.home / "gate" / "host_keys" for gate in (first, second)]
    shutil.copytree(folders[0] / "next", folders[1] / ".copied")
    (folders[1] / ".copied").rename(folders[1] / "next")
    for gate in (first, second):
        wait_for(f"{gate.name} to announce them", lambda gate=gate: '"announced": 6' in gate.log.read_text(), 10)
    site.trust(coming)
    for gate in (first, second):
        assert not site.gets_in(gate, next(iter(site.keys))), "a client took keys that are not used yet"
        used = site.postern("host-key", "rotate", "--finish", as_part=gate)
        assert [key["fingerprint"] for key in used] == [key["fingerprint"] for key in coming]
        wait_for(f"{gate.name} to use them", lambda gate=gate: site.gets_in(gate, next(iter(site.keys))), 10)


def test_a_host_and_a_worker_that_are_killed_lose_nothing(site: Site, outside: Outside, tmp_path: Path) -> None:
    """kill -9 of a gate and its intake with uploads in the spool, and of a worker in the middle of sending."""
    files = make_files(tmp_path / "files", list(site.keys)[:2], 8, rows=60, one_bad_in=4, start=200)
    gate, intake = site.part("gate-1"), site.part("intake-1")
    workers = site.of("worker")
    intake.send(signal.SIGSTOP)
    for file in files[:3]:
        site.put(gate, file.campaign_id, file.path)
    for part in (gate, intake):
        part.send(signal.SIGKILL)
    waiting = [path.name for path in (gate.home / "spool" / "accepted").iterdir()]
    assert len(waiting) == 3
    for file in files[3:]:
        site.put(site.part("gate-2"), file.campaign_id, file.path)
    sent = "SELECT count(*) FROM simulator_journal WHERE recipient IN ({})".format(
        ", ".join(f"'{recipient}'" for file in files for recipient in file.recipients)
    )
    wait_for("messages to leave", lambda: site.query(sent)[0][0] > 20)
    worker = wait_for("a worker to send them", lambda: _sender(site))
    worker.send(signal.SIGKILL)
    wait_for("another one to take over", lambda: any("worker.taken_over" in one.log.read_text() for one in workers))
    assert [row[0] for row in site.query(f"SELECT id FROM uploads WHERE id IN ({_quoted(waiting)})")] == []
    for part in (gate, intake, worker):
        part.start()
    for part in (gate, intake, worker):
        part.until_ready()
    wait_for("everything to be done", lambda: is_all_done(site, files))
    check(site, files, outside.mailbox.mails, killed=True)


def _sender(site: Site) -> Part | None:
    """A worker that runs a chunk of a batch, by the lock that it holds on its executor id."""
    found = site.query(
        "SELECT session.application_name FROM dbos.workflow_status AS job "
        "JOIN pg_locks ON locktype = 'advisory' AND granted "
        "AND (classid::bigint << 32 | objid::bigint) = hashtextextended(job.executor_id, 0) "
        "JOIN pg_stat_activity AS session ON session.pid = pg_locks.pid "
        "WHERE job.status = 'PENDING' AND job.queue_name = 'batch'"
    )
    return site.part(found[0][0]) if found else None


def _environ_of(part: Part) -> dict[str, str]:
    entries = os.fsdecode(Path(f"/proc/{part.pid}/environ").read_bytes()).split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def _has_ended(gate: Part, campaign: str) -> bool:
    lines = gate.log.read_text().splitlines()
    return any("connection.ended" in line and "key_revoked" in line and campaign in line for line in lines)


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
