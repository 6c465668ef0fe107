"""Where a file lies while something is done with it: a folder that is gone afterwards.

A disk that is full or broken is no fault of the file: whatever the system refuses while the folder is in use is
transient, and the same is done again when there is room.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from postern.errors import TransientError
from postern.settings import WorkerSettings
from storage.blobs import Blobs


@contextmanager
def scratch(settings: WorkerSettings) -> Iterator[Path]:
    """A new folder of one's own.

    Raises:
        TransientError: the system refused something inside the block, such as to write to a full disk.
    """
    try:
        settings.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=settings.scratch_folder, ignore_cleanup_errors=True) as folder,
            _lock(folder),
        ):
            yield Path(folder)
    except OSError as error:
        raise TransientError(f"The scratch folder or the blob store cannot be used: {error.strerror}.") from error


def sweep_scratch(settings: WorkerSettings) -> int:
    """Remove the folders of workers that were killed; returns how many. Those in use are locked."""
    gone = 0
    for folder in settings.scratch_folder.iterdir() if settings.scratch_folder.is_dir() else ():
        with suppress(OSError), _lock(folder, fcntl.LOCK_NB):
            shutil.rmtree(folder)
            gone += 1
    return gone


@contextmanager
def _lock(folder: Path | str, mode: int = 0) -> Iterator[None]:
    """Hold a folder's lock, which goes with its process (flock(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | mode)
        yield
    finally:
        os.close(descriptor)


def copy_blob(blobs: Blobs, key: str, target: Path) -> None:
    """Copy a blob into a file.

    Raises:
        BlobMissingError: there is none.
    """
    with blobs.open(key) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
