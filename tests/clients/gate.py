"""A gate process that clients of all kinds are let loose on: a campaign for each run, a key in each form.

No intake runs: what the gate accepted lies in the spool, and is read there. The folder also holds what clients
keep in a home: host keys they know, their key in the forms that they read.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any, TypeVar

import asyncssh
from clients.cases import FILES, LIMIT, NAME
from integration.gate_fixtures import make_home, make_key
from support.spools import upload_folders
from support.waiting import until

from keys.keyring import Keyring, KeyringEntry, write_keyring
from postern.model import IdKind, new_id
from postern.running import announcement
from postern.settings import GateSettings
from sftpd.hostkeys import HostKey, describe_host_keys, public_line
from storage.spool import Spool
from storage.spool_records import EventKind, Sidecar

POSTERN = Path(sys.executable).with_name("postern")
PATIENCE = 60.0  # seconds

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a client is told: where, who, with which key, which host key to expect."""

    host: str
    port: int
    user: str
    folder: Path  # holds `key` and its other forms, `.ssh/known_hosts`, and is the client's HOME
    fingerprint: str  # of the Ed25519 host key
    is_shown: bool = False  # for the documentation: leave out what only a test needs

    def key(self, form: str = "key") -> str:
        """The private key: `key` (OpenSSH's), `key.ppk` (PuTTY's), `key.dropbear`, `key.pem` (ECDSA)."""
        return form.upper() if self.is_shown else str(self.folder / form)

    @property
    def known_hosts(self) -> Path:
        return self.folder / ".ssh" / "known_hosts"

    @property
    def address(self) -> str:
        return f"{self.user}@{self.host}"


class Gate:
    """`postern gate` on a scratch home."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        home = make_home(folder)
        self.settings: GateSettings = home.settings
        self.spool = Spool(self.settings.spool_folder)
        self.log = folder / "gate.log"
        self._changes = settings
        self._entries = {home.campaign_id: home.entries[home.campaign_id]}
        self._spare: list[str] = []
        self.port = 0

    def prepare(self, campaigns: int) -> None:
        """Make the local files of all cases, the keys, and so many campaigns that take them."""
        for name, content in FILES.items():
            (self.folder / name).mkdir()
            (self.folder / name / NAME).write_bytes(content)
        (self.folder / "good" / "recipients.txt").write_bytes(FILES["good"])
        self._make_keys()
        entries = [_entry(self.folder / "key.pub"), _entry(self.folder / "key.pem.pub")]
        self._spare = [new_id(IdKind.CAMPAIGN) for _ in range(campaigns)]
        self._entries |= dict.fromkeys(self._spare, entries)
        write_keyring(self.settings.gate_folder / "keyring.json", Keyring(campaigns=self._entries))

    def _make_keys(self) -> None:
        """Besides `key`: a key in the form before OpenSSH's own, and `key` in PuTTY's and in Dropbear's form."""
        run = partial(subprocess.run, check=True, capture_output=True, cwd=self.folder)
        make_key(self.folder / "key.pem", "ecdsa")
        run(["ssh-keygen", "-q", "-p", "-m", "PEM", "-N", "", "-f", "key.pem"])
        if which("puttygen"):
            run(["puttygen", "key", "-O", "private", "-o", "key.ppk"])
        if which("dropbearconvert"):
            run(["dropbearconvert", "openssh", "dropbear", "key", "key.dropbear"])

    @contextmanager
    def serving(self) -> Iterator["Gate"]:
        """The gate, until the block ends; it must then leave in order and have logged no fault."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")} | {
            "POSTERN_HOME": str(self.settings.home),
            "POSTERN_SFTP_HOST": "127.0.0.1",
            "POSTERN_SFTP_PORT": "0",
            "POSTERN_MAX_FILE_SIZE": str(LIMIT),
            **self._changes,
        }
        with self.log.open("wb") as log:
            process = subprocess.Popen([POSTERN, "gate"], env=environ, stdout=log, stderr=log)
        try:
            self.port = self._await(lambda: announcement(self.settings.run_folder, "gate"), "the gate")["port"]
            self._write_known_hosts()
            yield self
            process.terminate()
            assert process.wait(PATIENCE) == 0, self.log.read_text()[-5000:]
        finally:
            process.kill()
            process.wait()
        faults = [line for line in self.log.read_text().splitlines() if '"level": "error"' in line]
        assert not faults, faults[:3]

    def login(self, *, port: int = 0) -> Login:
        """A campaign that nobody used before, reached through `port` if a proxy stands there."""
        (fingerprint,) = [key.fingerprint for key in self._host_keys() if key.type == "ssh-ed25519"]
        return Login(
            host="127.0.0.1",
            port=port or self.port,
            user=self._spare.pop(),
            folder=self.folder,
            fingerprint=fingerprint,
        )

    def accepted(self, campaign_id: str) -> list[tuple[Sidecar, bytes]]:
        """The accepted uploads of a campaign with their bytes, oldest first."""
        found = [self.spool.read(upload_id) for upload_id in self.spool.waiting()]
        return [(sidecar, data.read_bytes()) for sidecar, data in found if sidecar.campaign_id == campaign_id]

    def record(self, upload_id: str) -> dict[str, Any]:
        """The sidecar of an accepted upload as it lies in the spool."""
        found: dict[str, Any] = json.loads((self.spool.accepted / upload_id / "upload.json").read_text())
        return found

    def refusals(self, campaign_id: str) -> list[str]:
        """The sentences of the refusals that the owner of a campaign will be told of."""
        events = [event for _path, event in self.spool.pending_events()]
        return [e.reason for e in events if e.kind == EventKind.REFUSED and e.campaign_id == campaign_id]

    def settle(self) -> None:
        """Wait until every upload that is unfinished now is accepted or gone."""
        unfinished = upload_folders(self.spool.incoming)
        until(lambda: not any(path.exists() for path in unfinished), "uploads to end", PATIENCE)

    def know_port(self, port: int) -> None:
        """Make the host keys known at a proxy's port, too."""
        with (self.folder / ".ssh" / "known_hosts").open("a") as file:
            file.writelines(f"[127.0.0.1]:{port} {key.public_line}\n" for key in self._host_keys())

    def _write_known_hosts(self) -> None:
        (self.folder / ".ssh").mkdir(mode=0o700, exist_ok=True)
        (self.folder / ".ssh" / "known_hosts").write_text("")
        self.know_port(self.port)

    def _host_keys(self) -> list[HostKey]:
        return describe_host_keys(self.settings.gate_folder / "host_keys")

    def _await(self, condition: Callable[[], Found | None], what: str) -> Found:
        until(condition, what, PATIENCE)
        found = condition()
        assert found is not None
        return found


def _entry(path: Path) -> KeyringEntry:
    public = asyncssh.read_public_key(path)
    return KeyringEntry(
        public_key=public_line(public), fingerprint=public.get_fingerprint(), enrolment_id=new_id(IdKind.ENROLMENT)
    )
