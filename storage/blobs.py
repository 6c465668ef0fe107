"""Blobs: whole files under keys, such as an upload's bytes or a validation report.

The local store is a folder. A blob is there whole or not at all, and durable when `put` returns; putting the
same key again replaces it.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from typing_extensions import override

from postern.errors import PosternError
from postern.model import IdKind, new_id
from storage.spool import sync_folder

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


_BLOCK = 1 << 20  # bytes


class BlobMissingError(PosternError):
    """There is no blob under that key."""


class BlobMismatchError(PosternError):
    """The bytes are not those that were announced; nothing was stored."""


class Content(NamedTuple):
    """What a file is said to hold."""

    size: int  # bytes
    sha256: str  # lower-case hex


class Blobs(Protocol):
    """Where blobs are kept. Keys are paths of plain names, such as `uploads/campaign_…/upload_….csv`."""

    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        """Store a copy of a file under a key.

        Args:
            key: the key.
            source: the file. It is read once, so what was checked is what is stored, whoever writes to it meanwhile.
            content: what it must hold; None for whatever it does.

        Raises:
            BlobMismatchError: it holds something else.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Open a blob for reading.

        Raises:
            BlobMissingError: there is none.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; removing none is harmless."""
        ...


class LocalBlobs(Blobs):
    """Blobs as files under a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @override
    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        target = self._path(key)
        self._make_parents(target.parent)
        temporary = target.with_name(f".{new_id(IdKind.UPLOAD)}")
        try:
            with source.open("rb") as read, temporary.open("xb") as write:
                if content is None:
                    shutil.copyfileobj(read, write, _BLOCK)
                else:
                    _copy_checked(read, write, content)
                write.flush()
                os.fsync(write.fileno())
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    @override
    def open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            raise BlobMissingError(f"There is no blob {key}.") from None

    @override
    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no blob key")
        return self._folder / key

    def _make_parents(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_parents(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)  # the new folder's own entry


def _copy_checked(read: BinaryIO, write: BinaryIO, content: Content) -> None:
    digest, size = hashlib.sha256(), 0
    while size <= content.size and (block := read.read(_BLOCK)):
        write.write(block)
        digest.update(block)
        size += len(block)
    if (size, digest.hexdigest()) != content:
        raise BlobMismatchError("The bytes are not those that were announced.")
