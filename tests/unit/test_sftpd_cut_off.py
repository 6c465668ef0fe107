"""The sign of a file that was cut off: no line end at its end, and full blocks of a known client only."""

from pathlib import Path

import pytest

from sftpd.cut_off import KNOWN_BLOCKS, looks_cut_off
from sftpd.paths import UploadName
from sftpd.uploads import Upload
from storage.spool import Spool

NAME = UploadName(text="x.csv", final="x.csv")
LINE = b"6591234567,english,Emily\n"
PUTTY = 4096


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


async def sealed(spool: Spool, content: bytes, *, block: int, backwards: bool = False) -> Upload:
    """A file that a client wrote in blocks of that size, as far as it got."""
    upload = Upload(spool, NAME, limit=10_000_000)
    offsets = list(range(0, len(content), block))
    if backwards and len(offsets) > 1:  # as pipelining clients may
        offsets[-2:] = reversed(offsets[-2:])
    for offset in offsets:
        upload.write(offset, content[offset : offset + block])
    await upload.seal()
    return upload


@pytest.mark.parametrize("block", sorted(KNOWN_BLOCKS))
@pytest.mark.parametrize("blocks", [1, 3])
async def test_full_blocks_that_end_in_a_record_look_cut_off(spool: Spool, block: int, blocks: int) -> None:
    """One or several, in whichever order they came."""
    content = (LINE * (blocks * block // len(LINE) + 1))[: blocks * block - 1] + b"6"
    assert (await sealed(spool, content, block=block)).is_cut_off
    assert (await sealed(spool, content, block=block, backwards=True)).is_cut_off


@pytest.mark.parametrize("last", [b"\n", b"\r\n"])
async def test_full_blocks_that_end_with_a_line_end_are_whole(spool: Spool, last: bytes) -> None:
    """Where a client is cut off just there, nobody could tell."""
    content = b"x" * (65_536 - len(last)) + last
    assert not (await sealed(spool, content, block=32_768)).is_cut_off


async def test_half_a_line_end_is_none(spool: Spool) -> None:
    """The file was to end with CRLF, and did not get there."""
    assert (await sealed(spool, b"x" * 65_535 + b"\r", block=32_768)).is_cut_off


@pytest.mark.parametrize("size", [1, 32_767, 32_769, 100_000])
async def test_a_shorter_last_write_is_the_end_of_a_file(spool: Spool, size: int) -> None:
    """With or without a line end after the last record."""
    upload = await sealed(spool, b"x" * size, block=32_768)
    assert not upload.is_cut_off


async def test_an_empty_file_is_not_cut_off(spool: Spool) -> None:
    """No write, no block."""
    assert not (await sealed(spool, b"", block=32_768)).is_cut_off


@pytest.mark.parametrize("block", [0, 1, PUTTY, 16_384, 32_767, 261_119])
def test_blocks_of_no_known_client_tell_nothing(block: int) -> None:
    """Small ones above all: a whole file is too likely to be a multiple of them."""
    assert not looks_cut_off(write_block=block, last_byte=b"6")


def test_known_blocks_are_large() -> None:
    """16 KiB and up."""
    assert min(KNOWN_BLOCKS) >= 16_384
