"""Blobs: whole files under keys, such as an upload's bytes or a validation report.

The port, and which store the settings name: `storage.local` or `storage.s3`. A blob is there whole or not at all, and
durable when `put` returns; putting the same key again replaces it. Whoever opens a blob reads one version of it.
"""

import hashlib
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from postern.errors import PosternError
from postern.settings import StoreSettings

BLOCK = 1 << 20  # bytes

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class BlobMissingError(PosternError):
    """There is no blob under that key."""


class BlobMismatchError(PosternError):
    """The bytes are not those that were announced; nothing was stored."""


class BlobDamagedError(PosternError):
    """What the store handed out is not what was put into it, however often it was asked."""


class Content(NamedTuple):
    """What a file is said to hold."""

    size: int  # bytes
    sha256: str  # lower-case hex


class Blobs(Protocol):
    """Where blobs are kept. Keys are paths of plain names, such as `uploads/campaign_…/upload_….csv`.

    Any call raises `postern.errors.TransientError` where the store is away, and `ValueError` for a key that is none.
    """

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
        """Open a blob for reading, from its beginning; it can be read again.

        Raises:
            BlobMissingError: there is none.
            BlobDamagedError: its bytes are not those that were put.
        """
        ...

    def size(self, key: str) -> int:
        """How many bytes a blob has, without reading them.

        Raises:
            BlobMissingError: there is none.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; removing none is harmless."""
        ...

    def link(self, key: str, *, file_name: str, media_type: str) -> str | None:
        """A short-lived address at which the store itself serves a blob, or None where it has none.

        Args:
            key: the key; whether there is such a blob is not looked at.
            file_name: under which a browser saves it.
            media_type: what the store says that it is.
        """
        ...

    def now(self) -> datetime | None:
        """The store's own clock, once it answered that it can be used; None where that is this machine's."""
        ...

    def hurry(self) -> None:
        """From now on give up early on a store that does not answer: this process was told to stop."""
        ...


def blobs_from(settings: StoreSettings) -> Blobs:
    """The store that the settings name: a bucket of S3, or a folder."""
    # Imported here because both stores need what stands above, and boto3 takes 0.2 s to load.
    if settings.bucket:
        from storage.s3 import S3Blobs  # noqa: PLC0415

        return S3Blobs.from_settings(settings)
    from storage.local import LocalBlobs  # noqa: PLC0415

    return LocalBlobs(settings.blob_folder)


def checked_key(key: str) -> str:
    """The key.

    Raises:
        ValueError: it is no path of plain names. That is a bug of ours; no key leads out of a store.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no blob key")
    return key


def copy_checked(read: BinaryIO, write: BinaryIO, content: Content | None) -> None:
    """Copy a file, and make sure on the way that it holds what it must.

    Raises:
        BlobMismatchError: it does not.
    """
    if content is None:
        shutil.copyfileobj(read, write, BLOCK)
        return
    digest, size = hashlib.sha256(), 0
    while size <= content.size and (block := read.read(BLOCK)):
        write.write(block)
        digest.update(block)
        size += len(block)
    if (size, digest.hexdigest()) != content:
        raise BlobMismatchError("The bytes are not those that were announced.")
