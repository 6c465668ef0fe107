"""How sessions end: killed clients, cut connections, gates that stop. Only an orderly close leaves an upload."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from integration.gate_fixtures import GOOD, Home, Outcome, gate_process, make_home, running, start, until
from support.spools import data_sizes

from postern.errors import PosternError
from postern.model import IdKind, new_id
from postern.running import announcement
from storage.spool_records import Event, EventKind

SLOW = ("-l", "4000")  # kbit/s: the large file takes seconds
LARGE = b"recipient,language\n" + b"6599999999,english\n" * 150_000


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate."""
    home = make_home(tmp_path)
    async with running(home):
        yield home


@asynccontextmanager
async def slow_put(home: Home, *lines: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A stock `sftp` in the middle of a put."""
    batch = home.file("batch", "\n".join(lines or [f"put {home.file('slow.csv', LARGE)}"]).encode())
    process = await start("sftp", "-b", str(batch), *SLOW, *home.login(), home.address())
    try:
        await until(lambda: received(home) > 0)
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


def received(home: Home) -> int:
    """Bytes of unfinished uploads."""
    return sum(data_sizes(home.spool.incoming))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def ended(process: asyncio.subprocess.Process) -> Outcome:
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_a_killed_client_leaves_nothing(home: Home, how: signal.Signals) -> None:
    """sftp and its ssh are gone: no upload, no event, an empty incoming folder."""
    async with slow_put(home) as process:
        os.killpg(process.pid, how)
        await until(lambda: not home.unfinished())
    assert (home.accepted(), home.events()) == ([], [])


async def test_a_killed_sftp_whose_ssh_lives_leaves_nothing(home: Home) -> None:
    """The channel's end without a close is no close."""
    async with slow_put(home) as process:
        process.kill()
        await until(lambda: not home.unfinished())
    assert (home.accepted(), home.events()) == ([], [])


async def test_a_killed_ssh_leaves_nothing(home: Home) -> None:
    """The transport's end is no close either."""
    async with slow_put(home) as process:
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        await until(lambda: not home.unfinished())
        assert (await ended(process)).status != 0
    assert home.accepted() == []


async def test_an_aborted_connection_leaves_nothing(home: Home) -> None:
    """A cable that is pulled after the last byte still leaves no upload."""
    async with home.connect() as connection:
        client = await connection.start_sftp_client()
        file = await client.open("x.csv", "wb")
        await file.write(GOOD)
        await until(lambda: received(home) == len(GOOD))
        connection.abort()
    await until(lambda: not home.unfinished())
    assert home.accepted() == []


async def test_a_session_that_leaves_without_closing_leaves_nothing(home: Home) -> None:
    """The end of the channel in good order is no close."""
    async with home.connect() as connection:
        client = await connection.start_sftp_client()
        file = await client.open("x.csv", "wb")
        await file.write(GOOD)
        client.exit()
        await client.wait_closed()
        await until(lambda: not home.unfinished())
    assert home.accepted() == []


async def test_a_connection_lost_before_the_rename_is_told(home: Home) -> None:
    """The file was whole, but nobody said that it is to be sent."""
    async with home.connect() as connection:
        client = await connection.start_sftp_client()
        async with client.open("x.csv.part", "wb") as file:
            await file.write(GOOD)
        connection.abort()
    await until(home.events)
    assert [event.file_name for event in home.events()] == ["x.csv.part"]
    assert (home.accepted(), home.unfinished()) == ([], [])


async def test_a_channel_that_says_nothing_ends_in_order(home: Home) -> None:
    """A client that opens SFTP and leaves gets its exit status, too."""
    async with home.connect() as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None)
        process.stdin.write_eof()
        await asyncio.wait_for(process.wait_closed(), 5)
        assert process.exit_status == 0
        assert not connection.is_closed()


async def test_a_stop_lets_uploads_end(tmp_path: Path) -> None:
    """The client in the middle of a put ends with status 0; new connections and new files are refused."""
    home = make_home(tmp_path)
    async with running(home) as stop, home.connect() as connection, slow_put(home) as process:
        client = await connection.start_sftp_client()
        stop.set()
        await until(lambda: announcement(home.settings.run_folder, "gate") is None)
        with pytest.raises(asyncssh.SFTPFailure, match="being restarted"):
            await client.open("late.csv", "w")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", home.port)
        outcome = await ended(process)
        assert outcome.status == 0, outcome.output
        await asyncio.wait_for(connection.wait_closed(), 5)
    ((sidecar, data),) = home.accepted()
    assert (sidecar.file_name, data) == ("slow.csv", LARGE)
    assert home.unfinished() == []


async def test_sigterm_lets_a_put_end(tmp_path: Path) -> None:
    """The process leaves with status 0 once the client has its OK; guests who say nothing do not hold it up."""
    home = make_home(tmp_path)
    async with gate_process(home, drain_timeout=60) as gate, slow_put(home) as process:
        with socket.create_connection(("127.0.0.1", home.port)):
            gate.send_signal(signal.SIGTERM)
            outcome = await ended(process)
            assert outcome.status == 0, outcome.output
            assert await asyncio.wait_for(gate.wait(), 20) == 0
    assert [data for _sidecar, data in home.accepted()] == [LARGE]
    assert home.unfinished() == []


async def test_a_stop_waits_only_so_long(tmp_path: Path) -> None:
    """What does not end in time is cut off, and its client fails."""
    home = make_home(tmp_path)
    async with running(home, drain_timeout=0.2) as stop, slow_put(home) as process:
        stop.set()
        assert (await ended(process)).status != 0
    assert (home.accepted(), home.unfinished()) == ([], [])


async def test_a_start_clears_what_a_dead_gate_left(tmp_path: Path) -> None:
    """Leftovers of a gate that was killed go; what it accepted and told stays."""
    home = make_home(tmp_path)
    home.spool.prepare()
    home.spool.begin(new_id(IdKind.UPLOAD)).write_bytes(b"half")
    event = Event(
        kind=EventKind.REFUSED,
        event_id=new_id(IdKind.UPLOAD),
        campaign_id=home.campaign_id,
        enrolment_id="enrolment_1",
        key_fingerprint="SHA256:x",
        peer="192.0.2.1",
        at="2026-01-01T00:00:00.000+00:00",
    )
    home.spool.tell(event)
    async with running(home):
        assert home.unfinished() == []
        assert home.events() == [event]


async def test_a_second_gate_on_the_same_home_does_not_start(home: Home) -> None:
    """Its start would clear away the uploads of the first."""
    with pytest.raises(PosternError, match="Another gate"):
        async with running(home):
            pass
    assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0


async def test_a_gate_says_where_it_listens(home: Home) -> None:
    """The port that it got is announced as long as it listens."""
    said = announcement(home.settings.run_folder, "gate")
    assert said is not None
    assert (said["pid"], said["host"], said["port"]) == (os.getpid(), "127.0.0.1", home.port)
