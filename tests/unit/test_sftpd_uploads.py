"""One upload on a real folder: whole and accepted, or gone without a trace."""

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from postern.model import IdKind, new_id
from sftpd.paths import UploadName
from sftpd.refusals import GateRefusal, RefusalCode, refuse
from sftpd.uploads import MAX_PIECES, Upload
from storage.spool import Spool
from storage.spool_records import Sidecar

NAME = UploadName(text="x.csv", final="x.csv")
LIMIT = 1000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def data_of(spool: Spool, upload: Upload) -> bytes:
    return (spool.incoming / upload.id / "data").read_bytes()


def sidecar_for(upload: Upload) -> Sidecar:
    return Sidecar(
        upload_id=upload.id,
        campaign_id=new_id(IdKind.CAMPAIGN),
        enrolment_id="enrolment_1",
        file_name="x.csv",
        size=upload.size,
        sha256=upload.sha256,
        key_fingerprint="SHA256:x",
        peer="192.0.2.1",
        received_at="2026-01-01T00:00:00.000+00:00",
    )


def fill_disk(upload: Upload) -> None:
    """Let the upload's file stand on the kernel's disk that is always full."""
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, upload._descriptor)
    os.close(full)


class FullSpool(Spool):
    """A spool on a disk that has room for no folder, or for a folder only."""

    has_room_for_folder = False

    @override
    def begin(self, upload_id: str) -> Path:
        if self.has_room_for_folder:
            super().begin(upload_id)
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("has_room_for_folder", [False, True])
async def test_a_full_disk_refuses_the_next_file(spool: Spool, has_room_for_folder: bool) -> None:
    """With the sentence of a full disk, not as a fault of ours, and nothing is left."""
    full = FullSpool(spool.root)
    full.has_room_for_folder = has_room_for_folder
    with pytest.raises(GateRefusal, match="no room left") as refused:
        Upload(full, NAME, limit=LIMIT)
    assert refused.value.kind is RefusalCode.DISK_FULL
    assert list(spool.incoming.iterdir()) == []


async def test_a_whole_file_is_sealed_with_its_digest(spool: Spool) -> None:
    """What was written in order is on disk, and its digest is right."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    upload.write(3, b"def")
    await upload.seal()
    assert (upload.size, data_of(spool, upload)) == (6, b"abcdef")
    assert upload.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert (spool.incoming / upload.id / "data").stat().st_mode & 0o777 == 0o600


async def test_an_empty_file_is_whole(spool: Spool) -> None:
    """Validation says what is wrong with it, not the gate."""
    upload = Upload(spool, NAME, limit=LIMIT)
    await upload.seal()
    assert upload.sha256 == hashlib.sha256().hexdigest()


async def test_an_accepted_upload_leaves_incoming(spool: Spool) -> None:
    """The folder moves as a whole, and abandoning it afterwards is harmless."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    await upload.seal()
    await upload.accept(sidecar_for(upload))
    await upload.abandon()
    assert spool.waiting() == [upload.id]
    assert not list(spool.incoming.iterdir())
    assert spool.read(upload.id)[1].read_bytes() == b"abc"


async def test_an_abandoned_upload_leaves_nothing(spool: Spool) -> None:
    """Doing it twice is harmless, and nothing can be written any more."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    await upload.abandon()
    await upload.abandon()
    assert not list(spool.incoming.iterdir())
    with pytest.raises(GateRefusal):
        upload.write(3, b"d")


async def test_a_file_must_be_smaller_than_the_limit(spool: Spool) -> None:
    """The write that reaches the limit fails, and the handle is dead from then on."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"x" * (LIMIT - 1))
    with pytest.raises(GateRefusal, match="smaller than 1,000 bytes") as refused:
        upload.write(LIMIT - 1, b"x")
    assert (refused.value.kind, refused.value.size, refused.value.told) == (RefusalCode.TOO_LARGE, LIMIT - 1, True)
    with pytest.raises(GateRefusal) as again:
        upload.write(0, b"x")
    assert again.value is refused.value
    with pytest.raises(GateRefusal):
        await upload.seal()
    await upload.abandon()


async def test_a_sparse_write_far_out_is_too_large(spool: Spool) -> None:
    """A terabyte's offset costs no disk."""
    upload = Upload(spool, NAME, limit=LIMIT)
    with pytest.raises(GateRefusal) as refused:
        upload.write(1 << 40, b"x")
    assert refused.value.kind is RefusalCode.TOO_LARGE
    assert data_of(spool, upload) == b""
    await upload.abandon()


async def test_a_first_write_past_the_start_is_a_resumption(spool: Spool) -> None:
    """A client that goes on where it believes to have stopped is refused at once."""
    upload = Upload(spool, NAME, limit=LIMIT)
    with pytest.raises(GateRefusal, match="put the whole file again") as refused:
        upload.write(100, b"x")
    assert refused.value.kind is RefusalCode.RESUMING
    await upload.abandon()


async def test_a_gap_makes_the_file_incomplete(spool: Spool) -> None:
    """A hole would be read as NUL bytes; the close is refused."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    upload.write(6, b"ghi")
    with pytest.raises(GateRefusal, match="a gap after byte 3") as refused:
        await upload.seal()
    assert (refused.value.kind, refused.value.told) == (RefusalCode.INCOMPLETE, True)
    await upload.abandon()


@settings(deadline=None)  # files, on a disk that others use
@given(st.permutations(range(6)), st.data())
async def test_blocks_in_any_order_make_the_same_file(order: list[int], data: st.DataObject) -> None:
    """Once the first block is there, order and repetition change neither bytes nor digest."""
    content = bytes(range(60))
    order = [0, *order, *data.draw(st.lists(st.integers(0, 5), max_size=3))]
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spool")
        spool.prepare()
        upload = Upload(spool, NAME, limit=LIMIT)
        for block in order:
            upload.write(block * 10, content[block * 10 : block * 10 + 10])
        await upload.seal()
        assert data_of(spool, upload) == content
        assert (upload.size, upload.sha256) == (60, hashlib.sha256(content).hexdigest())


async def test_too_many_pieces_are_refused(spool: Spool) -> None:
    """What a client writes all over the place takes bounded memory."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"x")
    for piece in range(1, MAX_PIECES + 1):
        upload.write(piece * 2, b"x")
    with pytest.raises(GateRefusal, match="a gap after byte 1"):
        upload.write(MAX_PIECES * 2 + 2, b"x")
    await upload.abandon()


@pytest.mark.parametrize("announced", [2, 4])
async def test_another_size_than_announced_is_incomplete(spool: Spool, announced: int) -> None:
    """scp says how large the file is before it closes."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.announce(announced)
    upload.write(0, b"abc")
    with pytest.raises(GateRefusal, match=f"3 of {announced} bytes"):
        await upload.seal()
    await upload.abandon()


async def test_a_client_that_only_checks_is_refused_and_draws_no_mail(spool: Spool) -> None:
    """lftp's `put -c` finds that the file is whole here, opens it, sets its size, and writes nothing."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.announce(38)
    with pytest.raises(GateRefusal) as refused:
        await upload.seal()
    await upload.abandon()
    assert (refused.value.kind, refused.value.told) == (RefusalCode.RESUMING, False)


async def test_the_announced_size_is_whole(spool: Spool) -> None:
    """The last size that was said counts."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.announce(0)
    upload.write(0, b"abc")
    upload.announce(3)
    await upload.seal()


async def test_a_failed_write_poisons_the_upload(spool: Spool) -> None:
    """After a full disk not even a smaller file is accepted."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    fill_disk(upload)
    with pytest.raises(GateRefusal, match="no room left") as refused:
        upload.write(3, b"defghi")
    assert refused.value.kind is RefusalCode.DISK_FULL
    with pytest.raises(GateRefusal, match="no room left"):
        upload.write(3, b"d")
    with pytest.raises(GateRefusal, match="no room left"):
        await upload.seal()
    await upload.abandon()
    assert not list(spool.incoming.iterdir())


async def test_a_spool_that_breaks_accepts_nothing(spool: Spool) -> None:
    """Without its record an upload is not accepted, and the client hears of a fault."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    await upload.seal()
    spool.accepted.rmdir()
    with pytest.raises(GateRefusal, match="quote support_"):
        await upload.accept(sidecar_for(upload))
    await upload.abandon()
    assert not list(spool.incoming.iterdir())


async def test_the_first_failure_stays_and_does_not_grow(spool: Spool) -> None:
    """A client that goes on writing to a dead handle fills no memory with tracebacks."""
    upload = Upload(spool, NAME, limit=LIMIT)
    failure = upload.spoil(refuse(RefusalCode.REMOVED, name="x.csv"))
    depths = set()
    for _ in range(5):
        with pytest.raises(GateRefusal) as refused:
            upload.write(0, b"x")
        depths.add(len(refused.traceback))
        assert refused.value is failure
    assert len(depths) == 1
    await upload.abandon()


async def test_flush_puts_what_came_on_disk(spool: Spool) -> None:
    """`put -f` may ask before it closes."""
    upload = Upload(spool, NAME, limit=LIMIT)
    upload.write(0, b"abc")
    await upload.flush()
    assert data_of(spool, upload) == b"abc"
    await upload.abandon()
