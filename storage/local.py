"""Blobs as files under a folder.

A disk that is full or away is trouble that passes: the same call can be made again. Nothing in the folder is ever
half a blob; a file whose name begins with a dot is what a killed process left, and can be removed.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from postern.errors import TransientError
from postern.model import IdKind, new_id
from storage.blobs import BlobMissingError, Blobs, Content, checked_key, copy_checked
from storage.spool import sync_folder

_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


class LocalBlobs(Blobs):
    """A folder of blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @override
    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        target = self._path(key)
        with source.open("rb") as read, self._translated():
            self._make_parents(target.parent)
            temporary = target.with_name(f".{new_id(IdKind.UPLOAD)}")
            try:
                with temporary.open("xb") as write:
                    copy_checked(read, write, content)
                    write.flush()
                    os.fsync(write.fileno())
                temporary.rename(target)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(target.parent)

    @override
    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with self._found(key), self._translated():
            return path.open("rb")

    @override
    def size(self, key: str) -> int:
        path = self._path(key)
        with self._found(key), self._translated():
            return path.stat().st_size

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated():
            path.unlink(missing_ok=True)

    @override
    def link(self, key: str, *, file_name: str, media_type: str) -> str | None:
        return None

    @override
    def now(self) -> datetime | None:
        return None

    @override
    def hurry(self) -> None:
        """A disk answers or fails by itself."""

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)

    def _make_parents(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_parents(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)  # the new folder's own entry

    @contextmanager
    def _found(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissingError(f"There is no blob {key}.") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            raise TransientError(f"The blob folder {self._folder} cannot be used: {error.strerror}.") from error
