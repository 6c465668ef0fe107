"""Where a file lies while something is done with it: a folder that is gone afterwards."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postern.settings import WorkerSettings
from storage.blobs import Blobs


@contextmanager
def scratch(settings: WorkerSettings) -> Iterator[Path]:
    """A new folder of one's own."""
    settings.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.scratch_folder, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def copy_blob(blobs: Blobs, key: str, target: Path) -> None:
    """Copy a blob into a file.

    Raises:
        BlobMissingError: there is none.
    """
    with blobs.open(key) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
