"""What a session sees: attributes of folders that are not there and of uploads, as SFTP version 3 tells them. Pure.

Nothing here is read from a file system. A session sees names, sizes and times of its own campaign's uploads,
and a folder wherever it looks for one.
"""

import stat
import time
from dataclasses import dataclass
from datetime import datetime

import asyncssh

_FILE_MODE = stat.S_IFREG | 0o600
_FOLDER_MODE = stat.S_IFDIR | 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One upload as a session sees it."""

    size: int
    seen_at: datetime


def folder_attributes() -> asyncssh.SFTPAttrs:
    """The attributes of any folder."""
    return asyncssh.SFTPAttrs(size=0, permissions=_FOLDER_MODE, uid=0, gid=0, atime=0, mtime=0)


def file_attributes(sight: Sight) -> asyncssh.SFTPAttrs:
    """The attributes of an upload."""
    moment = int(sight.seen_at.timestamp())
    return asyncssh.SFTPAttrs(size=sight.size, permissions=_FILE_MODE, uid=0, gid=0, atime=moment, mtime=moment)


def entry(name: str, attributes: asyncssh.SFTPAttrs) -> asyncssh.SFTPName:
    """One line of a listing; clients show the long name as it is, so it looks like that of `ls -l`."""
    encoded = name.encode("utf-8")
    mode = stat.filemode(attributes.permissions or 0)
    moment = time.strftime("%b %d %H:%M", time.localtime(attributes.mtime or 0))
    long_name = f"{mode} 1 postern  postern  {attributes.size or 0:>10} {moment} ".encode()
    return asyncssh.SFTPName(encoded, long_name + encoded, attributes)
