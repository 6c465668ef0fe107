"""Blobs: whole files under keys, such as an upload's bytes or a validation report.

The local store is a folder. A blob is there whole or not at all, and durable when `put` returns; putting the
same key again replaces it.
"""

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from typing_extensions import override

from postern.errors import PosternError
from postern.model import IdKind, new_id
from storage.spool import sync_folder

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class BlobMissingError(PosternError):
    """There is no blob under that key."""


class Blobs(Protocol):
    """Where blobs are kept. Keys are paths of plain names, such as `uploads/campaign_…/upload_….csv`."""

    def put(self, key: str, source: Path) -> None:
        """Store a copy of a file under a key."""
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
    def put(self, key: str, source: Path) -> None:
        target = self._path(key)
        self._make_parents(target.parent)
        temporary = target.with_name(f".{new_id(IdKind.UPLOAD)}")
        try:
            with source.open("rb") as read, temporary.open("xb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
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
