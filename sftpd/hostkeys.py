"""Host keys: made on first start, kept in a folder that only the gate reads, shown by a command.

A key file appears whole or not at all, and a key that is there is never replaced: of two gates that start
together one makes the key and the other reads it. This module does not rotate keys.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from storage.spool import sync_folder

# JSch 0.1.54 needs an RSA or ECDSA key beside Ed25519. 3072 bits of RSA match the others' strength
# (NIST SP 800-57 part 1, table 2).
_KINDS: dict[str, tuple[str, dict[str, int]]] = {
    "ssh_host_ed25519_key": ("ssh-ed25519", {}),
    "ssh_host_ecdsa_key": ("ecdsa-sha2-nistp256", {}),
    "ssh_host_rsa_key": ("ssh-rsa", {"key_size": 3072}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """What people compare and put into `known_hosts`."""

    type: str
    public_line: str  # `<type> <base64>`
    fingerprint: str  # SHA256:…


def load_host_keys(folder: Path) -> list[asyncssh.SSHKey]:
    """The host keys, Ed25519 first; what is missing is made. Slow: not for the event loop."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _KINDS:
        if not (folder / name).exists():
            _make(folder, name)
    return [asyncssh.read_private_key(folder / name) for name in _KINDS]


def describe_host_keys(folder: Path) -> list[HostKey]:
    """Type, public line and fingerprint of each host key; what is missing is made."""
    return [
        HostKey(type=key.get_algorithm(), public_line=public_line(key), fingerprint=key.get_fingerprint())
        for key in load_host_keys(folder)
    ]


def public_line(key: asyncssh.SSHKey) -> str:
    """A public key as `<type> <base64>`, without its comment."""
    kind, data = key.export_public_key("openssh").decode("ascii").split()[:2]
    return f"{kind} {data}"


def _make(folder: Path, name: str) -> None:
    algorithm, options = _KINDS[name]
    key = asyncssh.generate_private_key(algorithm, comment="postern", **options)
    temporary = folder / f".{name}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key("openssh"))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, folder / name)  # unlike rename(2) it fails where another gate was faster
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(folder)
