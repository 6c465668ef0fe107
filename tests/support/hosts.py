"""Many hosts on one machine, for tests and for the bench: each role in a home and an environment of its own.

Roles share nothing but the database, the blob store, the mail server and what an operator hands out: the secret key to
workers and webs, the host keys to gates. `embedded` is the same with `postern serve`. Needs psycopg and nothing else;
ends its own processes, by id only.
"""

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from support.looks import look_into

T = TypeVar("T")

POSTERN = Path(sys.executable).with_name("postern")
PATIENCE = 60.0  # seconds
_PLAIN = ("PATH", "LANG", "LC_ALL", "TMPDIR")
_GATE = {"POSTERN_SFTP_HOST": "127.0.0.1", "POSTERN_SFTP_PORT": "0"}
_ALIAS = "postern"  # the name by which clients know all gates


def wait_for(what: str, condition: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The first truthy value of a condition."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        time.sleep(0.02)
    return found


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all hosts reach."""

    database_url: str
    blob_url: str
    s3_endpoint: str
    s3_credentials: Mapping[str, str]  # as boto3 finds them in the environment
    smtp_url: str = ""  # mails become files in each worker's home unless set


@dataclass
class Part:
    """A role on its host."""

    name: str  # the role and its number, such as gate-1
    home: Path
    settings: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def role(self) -> str:
        """Which one it is."""
        return self.name.partition("-")[0]

    @property
    def environ(self) -> Mapping[str, str]:
        """What it is told, and nothing else."""
        plain = {name: os.environ[name] for name in _PLAIN if name in os.environ}
        return {**plain, "POSTERN_HOME": str(self.home), **self.settings}

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it; it is ready some time later."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([POSTERN, self.role], env=self.environ, stdout=log, stderr=log)

    def said(self, role: str = "") -> dict[str, Any] | None:
        """What it says of itself once it is ready; what a dead one said before does not count."""
        assert self.process is None or self.process.poll() is None, f"{self.name} ended:\n{self.end_of_log()}"
        try:
            said: dict[str, Any] = json.loads((self.home / "run" / f"{role or self.role}.json").read_text())
        except (OSError, ValueError):
            return None
        return said if role or said["pid"] == self.pid else None

    def until_ready(self) -> None:
        """Wait until it serves."""
        roles = ("gate", "intake", "worker", "web") if self.role == "serve" else ("",)
        wait_for(f"{self.name} to be ready", lambda: all(self.said(role) for role in roles))

    def port(self, role: str) -> int:
        """Where it listens as the gate, or as the web role."""
        return int(wait_for(f"{self.name} to listen", lambda: self.said(role))["port"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; SIGKILL is waited for."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            assert self.process is not None
            self.process.wait(PATIENCE)

    def end_of_log(self) -> str:
        """What it said last."""
        return self.log.read_text(errors="replace")[-4_000:]


@dataclass
class Site:
    """An installation: its parts, its operator and its clients."""

    folder: Path
    parts: Sequence[Part]
    operator: Part  # never started; commands are given as it
    database_url: str
    keys: dict[str, Path] = field(default_factory=dict)  # by campaign

    @contextmanager
    def running(self) -> Iterator["Site"]:
        """Start everything; at the end it must all leave in order."""
        try:
            self._start()
            yield self
            self._stop()
        except BaseException:
            for part in self.parts:
                if part.log.exists():
                    sys.stderr.write(f"{part.name}: {part.end_of_log()}\n")
            raise
        finally:
            for part in self.parts:
                if part.process is not None and part.process.poll() is None:
                    part.process.kill()  # of `serve`, too, the children leave then
                    part.process.wait()

    def of(self, role: str) -> list[Part]:
        """The parts that have a role; `serve` has all."""
        return [part for part in self.parts if part.role in {role, "serve"}]

    def part(self, name: str) -> Part:
        """A part by its name."""
        return next(part for part in self.parts if part.name == name)

    def _start(self) -> None:
        first, *other_gates = self.of("gate")
        shown = self.postern("host-key", "show", as_part=first)  # makes them
        for gate in other_gates:  # all gates have those of the first
            shutil.copytree(first.home / "gate" / "host_keys", gate.home / "gate" / "host_keys")
        self.trust(shown)
        for part in self.parts:
            part.start()
        for part in self.parts:
            part.until_ready()

    def _stop(self) -> None:
        for part in self.parts:
            if part.process is not None and part.process.poll() is None:
                part.send(signal.SIGTERM)
        for part in self.parts:
            if part.process is not None:
                status = part.process.wait(PATIENCE)
                assert status == 0, f"{part.name} left with status {status}:\n{part.end_of_log()}"

    # The operator

    def postern(self, *arguments: str, as_part: Part | None = None) -> Any:
        """Give a command; it must succeed."""
        ended = self._run(*arguments, "--json", as_part=as_part)
        assert ended.returncode == 0, f"postern {' '.join(arguments)}: {ended.stderr or ended.stdout}"
        return json.loads(ended.stdout)

    def _run(self, *arguments: str, as_part: Part | None = None) -> subprocess.CompletedProcess[str]:
        environ = (as_part or self.operator).environ
        return subprocess.run(
            [POSTERN, *arguments], env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def enrolled(self, name: str, **changes: Any) -> str:
        """A campaign with a key that every gate knows."""
        campaign = {"name": name, "agency": "Immigration Office", "templates": {"english": "Dear {{name}}."}, **changes}
        path, key = self.folder / f"{name}.json", self.folder / f"key-{name}"
        path.write_text(json.dumps(campaign))
        campaign_id = str(self.postern("campaign", "create", str(path))["id"])
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.postern("key", "enrol", campaign_id, f"{key}.pub", "--email", f"{name}@agency.example")
        self.keys[campaign_id] = key
        for gate in self.of("gate"):
            wait_for(f"{gate.name} to know the key", lambda gate=gate: self.gets_in(gate, campaign_id))
        return campaign_id

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Look straight into the database."""
        return look_into(self.database_url, statement)

    # The clients

    def trust(self, host_keys: Sequence[Mapping[str, str]]) -> None:
        """Let clients take gates with these host keys, as `postern host-key show` tells them, and no others."""
        lines = [f"{_ALIAS} {key['publicKey']}\n" for key in host_keys]
        (self.folder / "known_hosts").write_text("".join(lines))

    def sftp(self, gate: Part, campaign_id: str) -> list[str]:
        """The stock client, logging in at a gate; it reads its orders from standard input."""
        return [
            "sftp", "-q", "-b", "-", "-P", str(gate.port("gate")), "-i", str(self.keys[campaign_id]), "-F", "none",
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
            "-o", f"HostKeyAlias={_ALIAS}", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            f"{campaign_id}@127.0.0.1",
        ]  # fmt: skip

    def ask(self, gate: Part, campaign_id: str, order: str) -> subprocess.CompletedProcess[str]:
        """Let a client carry out one order."""
        return subprocess.run(
            self.sftp(gate, campaign_id), input=f"{order}\n", capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip

    def gets_in(self, gate: Part, campaign_id: str) -> bool:
        """Whether a gate lets a campaign's client in."""
        return self.ask(gate, campaign_id, "pwd").returncode == 0

    def put(self, gate: Part, campaign_id: str, path: Path) -> None:
        """Put a file; the client must exit 0."""
        ended = self.ask(gate, campaign_id, f"put {path} {path.name}")
        assert ended.returncode == 0, f"{path.name} at {gate.name}: {ended.stderr}"

    def mail_folders(self) -> list[Path]:
        """Where workers leave mails as files."""
        return [part.home / "mail" for part in self.of("worker")]


def many_hosts(folder: Path, reached: Surroundings, *, gates: int = 2, workers: int = 3, webs: int = 2) -> Site:
    """Gate hosts with an intake each, workers and webs, on a database that has been migrated by the operator."""

    def part(name: str, settings: Mapping[str, str], host: str = "") -> Part:
        """Each session at the database is called by the part that has it."""
        named = f"{reached.database_url}?application_name={name}"
        knows = {} if name.startswith("gate") else {"POSTERN_DATABASE_URL": named}
        return Part(name, folder / (host or name), {**knows, **settings}, folder / "logs" / name)

    store = {
        "POSTERN_BLOB_URL": reached.blob_url,
        "POSTERN_S3_ENDPOINT_URL": reached.s3_endpoint,
        "POSTERN_PUBLIC_URL": "https://postern.example",
        **reached.s3_credentials,
    }
    secret = {"POSTERN_SECRET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()}
    parts = [
        *(part(f"gate-{number}", _GATE, f"host-{number}") for number in range(1, gates + 1)),
        *(part(f"intake-{number}", store, f"host-{number}") for number in range(1, gates + 1)),
        *(
            part(f"worker-{number}", {**store, **secret, "POSTERN_SMTP_URL": reached.smtp_url})
            for number in range(1, workers + 1)
        ),
        *(part(f"web-{number}", {**store, **secret, "POSTERN_HTTP_PORT": "0"}) for number in range(1, webs + 1)),
    ]
    site = Site(folder, parts, part("operator-1", {}), reached.database_url)
    site.postern("db", "migrate")
    return site


def embedded(folder: Path) -> Site:
    """`postern serve` as it comes, save that its ports are free ones."""
    serve = Part("serve-1", folder / "home", {**_GATE, "POSTERN_HTTP_PORT": "0"}, folder / "logs" / "serve")
    return Site(folder, [serve], serve, f"sqlite:///{serve.home / 'postern.db'}")
