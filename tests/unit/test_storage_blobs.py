"""The contract of blob stores, run against every implementation, and what is particular to the local one."""

import errno
import hashlib
import os
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postern.errors import TransientError
from postern.settings import StoreSettings
from storage.blobs import BlobMismatchError, BlobMissingError, Blobs, Content, blobs_from
from storage.local import LocalBlobs

pytest_plugins = ["support.stores"]

KEY = "uploads/campaign_1/upload_1.csv"


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """An empty store of each kind in turn, as the settings name it."""
    if request.param == "local":
        return blobs_from(StoreSettings(blob_url=f"file://{tmp_path}/blobs"))
    store = request.getfixturevalue("s3")
    return blobs_from(StoreSettings(blob_url=store.new_url(), s3_endpoint_url=store.endpoint))


@pytest.fixture
def source(tmp_path: Path) -> Callable[[bytes], Path]:
    """Makes files to put."""

    def make(content: bytes) -> Path:
        path = tmp_path / f"source-{os.urandom(4).hex()}"
        path.write_bytes(content)
        return path

    return make


def read(blobs: Blobs, key: str = KEY) -> bytes:
    with blobs.open(key) as file:
        return file.read()


@pytest.mark.parametrize("content", [b"", b"recipient\r\n", bytes(range(256)) * 20_000])
def test_a_blob_is_read_as_it_was_put(blobs: Blobs, source: Callable[[bytes], Path], content: bytes) -> None:
    """Byte for byte, whatever its size; the source stays."""
    path = source(content)
    blobs.put(KEY, path)
    assert read(blobs) == content
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_blob_is_what_was_announced_or_is_not_stored(
    blobs: Blobs, source: Callable[[bytes], Path], size: int
) -> None:
    """Another byte, one more or one less: what was under the key before stays there."""
    data = bytes(size)
    content = Content(size, hashlib.sha256(data).hexdigest())
    blobs.put(KEY, source(data), content)
    for other in (data + b"x", data[1:] + b"x", data[:-1] or b"x"):
        with pytest.raises(BlobMismatchError):
            blobs.put(KEY, source(other), content)
    assert read(blobs) == data


def test_who_has_to_leave_still_puts_what_came_last(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """A store that answers takes it as before, however often it is hurried."""
    blobs.hurry()
    blobs.hurry()
    blobs.put(KEY, source(b"last"))
    assert (read(blobs), blobs.size(KEY)) == (b"last", 4)


def test_a_blob_is_a_copy(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """What happens to the source later does not touch it."""
    path = source(b"first")
    blobs.put(KEY, path)
    path.write_bytes(b"second")
    path.unlink()
    assert read(blobs) == b"first"


def test_a_blob_put_again_is_replaced(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """Nothing of the longer one before is left."""
    blobs.put(KEY, source(b"the first and longer one"))
    blobs.put(KEY, source(b"second"))
    assert read(blobs) == b"second"


def test_whoever_reads_reads_one_version(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """A blob that is replaced or removed meanwhile is read to its end as it was."""
    content = b"a" * 3_000_000
    blobs.put(KEY, source(content))
    with blobs.open(KEY) as file:
        beginning = file.read(10)
        blobs.put(KEY, source(b"b"))
        blobs.delete(KEY)
        assert beginning + file.read() == content


def test_a_blob_is_there_whole_or_not_at_all(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """A reader among writers sees one of the versions, never a part or a mixture."""
    versions = [bytes([number]) * 2_000_000 for number in range(3)]
    sources = [source(version) for version in versions]
    blobs.put(KEY, sources[0])
    finished = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not finished.is_set():
            seen.add(read(blobs))

    with ThreadPoolExecutor(3) as threads:
        reader = threads.submit(look)
        list(threads.map(lambda path: blobs.put(KEY, path), sources * 5))
        finished.set()
        reader.result()
    assert seen <= set(versions)
    assert read(blobs) in versions


def test_a_blob_that_is_not_there_is_missing(blobs: Blobs) -> None:
    """The message names the key."""
    for call in (blobs.open, blobs.size):
        with pytest.raises(BlobMissingError, match=KEY):
            call(KEY)


@pytest.mark.parametrize("content", [b"", b"recipient\r\n"])
def test_a_blob_has_a_size(blobs: Blobs, source: Callable[[bytes], Path], content: bytes) -> None:
    """Also one that holds nothing, which is not the same as none."""
    blobs.put(KEY, source(content))
    assert blobs.size(KEY) == len(content)


def test_a_blob_can_be_read_again(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """From its beginning, by whoever opened it."""
    blobs.put(KEY, source(b"recipient\r\n"))
    with blobs.open(KEY) as file:
        first = file.read()
        file.seek(0)
        assert (first, file.read()) == (b"recipient\r\n", b"recipient\r\n")


def test_a_large_blob_is_read_as_it_was_put(blobs: Blobs, tmp_path: Path) -> None:
    """One that no memory should hold; with its announced content."""
    path, digest = tmp_path / "large", hashlib.sha256()
    with path.open("wb") as file:
        for number in range(40):
            block = bytes([number]) * 1_000_000
            file.write(block)
            digest.update(block)
    blobs.put(KEY, path, Content(40_000_000, digest.hexdigest()))
    with blobs.open(KEY) as stored, path.open("rb") as put:
        while block := stored.read(1 << 20):
            assert block == put.read(1 << 20)
        assert put.read() == b""


def test_a_store_can_be_probed(blobs: Blobs) -> None:
    """Its clock is this machine's, or is near it."""
    now = blobs.now()
    assert now is None or abs((now - datetime.now(UTC)).total_seconds()) < 5


def test_removing_a_blob_twice_is_harmless(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """Nor does removing one that never was; its neighbours stay."""
    blobs.put(KEY, source(b"one"))
    blobs.put(f"{KEY}.xlsx", source(b"two"))
    for _ in range(2):
        blobs.delete(KEY)
    blobs.delete("never/there.csv")
    with pytest.raises(BlobMissingError):
        blobs.open(KEY)
    assert read(blobs, f"{KEY}.xlsx") == b"two"


def test_a_source_that_is_not_there_leaves_the_blob_alone(
    blobs: Blobs, source: Callable[[bytes], Path], tmp_path: Path
) -> None:
    """The fault is the caller's, and what was stored before stays."""
    blobs.put(KEY, source(b"one"))
    with pytest.raises(FileNotFoundError):
        blobs.put(KEY, tmp_path / "nothing")
    assert read(blobs) == b"one"


ODD_KEYS = [
    "", "/etc/passwd", "../x", "a/../x", "a/./x", "a//b", "a/", ".hidden", "a/.x", "a b", "ä", "a\n", "a\\b", "a\0b",
]  # fmt: skip


def test_an_odd_key_is_refused(blobs: Blobs, source: Callable[[bytes], Path]) -> None:
    """No key leads out of the store; one that is no path of plain names is a bug of ours."""
    path = source(b"x")
    for key in ODD_KEYS:
        for call in (
            lambda key: blobs.put(key, path),
            blobs.open,
            blobs.size,
            blobs.delete,
        ):
            with pytest.raises(ValueError, match="is no blob key"):
                call(key)


def test_local_blobs_are_private_and_leave_nothing_else(tmp_path: Path, source: Callable[[bytes], Path]) -> None:
    """Folders for the owner only; no temporary file stays, not even after a failure."""
    blobs = LocalBlobs(tmp_path / "deep" / "blobs")
    blobs.put("a/b/c.csv", source(b"x"))
    with pytest.raises(FileNotFoundError):
        blobs.put("a/b/d.csv", tmp_path / "nothing")
    folders = [tmp_path / "deep" / "blobs", tmp_path / "deep" / "blobs" / "a" / "b"]
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700]
    assert [path.name for path in folders[1].iterdir()] == ["c.csv"]


def test_a_put_that_fails_halfway_leaves_the_blob_that_was_there(
    tmp_path: Path, source: Callable[[bytes], Path]
) -> None:
    """The disk takes no more: the old blob stays whole, and no part of the new one is left."""
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put(KEY, source(b"one"))
    large = source(b"x" * 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            blobs.put(KEY, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read(blobs) == b"one"
    assert [path.name for path in (tmp_path / "blobs" / "uploads" / "campaign_1").iterdir()] == ["upload_1.csv"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_disk_that_is_full_or_away_is_waited_for(
    tmp_path: Path, source: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Such trouble passes; the blob that was there stays, and no part of the new one is left."""
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put(KEY, source(b"one"))

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(TransientError, match=os.strerror(number)):
            blobs.put(KEY, source(b"two"))
    assert read(blobs) == b"one"
    assert [path.name for path in (tmp_path / "blobs" / "uploads" / "campaign_1").iterdir()] == ["upload_1.csv"]
