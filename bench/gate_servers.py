"""The servers that are measured: Postern's gate and this machine's own sshd, each on a scratch folder.

All take the same key, on loopback. sshd has what its makers ship, save that it serves nothing but `internal-sftp`
and turns nobody away.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asyncssh import read_public_key

from bench.gate_processes import cpu_seconds, descendants
from bench.installation import POSTERN, until
from keys.keyring import Keyring, KeyringEntry, write_keyring
from postern.model import IdKind, new_id
from postern.running import announcement
from postern.settings import GateSettings
from sftpd.hostkeys import public_line

SSHD = "sshd"
CAMPAIGNS = 8  # a campaign may have 64 sessions
_PATIENCE = 60.0  # seconds
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/ssh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that is up."""

    title: str
    pid: int
    port: int
    users: Sequence[str]
    key: Path
    received: Path  # the folder in which files are left
    lasting: int = 0  # children that stay for as long as it does

    def cpu(self) -> float:
        """Seconds of CPU time so far, its children included; those of connections that have ended are awaited."""
        deadline = time.monotonic() + _PATIENCE
        while len(children := descendants(self.pid)) > self.lasting and time.monotonic() < deadline:
            time.sleep(0.01)
        return sum(cpu_seconds(pid) for pid in (self.pid, *children))

    def clear(self) -> None:
        """Remove what it was given."""
        for path in self.received.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def find_sshd() -> str | None:
    """This machine's sshd; it wants to be called by its full path."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES]))


def make_key(path: Path) -> Path:
    """A client's key as users make it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@contextmanager
def gate(folder: Path, key: Path, processes: int | None = None) -> Iterator[Server]:
    """`postern gate` with a few campaigns, as it comes, or with so many processes."""
    name = f"gate-{processes or 'default'}"
    named = {} if processes is None else {"gate_processes": processes}
    settings = GateSettings(home=folder / name, sftp_host="127.0.0.1", sftp_port=0, **named)
    public = read_public_key(key.with_suffix(".pub"))
    campaigns = {
        new_id(IdKind.CAMPAIGN): [_entry(public_line(public), public.get_fingerprint())] for _ in range(CAMPAIGNS)
    }
    write_keyring(settings.gate_folder / "keyring.json", Keyring(campaigns=campaigns))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
    environ = plain | {"POSTERN_HOME": str(settings.home), "POSTERN_SFTP_HOST": "127.0.0.1", "POSTERN_SFTP_PORT": "0"}
    environ["POSTERN_GATE_PROCESSES"] = str(settings.gate_processes)
    with _running([str(POSTERN), "gate"], folder / f"{name}.log", environ) as pid:
        port = until("the gate to listen", lambda: _announced_port(settings))
        received = settings.spool_folder / "accepted"
        yield Server(
            title="Postern" if processes is None else f"Postern, {processes} processes",
            pid=pid,
            port=port,
            users=list(campaigns),
            key=key,
            received=received,
            lasting=settings.gate_processes - 1,
        )


@contextmanager
def sshd(program: str, folder: Path, key: Path) -> Iterator[Server]:
    """The machine's sshd with `internal-sftp`, for the user who runs this."""
    home = folder / "sshd"
    received = home / "received"
    received.mkdir(parents=True)
    make_key(home / "host_key")
    port = _free_port()
    (home / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host_key\nAuthorizedKeysFile {key}.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nMaxStartups 1000\nMaxSessions 1000\nUseDNS no\nLogLevel ERROR\n"
        f"Subsystem sftp internal-sftp -d {received}\n",
        encoding="utf-8",
    )
    with _running([program, "-D", "-e", "-f", str(home / "config")], folder / "sshd.log", dict(os.environ)) as pid:
        until("sshd to listen", lambda: _is_open(port))
        user = pwd.getpwuid(os.geteuid()).pw_name
        yield Server(title=SSHD, pid=pid, port=port, users=[user], key=key, received=received)


def _entry(public_key: str, fingerprint: str) -> KeyringEntry:
    return KeyringEntry(public_key=public_key, fingerprint=fingerprint, enrolment_id=new_id(IdKind.ENROLMENT))


@contextmanager
def _running(command: Sequence[str], log: Path, environ: dict[str, str]) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process.pid
    except Exception:
        sys.stderr.write("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:]))
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)


def _announced_port(settings: GateSettings) -> int | None:
    found = announcement(settings.run_folder, "gate")
    return None if found is None else int(found["port"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
