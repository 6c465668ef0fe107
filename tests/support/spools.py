"""What a spool holds while its gate works in it: folders come and go under whoever looks."""

import os
from contextlib import suppress
from pathlib import Path


def upload_folders(folder: Path) -> list[Path]:
    """The folders of uploads in a folder of the spool, also within those of the gate's processes."""
    return [
        Path(place, name) for place, names, _files in os.walk(folder) for name in names if name.startswith("upload_")
    ]


def data_sizes(folder: Path) -> list[int]:
    """How many bytes of each upload there are."""
    sizes = []
    for upload in upload_folders(folder):
        with suppress(FileNotFoundError):
            sizes.append((upload / "data").stat().st_size)
    return sizes
