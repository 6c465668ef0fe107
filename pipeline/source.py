"""The bytes of a file, mapped: what has been read need not stay in memory."""

import mmap
from pathlib import Path
from typing import TypeAlias

Data: TypeAlias = bytes | mmap.mmap


def map_file(path: Path) -> Data:
    """The bytes of a file that nobody changes meanwhile."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def forget(data: Data, end: int) -> None:
    """Give back the memory of what stands before an offset; it can still be read, from the file."""
    whole_pages = end - end % mmap.PAGESIZE
    if isinstance(data, mmap.mmap) and whole_pages:
        data.madvise(mmap.MADV_DONTNEED, 0, whole_pages)
