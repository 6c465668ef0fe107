"""Everything that an SFTP client may ask for, as one table. What is not in it, or is refused in it, is refused.

Numbers are those of draft-ietf-secsh-filexfer, versions 3 to 6; names are OpenSSH's and asyncssh's extensions
(OpenSSH's PROTOCOL, section 4). The gate speaks version 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from asyncssh import constants as wire

from sftpd.refusals import RefusalCode

POSIX_RENAME = b"posix-rename@openssh.com"
FSYNC = b"fsync@openssh.com"
LSETSTAT = b"lsetstat@openssh.com"
LIMITS = b"limits@openssh.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: what it is called, why it is refused if it is, whether each one is worth a log line."""

    name: str
    refusal: RefusalCode | None = None
    is_quiet: bool = False  # a put has hundreds of them, and the line of its close sums them up


def _served(name: str, *, is_quiet: bool = False) -> Operation:
    return Operation(name=name, is_quiet=is_quiet)


def _refused(name: str, refusal: RefusalCode = RefusalCode.UNSUPPORTED) -> Operation:
    return Operation(name=name, refusal=refusal)


OPERATIONS: Mapping[int | bytes, Operation] = {
    wire.FXP_OPEN: _served("open"),
    wire.FXP_CLOSE: _served("close"),
    wire.FXP_WRITE: _served("write", is_quiet=True),
    wire.FXP_STAT: _served("stat"),
    wire.FXP_LSTAT: _served("lstat"),
    wire.FXP_FSTAT: _served("fstat"),
    wire.FXP_SETSTAT: _served("setstat"),
    wire.FXP_FSETSTAT: _served("fsetstat"),
    wire.FXP_OPENDIR: _served("opendir"),
    wire.FXP_READDIR: _served("readdir"),
    wire.FXP_REALPATH: _served("realpath"),
    wire.FXP_MKDIR: _served("mkdir"),
    wire.FXP_RMDIR: _served("rmdir"),
    wire.FXP_REMOVE: _served("remove"),
    wire.FXP_RENAME: _served("rename"),
    POSIX_RENAME: _served("posix-rename"),
    FSYNC: _served("fsync"),
    LSETSTAT: _served("lsetstat"),
    LIMITS: _served("limits"),
    wire.FXP_READ: _refused("read", RefusalCode.READING),
    wire.FXP_READLINK: _refused("readlink"),
    wire.FXP_SYMLINK: _refused("symlink"),
    wire.FXP_LINK: _refused("link"),
    wire.FXP_BLOCK: _refused("lock"),
    wire.FXP_UNBLOCK: _refused("unlock"),
    b"hardlink@openssh.com": _refused("hardlink"),
    b"statvfs@openssh.com": _refused("statvfs"),  # how full our disk is, is nobody's business
    b"fstatvfs@openssh.com": _refused("fstatvfs"),
    b"copy-data": _refused("copy-data"),
    b"ranges@asyncssh.com": _refused("ranges"),
}

EXTENSIONS = tuple(
    (name, b"1") for name, operation in OPERATIONS.items() if isinstance(name, bytes) and operation.refusal is None
)
