"""Small disks for tests: file systems in memory that are soon full. Only root can mount them."""

import os
import subprocess
from pathlib import Path
from typing import Self

import pytest


class Disks:
    """Mounts small file systems, and takes them away again at the end."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, folder: Path, *, kib: int) -> Path:
        """Put a file system of so many KiB at a folder. The test is skipped where that cannot be."""
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("a small disk needs a machine where this user may mount one")
        self._mounted.append(folder)
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for folder in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte with a file that can be removed; returns the file."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return path
