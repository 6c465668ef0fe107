"""What no stock client does, and what a bug or a hostile client would: raw SFTP against a gate that runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh import constants as wire
from asyncssh.packet import String, UInt32, UInt64
from integration.gate_fixtures import GOOD, Home, make_home, running, until

from sftpd.operations import OPERATIONS


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate that takes files under 4 MB."""
    home = make_home(tmp_path)
    async with running(home):
        yield home


@pytest.fixture
async def client(home: Home) -> AsyncIterator[asyncssh.SFTPClient]:
    """A session."""
    async with home.connect() as connection, connection.start_sftp_client() as client:
        yield client


def names(home: Home) -> list[str]:
    return [sidecar.file_name for sidecar, _data in home.accepted()]


async def test_stat_before_and_after_a_put(home: Home, client: asyncssh.SFTPClient) -> None:
    """Not there, then there with its exact size, also when intake is done with it."""
    with pytest.raises(asyncssh.SFTPNoSuchFile):
        await client.stat("upload/x.csv")
    async with client.open("upload/x.csv", "wb") as file:
        await file.write(GOOD)
        assert (await file.stat()).size == len(GOOD)
    for upload_id in home.spool.waiting():
        home.spool.finish(upload_id)
    for path in ("upload/x.csv", "/x.csv", "x.csv"):
        assert (await client.stat(path)).size == len(GOOD)
        assert (await client.lstat(path)).size == len(GOOD)
    assert await client.isdir(".")
    assert await client.isdir("/anything")


async def test_other_sessions_of_the_campaign_see_it(home: Home, client: asyncssh.SFTPClient) -> None:
    """A batch job that looks in a second session finds what it put in the first."""
    async with client.open("x.csv", "wb") as file:
        await file.write(GOOD)
    async with home.connect() as connection, connection.start_sftp_client() as second:
        assert sorted(await second.listdir("/upload")) == [".", "..", "x.csv"]
        assert (await second.stat("x.csv")).size == len(GOOD)


async def test_times_modes_and_sizes_are_taken_and_ignored(home: Home, client: asyncssh.SFTPClient) -> None:
    """SETSTAT is answered OK, and an accepted upload stays as it is."""
    async with client.open("x.csv", "wb") as file:
        await file.write(GOOD)
        await file.chmod(0o600)
        await file.utime((1, 2))
        await file.fsync()
    await client.chmod("x.csv", 0o777)
    await client.utime("x.csv", (1, 2))
    await client.truncate("x.csv", 1)
    await client.chmod("not-there.csv", 0o600)
    await client.mkdir("somewhere")
    await client.rmdir("somewhere")
    assert [data for _sidecar, data in home.accepted()] == [GOOD]


async def test_posix_rename_commits_a_temporary_name(home: Home, client: asyncssh.SFTPClient) -> None:
    """rclone's way, with the looks that it takes before and after."""
    async with client.open("x.csv.0f3a9c.partial", "wb") as file:
        await file.write(GOOD)
    assert (await client.stat("x.csv.0f3a9c.partial")).size == len(GOOD)
    await client.posix_rename("x.csv.0f3a9c.partial", "x.csv")
    assert (await client.stat("x.csv")).size == len(GOOD)
    with pytest.raises(asyncssh.SFTPNoSuchFile):
        await client.stat("x.csv.0f3a9c.partial")
    assert names(home) == ["x.csv"]


async def test_exclusive_and_read_write_opens_are_puts(home: Home, client: asyncssh.SFTPClient) -> None:
    """Perl opens exclusively, Go for reading, too."""
    async with client.open("x.csv(12).tmp", "xb") as file:
        await file.write(GOOD)
    await client.rename("x.csv(12).tmp", "x.csv")
    flags = wire.FXF_READ | wire.FXF_WRITE | wire.FXF_CREAT | wire.FXF_TRUNC
    async with client.open("y.csv", flags) as file:
        await file.write(GOOD.decode())
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await file.read(offset=0)
    assert names(home) == ["x.csv", "y.csv"]


@pytest.mark.parametrize("mode", ["ab", "r+b"])
async def test_resuming_is_refused_at_open(home: Home, client: asyncssh.SFTPClient, mode: str) -> None:
    """Append and update are refused before a byte is sent."""
    with pytest.raises(asyncssh.SFTPFailure, match="put the whole file again"):
        await client.open("x.csv", mode)
    assert home.unfinished() == []


async def test_resuming_is_refused_at_the_first_write(home: Home, client: asyncssh.SFTPClient) -> None:
    """A client that does not say so is found out by its first offset."""
    file = await client.open("x.csv", "wb")
    with pytest.raises(asyncssh.SFTPFailure, match="put the whole file again"):
        await file.write(GOOD, offset=100)
    with pytest.raises(asyncssh.SFTPFailure):
        await file.write(GOOD, offset=0)
    with pytest.raises(asyncssh.SFTPFailure):
        await file.close()
    assert (home.accepted(), home.unfinished(), home.events()) == ([], [], [])


async def test_a_gap_is_refused_at_the_close_and_told(home: Home, client: asyncssh.SFTPClient) -> None:
    """Half the clients ignore an error at the close, so the owner is told, too."""
    file = await client.open("x.csv", "wb")
    await file.write(GOOD, offset=0)
    await file.write(GOOD, offset=1000)
    with pytest.raises(asyncssh.SFTPFailure, match="Parts of"):
        await file.close()
    assert (home.accepted(), home.unfinished()) == ([], [])
    assert [event.file_name for event in home.events()] == ["x.csv"]


async def test_another_size_than_set_is_refused(home: Home, client: asyncssh.SFTPClient) -> None:
    """A client that sets a size means a file of that size."""
    file = await client.open("x.csv", "wb")
    await file.write(GOOD)
    await file.truncate(3)
    with pytest.raises(asyncssh.SFTPFailure, match="3 bytes came"):
        await file.close()
    assert home.accepted() == []


async def test_a_sparse_write_is_refused_at_once(home: Home, client: asyncssh.SFTPClient) -> None:
    """A terabyte of nothing is too large."""
    file = await client.open("x.csv", "wb")
    with pytest.raises(asyncssh.SFTPFailure, match="smaller than 4,000,000 bytes"):
        await file.write(b"x", offset=1 << 40)


async def test_one_session_carries_several_files_at_once(home: Home, client: asyncssh.SFTPClient) -> None:
    """Interleaved uploads do not mix."""
    first, second = await client.open("a.csv", "wb"), await client.open("b.csv", "wb")
    await first.write(b"a1")
    await second.write(b"b1")
    await first.write(b"a2")
    await first.close()
    await second.write(b"b2")
    await second.close()
    assert [data for _sidecar, data in home.accepted()] == [b"a1a2", b"b1b2"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (b"a\x07.csv", "control character"),
        (b"\xff.csv", "not UTF-8"),
        (b"x" * 300 + b".csv", "at most 255"),
        (b"x.exe", "not a .csv file"),
        (b"upload/", "is a folder"),
    ],
)
async def test_odd_names_are_refused_with_a_sentence(
    home: Home, client: asyncssh.SFTPClient, name: bytes, sentence: str
) -> None:
    """Whatever the bytes, the answer is a status."""
    with pytest.raises(asyncssh.SFTPError, match=sentence):
        await client.open(name, "wb")
    assert home.unfinished() == []
    assert len(home.events()) == (0 if name == b"upload/" else 1)


async def test_what_is_not_served_is_refused(client: asyncssh.SFTPClient) -> None:
    """Links, copies and the like answer "unsupported", and reading is denied."""
    async with client.open("x.csv", "wb") as file:
        await file.write(GOOD)
    for request in (
        lambda: client.symlink("x.csv", "y.csv"),
        lambda: client.readlink("x.csv"),
        lambda: client.link("x.csv", "y.csv"),
        lambda: client.statvfs("."),
        lambda: client.remote_copy("x.csv", "y.csv"),
    ):
        with pytest.raises((asyncssh.SFTPOpUnsupported, asyncssh.SFTPPermissionDenied)):
            await request()
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        await client.open("x.csv", "rb")


async def test_every_refused_operation_is_refused_on_the_wire(home: Home) -> None:
    """Whatever a client sends with a refused number or name, it gets a status, and the session goes on."""
    async with home.connect() as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None)
        await ask(process, bytes([wire.FXP_INIT]) + UInt32(3))
        body = String(b"x.csv") + UInt64(0) + UInt64(0) + UInt64(0)
        for key, operation in OPERATIONS.items():
            if operation.refusal is not None:
                head = bytes([key]) if isinstance(key, int) else bytes([wire.FXP_EXTENDED])
                name = b"" if isinstance(key, int) else String(key)
                answer = await ask(process, head + UInt32(7) + name + body)
                assert answer[0] == wire.FXP_STATUS, operation.name
                assert int.from_bytes(answer[5:9], "big") in {wire.FX_OP_UNSUPPORTED, wire.FX_PERMISSION_DENIED}
        answer = await ask(process, bytes([99]) + UInt32(7) + body)
        assert int.from_bytes(answer[5:9], "big") == wire.FX_OP_UNSUPPORTED
        answer = await ask(process, bytes([wire.FXP_OPEN]) + UInt32(7) + b"\xff\xff")
        assert int.from_bytes(answer[5:9], "big") == wire.FX_BAD_MESSAGE
        process.close()


async def test_signals_and_breaks_change_nothing(home: Home) -> None:
    """They are for programs behind a terminal; a session that is sent one goes on."""
    async with home.connect() as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None)
        await ask(process, bytes([wire.FXP_INIT]) + UInt32(3))
        flags = UInt32(wire.FXF_WRITE | wire.FXF_CREAT) + UInt32(0)
        answer = await ask(process, bytes([wire.FXP_OPEN]) + UInt32(1) + String(b"x.csv") + flags)
        process.send_signal("TERM")
        process.send_break(0)
        process.change_terminal_size(80, 24)
        answer = await ask(process, bytes([wire.FXP_CLOSE]) + UInt32(2) + answer[5:])
        assert int.from_bytes(answer[5:9], "big") == wire.FX_OK
        process.close()
    assert names(home) == ["x.csv"]


async def test_a_garbled_stream_ends_the_session_only(home: Home) -> None:
    """Nonsense leaves nothing, and the next client is served."""
    async with home.connect() as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None)
        process.stdin.write(b"\xff" * 64)
        await asyncio.wait_for(process.wait_closed(), 5)
    assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0


async def test_a_bug_shows_nothing_of_itself(home: Home, client: asyncssh.SFTPClient) -> None:
    """The client gets a sentence and a support id; the exception's text stays in the log."""
    async with client.open("x.csv", "wb") as file:
        await file.write(GOOD)
    file = await client.open("y.csv", "wb")
    home.spool.accepted.rename(home.spool.root / "moved")
    with pytest.raises(asyncssh.SFTPFailure, match="quote support_") as refused:
        await client.stat("other.csv")
    assert "accepted" not in str(refused.value)
    assert "Errno" not in str(refused.value)
    await file.write(GOOD)
    with pytest.raises(asyncssh.SFTPFailure, match="quote support_") as refused:
        await file.close()
    assert str(home.folder) not in str(refused.value)
    await until(lambda: not home.unfinished())


async def ask(process: asyncssh.SSHClientProcess[bytes], packet: bytes) -> bytes:
    """Send one SFTP packet and read one answer."""
    process.stdin.write(UInt32(len(packet)) + packet)
    length = int.from_bytes(await asyncio.wait_for(process.stdout.readexactly(4), 5), "big")
    return await asyncio.wait_for(process.stdout.readexactly(length), 5)
