"""A gate in a scratch home, and the stock clients that are let loose on it."""

import asyncio
import atexit
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh

from keys.keyring import Keyring, KeyringEntry, write_keyring
from postern.model import IdKind, new_id
from postern.running import announcement
from postern.settings import GateSettings
from sftpd.hostkeys import load_host_keys
from sftpd.server import serve_gate
from storage.spool import Spool
from storage.spool_records import Event, EventKind, Sidecar

WAIT = 20.0  # seconds until a condition that should come true has failed
GOOD = b"recipient,language\n6599999999,english\n"


@dataclass(frozen=True)
class Outcome:
    """How a client ended."""

    status: int
    output: str  # standard output and error


@dataclass
class Home:
    """A gate's home with one campaign that has one key."""

    folder: Path
    campaign_id: str = field(default_factory=lambda: new_id(IdKind.CAMPAIGN))
    entries: dict[str, list[KeyringEntry]] = field(default_factory=dict)
    port: int = 0
    pid: int = 0  # of a gate that is a process of its own

    @property
    def settings(self) -> GateSettings:
        return GateSettings(
            home=self.folder / "home",
            sftp_host="127.0.0.1",
            sftp_port=0,
            max_file_size=4_000_000,
            drain_timeout=10,
            disk_reserve=0,
            gate_processes=1,
        )

    @property
    def spool(self) -> Spool:
        return Spool(self.settings.spool_folder)

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def enrol(self, key: Path, campaign_id: str | None = None, **options: Any) -> KeyringEntry:
        """Make a key of that name and put it into the keyring."""
        if not key.exists():
            make_key(key)
        public = asyncssh.read_public_key(key.with_suffix(".pub"))
        kind, data = public.export_public_key().decode().split()[:2]
        entry = KeyringEntry(
            public_key=f"{kind} {data}",
            fingerprint=public.get_fingerprint(),
            enrolment_id=new_id(IdKind.ENROLMENT),
            **options,
        )
        self.entries.setdefault(campaign_id or self.campaign_id, []).append(entry)
        self.write_keyring()
        return entry

    def write_keyring(self) -> None:
        write_keyring(self.settings.gate_folder / "keyring.json", Keyring(campaigns=self.entries))

    def file(self, name: str, content: bytes = GOOD) -> Path:
        """A local file to put."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def refreshed(self) -> None:
        """Wait until the gate has read the keyring as it is now: a key that is new gets in."""
        campaign_id = new_id(IdKind.CAMPAIGN)
        probe = self.folder / f"probe-{campaign_id}"
        self.enrol(probe, campaign_id)
        deadline = time.monotonic() + WAIT
        while True:
            try:
                async with self.connect(username=campaign_id, client_keys=[str(probe)]):
                    return
            except asyncssh.PermissionDenied:
                assert time.monotonic() < deadline, "the gate did not read the keyring again"
                await asyncio.sleep(0.05)

    # What came of it

    def accepted(self) -> list[tuple[Sidecar, bytes]]:
        """The accepted uploads, oldest first."""
        found = [self.spool.read(upload_id) for upload_id in self.spool.waiting()]
        return [(sidecar, data.read_bytes()) for sidecar, data in found]

    def events(self, kind: EventKind = EventKind.REFUSED) -> list[Event]:
        return [event for _path, event in self.spool.pending_events() if event.kind == kind]

    def unfinished(self) -> list[str]:
        """What lies in `incoming/`, and in the folders there that are processes' own."""
        own = [path for path in self.spool.incoming.iterdir() if path.name.startswith("gate-")]
        return [path.name for folder in (self.spool.incoming, *own) for path in folder.iterdir() if path not in own]

    # Clients

    async def sftp(self, *lines: str, options: tuple[str, ...] = (), **login: Any) -> Outcome:
        """Run the stock `sftp` in batch mode."""
        batch = "\n".join(lines) + "\n"
        arguments = ["-b", "-", *options, *self.login(**login)]
        return await run("sftp", *arguments, self.address(**login), input_text=batch)

    async def scp(self, source: Path, target: str, *options: str) -> Outcome:
        return await run("scp", *options, *self.login(), str(source), f"{self.address()}:{target}")

    def login(self, *, key: Path | None = None, **_user: Any) -> list[str]:
        """The options of OpenSSH's clients."""
        return [
            *("-F", "/dev/null", "-P", str(self.port), "-i", str(key or self.key)),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        ]

    def address(self, *, user: str | None = None, **_key: Any) -> str:
        return f"{user or self.campaign_id}@127.0.0.1"

    def connect(self, **options: Any) -> Any:
        """An asyncssh client, for what no stock client does."""
        settings = {
            "username": self.campaign_id,
            "client_keys": [str(self.key)],
            "known_hosts": None,
            "config": None,
            "agent_path": None,
        }
        return asyncssh.connect("127.0.0.1", self.port, **{**settings, **options})


def make_home(folder: Path) -> Home:
    """A home whose host keys are there already: an RSA key takes its time."""
    home = Home(folder)
    shutil.copytree(_host_keys(), home.settings.gate_folder / "host_keys")
    home.enrol(home.key)
    return home


@asynccontextmanager
async def running(home: Home, **changes: Any) -> AsyncIterator[asyncio.Event]:
    """A gate that serves a home until the block ends; setting the event stops it earlier."""
    settings = home.settings.model_copy(update=changes)
    stop = asyncio.Event()
    gate = asyncio.create_task(serve_gate(settings, stop))
    try:
        await until(lambda: gate.done() or announcement(settings.run_folder, "gate") is not None)
        if gate.done():
            gate.result()
        home.port = (announcement(settings.run_folder, "gate") or {})["port"]
        yield stop
    finally:
        stop.set()
        await gate


@asynccontextmanager
async def gate_process(home: Home, **changes: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gate that is a process of its own; ended in order unless it is gone by the end of the block."""
    settings = home.settings.model_copy(update=changes)
    named = {name: getattr(settings, name) for name in (*changes, "home", "sftp_host", "sftp_port", "disk_reserve")}
    environment = {f"POSTERN_{name.upper()}": str(value) for name, value in named.items()}
    with (home.folder / "gate.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postern", "gate"), env=os.environ | environment, stdout=log, stderr=log
        )
    try:
        await until(lambda: process.returncode is not None or announcement(settings.run_folder, "gate") is not None)
        assert process.returncode is None, (home.folder / "gate.log").read_text()
        home.port = (announcement(settings.run_folder, "gate") or {})["port"]
        home.pid = process.pid
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 2 * WAIT)


def memory_of(pid: int) -> float:
    """What a process and its children have in memory now, in MB; a page that they share counts once (proc(5), PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found[1]) * 1024 / 1e6 + sum(memory_of(int(child)) for child in children)


async def until(condition: Callable[[], object], seconds: float = WAIT) -> None:
    """Wait for a condition, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def postern(home: Home, *arguments: str) -> Any:
    """Run a command of ours on that home and return what it says with `--json`."""
    command = (sys.executable, "-m", "postern", *arguments, "--json")
    outcome = await run(*command, POSTERN_HOME=str(home.settings.home))
    assert outcome.status == 0, outcome.output
    return json.loads(outcome.output)


async def run(*command: str, input_text: str = "", **environment: str) -> Outcome:
    """Run a client to its end."""
    process = await start(*command, **environment)
    output, _ = await asyncio.wait_for(process.communicate(input_text.encode()), WAIT)
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode())


async def start(*command: str, **environment: str) -> asyncio.subprocess.Process:
    """Start a client in its own process group, without the caller's agent."""
    inherited = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=inherited | environment,
        start_new_session=True,
    )


def make_key(path: Path, kind: str = "ed25519") -> Path:
    """A key pair as users make it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "batch@agency", "-f", str(path)], check=True)
    return path


def from_now(delta: timedelta) -> str:
    return (datetime.now(UTC) + delta).isoformat(timespec="milliseconds")


@functools.cache
def _host_keys() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="postern-host-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    load_host_keys(folder)
    return folder
