"""A Postern of the bench's own: the installed command on a scratch home, a campaign, a key, and an asyncssh client.

asyncssh, not the stock client, because it tells when CLOSE was sent and when it was answered.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from bench.files import TEMPLATES

T = TypeVar("T")

POSTERN = Path(sys.executable).with_name("postern")
_ROLES = ("gate", "intake", "worker", "web")
_PATIENCE = 120.0  # seconds
_LOOK = 0.01  # seconds


def until(what: str, condition: Callable[[], T | None]) -> T:
    """The first truthy value of a condition."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_PATIENCE:g} s for {what}")
        time.sleep(_LOOK)
    return found


class Installation:
    """Postern under one scratch home."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.home = folder / "home"
        self.log = folder / "postern.log"
        self._folder = folder
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
        self._environ = plain | {
            "POSTERN_HOME": str(self.home),
            "POSTERN_DATABASE_URL": database_url,
            "POSTERN_SFTP_HOST": "127.0.0.1",
            "POSTERN_SFTP_PORT": "0",
            "POSTERN_HTTP_PORT": "0",
            "POSTERN_REPEAT_WINDOW": "0",  # the same file goes through again and again
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        """`postern serve`, ready, until the block ends."""
        subprocess.run([POSTERN, "db", "migrate"], env=self._environ, check=True, stdout=subprocess.DEVNULL)
        with self.log.open("wb") as log:
            serve = subprocess.Popen([POSTERN, "serve"], env=self._environ, stdout=log, stderr=log)
        try:
            until("all roles to be ready", lambda: all(self._announced(role) for role in _ROLES))
            yield
        finally:
            serve.send_signal(signal.SIGTERM)
            serve.wait(_PATIENCE)

    def enrolled(self) -> tuple[str, Path]:
        """A campaign that sends slowly, so that it is out of the way, and its key."""
        campaign = {"name": "Bench", "agency": "Bench", "templates": TEMPLATES, "rate": 1}
        (self._folder / "campaign.json").write_text(json.dumps(campaign), encoding="utf-8")
        campaign_id = str(self._run("campaign", "create", str(self._folder / "campaign.json"))["id"])
        key = self._folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self._run("key", "enrol", campaign_id, f"{key}.pub", "--email", "bench@localhost")
        until("the gate to know the key", lambda: campaign_id in self._keyring())
        time.sleep(1)  # the gate looks at the keyring now and then
        return campaign_id, key

    async def put(self, campaign_id: str, key: Path, data: bytes) -> tuple[float, float]:
        """Put a file; when CLOSE was sent and when it was answered, in seconds since the epoch."""
        gate = self._announced("gate")
        assert gate is not None
        async with (
            asyncssh.connect(
                "127.0.0.1", gate["port"], username=campaign_id, client_keys=[str(key)], known_hosts=None, config=None
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            file = await sftp.open("recipients.csv", "wb")
            await file.write(data)
            sent = time.time()
            await file.close()
            return sent, time.time()

    def events(self) -> list[dict[str, Any]]:
        """What the roles have logged."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def _keyring(self) -> str:
        path = self.home / "gate" / "keyring.json"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _announced(self, role: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.home / "run" / f"{role}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def _run(self, *arguments: str) -> Any:
        ended = subprocess.run(
            [POSTERN, *arguments, "--json"], env=self._environ, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"postern {' '.join(arguments)}: {ended.stderr}")
        return json.loads(ended.stdout)


def moment(event: dict[str, Any]) -> float:
    """When something was logged, in seconds since the epoch."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()
