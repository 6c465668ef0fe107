"""A Postern for a test or a module of them: the installed console script, a scratch home, free ports, stock clients.

Starts and stops its own processes, and ends them by id only.
"""

import email
import email.policy
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

from support.looks import look_into
from support.spools import upload_folders

from postern.model import IdKind, derived_id

T = TypeVar("T")

POSTERN = Path(sys.executable).with_name("postern")
ROLES = ("gate", "intake", "worker", "web")
FINAL = {"success", "failure"}
PATIENCE = 60.0  # seconds

CAMPAIGN = {
    "name": "Passport collection",
    "agency": "Immigration Office",
    "templates": {
        "english": "Dear {{recipient_name}}, your {{topic}} is ready.",
        "chinese": "{{recipient_name}}您好，您的{{topic}}已准备好。",
    },
    "rate": 500,
}


def until(what: str, condition: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Wait for a condition; its first truthy value."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {patience:g} s for {what}")


class Installation:
    """Postern under one scratch home."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.log = folder / "postern.log"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
        self.environ = plain | {
            "POSTERN_HOME": str(self.home),
            "POSTERN_SFTP_HOST": "127.0.0.1",
            "POSTERN_SFTP_PORT": "0",
            "POSTERN_HTTP_PORT": "0",
            **settings,
        }
        self.serve: subprocess.Popen[bytes] | None = None
        self._campaigns: list[str] = []

    def begin(self, folder: Path) -> None:
        """Begin another test, with a folder of its own; it sees nothing of campaigns that others made."""
        self.folder = folder
        self._campaigns = []

    # Processes

    @contextmanager
    def serving(self) -> Iterator["Installation"]:
        """`postern serve`, ready, until the block ends; it must then leave with status 0."""
        self.start()
        try:
            yield self
            assert self.stop() == 0, self.log.read_text()
        except BaseException:
            print(self.log.read_text()[-20_000:])
            raise
        finally:
            self._end_all()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.serve = subprocess.Popen([POSTERN, "serve"], env=self.environ, stdout=log, stderr=log)
        until("all roles to be ready", lambda: all(self.announcement(role) for role in ROLES))

    def stop(self) -> int:
        assert self.serve is not None
        self.serve.send_signal(signal.SIGTERM)
        return self.serve.wait(PATIENCE)

    def announcement(self, role: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.home / "run" / f"{role}.json").read_text())
        except (OSError, ValueError):
            return None
        return found if _is_running(found["pid"]) else None

    def pid(self, role: str) -> int:
        return int(until(f"{role} to be ready", lambda: self.announcement(role))["pid"])

    def kill(self, role: str) -> int:
        """SIGKILL a role; returns the id that it had."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        until(f"{role} to be dead", lambda: not _is_running(pid))
        return pid

    def _end_all(self) -> None:
        pids = [found["pid"] for role in ROLES if (found := self.announcement(role))]
        if self.serve is not None and self.serve.poll() is None:
            self.serve.kill()
            self.serve.wait()
        for pid in pids:
            if _is_running(pid) and b"postern" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    # The operator

    def postern(self, *arguments: str) -> Any:
        """Run a command with `--json`; it must succeed."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [POSTERN, *arguments], env=self.environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def new_campaign(self, **changes: Any) -> str:
        path = self.folder / "campaign.json"
        path.write_text(json.dumps(CAMPAIGN | changes), encoding="utf-8")
        self._campaigns.append(self.postern("campaign", "create", str(path))["id"])
        return self._campaigns[-1]

    def new_key(self, name: str = "key", kind: str = "ed25519") -> Path:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
        return path

    def enrol(self, campaign_id: str, key: Path, email_address: str = "owner@agency.example") -> dict[str, Any]:
        found: dict[str, Any] = self.postern("key", "enrol", campaign_id, f"{key}.pub", "--email", email_address)[0]
        return found

    def enrolled(self, **changes: Any) -> tuple[str, Path]:
        """A campaign and a key that the gate knows."""
        campaign_id, key = self.new_campaign(**changes), self.new_key()
        self.enrol(campaign_id, key)
        until("the gate to know the key", lambda: self.sftp(campaign_id, key, "ls").returncode == 0)
        return campaign_id, key

    # The batch job

    def client(self, *command: str | Path, key: Path) -> list[str | Path]:
        known_hosts = self.home.with_name("known_hosts")
        port = self.announcement("gate")["port"]  # type: ignore[index]
        if not known_hosts.exists():
            lines = [f"* {found['publicKey']}" for found in self.postern("host-key", "show")]
            known_hosts.write_text("\n".join(lines) + "\n")
        program, *rest = command
        return [
            program, "-P", str(port), "-i", key, "-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known_hosts}", *rest,
        ]  # fmt: skip

    def sftp(
        self, user: str, key: Path, *lines: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = self.client("sftp", "-b", "-", *options, f"{user}@127.0.0.1", key=key)
        return subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=PATIENCE,
            cwd=self.folder, check=False,
        )  # fmt: skip

    def scp(self, user: str, key: Path, file: Path) -> subprocess.CompletedProcess[str]:
        command = self.client("scp", file, f"{user}@127.0.0.1:", key=key)
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def put(self, campaign_id: str, key: Path, content: str | bytes, name: str = "recipients.csv") -> None:
        """Put a file with the stock client; it must exit 0."""
        self.write(content, name)
        result = self.sftp(campaign_id, key, f"put {name}")
        assert result.returncode == 0, result.stderr

    def write(self, content: str | bytes, name: str = "recipients.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    # What came of it

    def uploads(self) -> list[dict[str, Any]]:
        return [upload for upload in self.postern("upload", "list") if upload["campaignId"] in self._campaigns]

    def batches(self) -> list[dict[str, Any]]:
        return [batch for batch in self.postern("batch", "list") if batch["campaignId"] in self._campaigns]

    def outcome(self, count: int = 1) -> dict[str, Any]:
        """The newest upload, once so many have their outcome."""
        finished = f"SELECT count(*), count(finished_at) FROM uploads WHERE campaign_id IN ({self._ours})"
        until("the outcome of the upload", lambda: self.query(finished) == [(count, count)])
        return self.uploads()[0]

    def mails(self) -> list[EmailMessage]:
        found = sorted((self.home / "mail").glob("*.eml"))
        mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in found]
        others = self.query(f"SELECT id FROM uploads WHERE campaign_id NOT IN ({self._ours})")
        return [mail for mail in mails if not any(upload_id in mail["Message-ID"] for (upload_id,) in others)]

    def mail_about(self, upload: dict[str, Any]) -> EmailMessage:
        def arrived() -> EmailMessage | None:
            return next((mail for mail in self.mails() if upload["id"] in str(mail["Message-ID"])), None)

        return until("the outcome mail", arrived)

    def final_batch(self, batch_id: str) -> dict[str, Any]:
        """A batch, once all of its messages are final."""
        finished = (
            f"SELECT 1 FROM batches WHERE id = '{batch_id}' AND total = (SELECT count(*) FROM messages "
            "WHERE batch = batches.number AND latest_status IN ('success', 'failure'))"
        )
        until("every message to be final", lambda: self.query(finished), patience=120)
        batch: dict[str, Any] = self.postern("batch", "show", batch_id)
        return batch

    @property
    def _ours(self) -> str:
        return ", ".join(f"'{campaign_id}'" for campaign_id in ("", *self._campaigns))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Look straight into the database."""
        url = self.environ.get("POSTERN_DATABASE_URL", f"sqlite:///{self.home / 'postern.db'}")
        return look_into(url, statement)

    def handovers(self) -> Counter[str]:
        """How often each message was handed to the provider, by the simulator's own journal."""
        found = Counter(message for (message,) in self.query("SELECT message_id FROM simulator_journal"))
        others = f"SELECT id, first_row, last_row FROM batches WHERE campaign_id NOT IN ({self._ours})"
        for batch_id, first, last in self.query(others):
            for row in range(first, last + 1):
                found.pop(derived_id(IdKind.MESSAGE, batch_id, str(row)), None)
        return found

    def left_in_spool(self) -> list[str]:
        spool = self.home / "spool"
        return [path.name for folder in ("incoming", "accepted") for path in upload_folders(spool / folder)]


def json_line(mail: EmailMessage) -> list[str]:
    """The lines of the plain text that are JSON documents."""
    body = mail.get_body(("plain",))
    assert body is not None
    return [line for line in body.get_content().splitlines() if line.startswith("{")]


def good_file(rows: int) -> str:
    """A valid file."""
    lines = ["recipient,language,recipient_name,topic"]
    for row in range(rows):
        language, name = ("chinese", "陈伟明") if row % 3 == 0 else ("english", "Emily Yeo")
        lines.append(f"65{8 + row % 2}{row:07},{language},{name},passport application #{row:05}F")
    return "\n".join(lines) + "\n"


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
