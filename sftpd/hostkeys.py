"""Host keys: made on first start, kept in a folder that only the gate reads, shown and rotated by commands.

A key file appears whole or not at all, and a key that is there is replaced only by a rotation: of two gates that
start together one makes the key and the other reads it. A rotation has two steps. The first makes the next keys,
which the gate announces from then on beside those that it uses; clients that follow (hostkeys-00@openssh.com, see
OpenSSH's PROTOCOL, 2.5) note them. The second puts them in place of the old ones. Each step can be done again
after a crash in the middle of it.

    host_keys/ssh_host_*_key         in use
    host_keys/next/ssh_host_*_key    announced
    host_keys/old/ssh_host_*_key     what the last rotation replaced; nobody reads it
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import asyncssh

from postern.errors import PosternError
from storage.spool import sync_folder

# JSch 0.1.54 needs an RSA or ECDSA key beside Ed25519. 3072 bits of RSA match the others' strength
# (NIST SP 800-57 part 1, table 2).
_KINDS: dict[str, tuple[str, dict[str, int]]] = {
    "ssh_host_ed25519_key": ("ssh-ed25519", {}),
    "ssh_host_ecdsa_key": ("ecdsa-sha2-nistp256", {}),
    "ssh_host_rsa_key": ("ssh-rsa", {"key_size": 3072}),
}
# RFC 4255, 6594 and 7479
_SSHFP_ALGORITHMS = {"ssh-rsa": 1, "ecdsa-sha2-nistp256": 3, "ssh-ed25519": 4}
_SSHFP_SHA256 = 2

_NEXT = "next"
_OLD = "old"

Stamp = Mapping[str, tuple[int, int]]


class HostKeyError(PosternError):
    """A rotation cannot be done now."""


class HostKeyState(StrEnum):
    """What the gate does with a host key."""

    USED = "used"
    NEXT = "next"  # announced


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """What people compare, put into `known_hosts` or into the DNS."""

    type: str
    state: HostKeyState
    public_line: str  # `<type> <base64>`
    fingerprint: str  # SHA256:…
    sshfp: str  # the data of an SSHFP record


def make_host_keys(folder: Path) -> None:
    """Make what is missing. Slow: not for the event loop."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _KINDS:
        if not (folder / name).exists():
            _make(folder, name)


def load_host_keys(folder: Path) -> list[asyncssh.SSHKey]:
    """The keys in use, Ed25519 first; what is missing is made. Slow: not for the event loop."""
    make_host_keys(folder)
    return _read(folder)


def load_next_keys(folder: Path) -> list[asyncssh.SSHKey]:
    """The keys that are announced because they come next; none where no rotation is under way."""
    return _read(folder / _NEXT)


def stamp_of(folder: Path) -> Stamp:
    """What is another one when there are other keys."""
    paths = (place / name for place in (folder, folder / _NEXT) for name in _KINDS)
    return {str(path): (found.st_ino, found.st_mtime_ns) for path in paths if (found := _stat(path)) is not None}


def describe_host_keys(folder: Path) -> list[HostKey]:
    """What people ask of each key; what is missing is made."""
    return [
        *(_described(key, HostKeyState.USED) for key in load_host_keys(folder)),
        *(_described(key, HostKeyState.NEXT) for key in load_next_keys(folder)),
    ]


def begin_rotation(folder: Path) -> None:
    """Make the keys that come next.

    Raises:
        HostKeyError: there are some already.
    """
    if (folder / _NEXT).exists():
        raise HostKeyError("A rotation is under way; finish or cancel it first.")
    load_host_keys(folder)
    preparing = folder / f".next.{os.getpid()}"
    shutil.rmtree(preparing, ignore_errors=True)
    preparing.mkdir(mode=0o700)
    for name in _KINDS:
        _make(preparing, name)
    preparing.rename(folder / _NEXT)
    sync_folder(folder)


def finish_rotation(folder: Path) -> None:
    """Put the next keys in place of the used ones, which are kept aside.

    Raises:
        HostKeyError: there are none.
    """
    _check_rotation(folder)
    old = folder / _OLD
    old.mkdir(mode=0o700, exist_ok=True)
    for name in _KINDS:
        coming = folder / _NEXT / name
        if coming.exists():  # else an earlier try, which was cut off, came as far as this
            (old / name).unlink(missing_ok=True)
            os.link(folder / name, old / name)
            coming.replace(folder / name)
    (folder / _NEXT).rmdir()
    sync_folder(folder)


def cancel_rotation(folder: Path) -> None:
    """Drop the next keys.

    Raises:
        HostKeyError: there are none.
    """
    _check_rotation(folder)
    shutil.rmtree(folder / _NEXT)


def public_line(key: asyncssh.SSHKey) -> str:
    """A public key as `<type> <base64>`, without its comment."""
    kind, data = key.export_public_key("openssh").decode("ascii").split()[:2]
    return f"{kind} {data}"


def _check_rotation(folder: Path) -> None:
    if not (folder / _NEXT).exists():
        raise HostKeyError("No rotation is under way.")


def _described(key: asyncssh.SSHKey, state: HostKeyState) -> HostKey:
    kind = key.get_algorithm()
    digest = hashlib.sha256(key.public_data).hexdigest()
    return HostKey(
        type=kind,
        state=state,
        public_line=public_line(key),
        fingerprint=key.get_fingerprint(),
        sshfp=f"{_SSHFP_ALGORITHMS[kind]} {_SSHFP_SHA256} {digest}",
    )


def _read(folder: Path) -> list[asyncssh.SSHKey]:
    return [asyncssh.read_private_key(folder / name) for name in _KINDS if (folder / name).exists()]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


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
