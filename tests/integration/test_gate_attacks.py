"""What hostile guests and clients do: the others are served meanwhile, memory stays flat, and afterwards all is well.

`POSTERN_ATTACKS=full` runs them with full counts and holds the others to a second.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncssh
import pytest
from asyncssh import constants as wire
from asyncssh.packet import Byte, String, UInt32
from integration.gate_fixtures import GOOD, Home, gate_process, make_home, make_key, memory_of, until

from postern.model import IdKind, new_id
from postern.times import iso, utc_now
from storage.spool_records import RecentUpload

FULL = os.environ.get("POSTERN_ATTACKS") == "full"
MOST_MEMORY = 150  # MB
# A second, but on a machine that runs other tests a process may have to wait for its turn.
LONGEST_PUT = 1.0 if FULL else 20.0

Attack = Callable[[Home], Awaitable[None]]


def count(full: int, reduced: int) -> int:
    return full if FULL else reduced


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate that is a process of its own, with a campaign that is attacked by, and one that wants to be served."""
    home = make_home(tmp_path)
    home.enrol(home.folder / "other", campaign_id=new_id(IdKind.CAMPAIGN))
    async with gate_process(home, max_file_size=30_000_000):
        yield home


async def others_are_served(home: Home, attack: Attack, *, rounds: int = 3) -> None:
    """Run the attack, put files as the other campaign meanwhile and afterwards, and look at the memory."""
    other = next(campaign for campaign in home.entries if campaign != home.campaign_id)
    login = {"key": home.folder / "other", "user": other}

    async def put() -> float:
        began = time.monotonic()
        outcome = await home.sftp(f"put {home.file('other.csv')}", **login)
        took = time.monotonic() - began
        assert outcome.status == 0, outcome.output
        memory.append(memory_of(home.pid))
        return took

    memory: list[float] = []
    calm = [await put() for _ in range(rounds)]
    attacking = asyncio.create_task(attack(home))
    waits = []
    while len(waits) < rounds or not attacking.done():
        waits.append(await put())
        await asyncio.sleep(0.05)
    await attacking
    print(
        f"\n{attack.__name__}: {len(waits)} puts, the longest {max(waits):.2f} s (before, {max(calm):.2f} s), "
        f"memory at most {max(memory):.0f} MB"
    )
    assert max(waits) < LONGEST_PUT
    assert max(memory) < MOST_MEMORY
    await until(lambda: not home.unfinished())
    assert (await home.sftp(f"put {home.file('mine.csv')}")).status == 0
    names = [sidecar.file_name for sidecar, _data in home.accepted()]
    assert names.count("other.csv") == len(calm) + len(waits)


async def dial(home: Home) -> socket.socket:
    """A connection on which nothing is read."""
    made = socket.socket()
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", home.port))
    return made


@asynccontextmanager
async def channel(home: Home) -> AsyncIterator["asyncssh.SSHClientProcess[bytes]"]:
    """A channel with SFTP on which any bytes can be sent."""
    async with home.connect() as connection:
        yield await connection.create_process(subsystem="sftp", encoding=None)


def request(kind: int, *fields: bytes) -> bytes:
    payload = Byte(kind) + b"".join(fields)
    return UInt32(len(payload)) + payload


async def silent_connections(home: Home) -> None:
    """Dials and says nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(count(1000, 200)):
            stack.enter_context(await dial(home))
        await asyncio.sleep(count(5, 1))


async def wrong_keys(home: Home) -> None:
    """Tries to get in with a key that nobody enrolled."""
    stranger = str(make_key(home.folder / "stranger"))
    lanes = asyncio.Semaphore(10)

    async def knock() -> str:
        async with lanes:
            try:
                async with home.connect(client_keys=[stranger]):
                    return "in"
            except (asyncssh.Error, OSError) as error:
                return type(error).__name__

    answers = await asyncio.gather(*(knock() for _ in range(count(200, 60))))
    assert "in" not in answers


async def many_channels(home: Home) -> None:
    """Opens one session after the other."""
    opened = 0
    async with home.connect() as connection:
        for _ in range(count(300, 100)):
            with suppress(asyncssh.ChannelOpenError):
                await connection.start_sftp_client()
                opened += 1
    assert opened == 4


async def many_handles(home: Home) -> None:
    """Opens one file after the other."""
    opened = []
    async with home.connect() as connection, connection.start_sftp_client() as client:
        for number in range(count(3000, 300)):
            with suppress(asyncssh.SFTPFailure):
                opened.append(await client.open(f"{number}.csv", "wb"))
        assert len(opened) == 16
        connection.abort()


async def sparse_writes(home: Home) -> None:
    """Writes a byte here and there, and far away."""
    async with home.connect() as connection, connection.start_sftp_client() as client:
        for _ in range(count(20, 5)):
            file = await client.open("x.csv", "wb")
            await file.write(b"a", offset=0)
            taken = 0
            with suppress(asyncssh.SFTPFailure):
                for offset in range(1000, 20_000_000, 10_000):
                    await file.write(b"a", offset=offset)
                    taken += 1
            assert taken < 100
            with pytest.raises(asyncssh.SFTPFailure):
                await file.write(b"a", offset=1 << 40)
            with pytest.raises(asyncssh.SFTPFailure):
                await file.close()


async def huge_packets(home: Home) -> None:
    """Announces packets of 16 MB and sends as much of them as it can, before and after the login."""
    for _ in range(count(40, 10)):
        with await dial(home) as guest, suppress(OSError):
            packet = b"SSH-2.0-x\r\n" + UInt32(1 << 24) + bytes(1 << 20)
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(guest, packet), 20)
        async with channel(home) as process:
            process.stdin.write(UInt32(1 << 24) + bytes(1 << 20))
            await asyncio.wait_for(process.wait_closed(), 20)


async def half_packets(home: Home) -> None:
    """Sends the largest request that is taken, but for its last byte, in as many sessions as there may be."""

    async def hold() -> None:
        with suppress(asyncssh.Error, OSError):
            async with home.connect() as connection:
                for _ in range(4):
                    process = await connection.create_process(subsystem="sftp", encoding=None)
                    process.stdin.write(UInt32(256 * 1024) + bytes(256 * 1024 - 1))
                await asyncio.sleep(count(5, 2))

    await asyncio.gather(*(hold() for _ in range(count(64, 16))))


async def slow_writers(home: Home) -> None:
    """Holds files open and sends a byte now and then."""

    async def dribble() -> None:
        with suppress(asyncssh.Error, OSError):
            async with home.connect() as connection, connection.start_sftp_client() as client:
                file = await client.open("x.csv", "wb")
                for _ in range(count(50, 10)):
                    await file.write(b"a")
                    await asyncio.sleep(0.1)
                connection.abort()

    await asyncio.gather(*(dribble() for _ in range(count(100, 20))))


async def many_rekeys(home: Home) -> None:
    """Exchanges keys again for every megabyte."""
    data = b"recipient,language\n" + GOOD[19:] * 1_400_000
    async with home.connect(rekey_bytes=1_000_000) as connection, connection.start_sftp_client() as client:
        for _ in range(count(5, 1)):
            async with client.open("rekeyed.csv", "wb") as file:
                await file.write(data[: count(29_000_000, 10_000_000)])


async def unread_answers(home: Home) -> None:
    """Asks and asks, and reads no answer."""
    async with channel(home) as process:
        process.stdin.write(request(wire.FXP_INIT, UInt32(3)))
        process.channel.pause_reading()
        question = request(wire.FXP_REALPATH, UInt32(1), String(b"/" + b"a" * 2000)) * 100
        with suppress(TimeoutError, BrokenPipeError, asyncssh.Error):
            async with asyncio.timeout(count(10, 3)):
                for _ in range(1000):
                    process.stdin.write(question)
                    await process.stdin.drain()


async def unread_connection(home: Home) -> None:
    """Asks for listings with a window that is as good as infinite, on a socket that it does not read: it is ended."""
    await asyncio.to_thread(remember_many, home)
    async with home.connect() as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None, window=2**31 - 1)
        process.stdin.write(request(wire.FXP_INIT, UInt32(3)))
        connection._transport.pause_reading()
        for number in range(count(3000, 1000)):
            handle = String(UInt32(number))
            process.stdin.write(
                request(wire.FXP_OPENDIR, UInt32(1), String(b"/"))
                + request(wire.FXP_READDIR, UInt32(2), handle) * 2
                + request(wire.FXP_CLOSE, UInt32(3), handle)
            )
            await asyncio.sleep(0)
        await until(lambda: '"why": "unread"' in (home.folder / "gate.log").read_text(), 60)
        connection.abort()


def remember_many(home: Home) -> None:
    """Let the campaign have put many files today."""
    at = str(iso(utc_now(), ZoneInfo("UTC")))
    folder = home.spool.recent / home.campaign_id
    folder.mkdir()
    for number in range(300):
        recent = RecentUpload(file_name=f"{'x' * 200}{number}.csv", size=1, received_at=at)
        (folder / f"{new_id(IdKind.UPLOAD)}.json").write_text(json.dumps(asdict(recent)))


async def huge_environment(home: Home) -> None:
    """Sets variable after variable."""
    for _ in range(count(20, 3)):
        async with home.connect() as connection:
            environment = {f"V{number}": "x" * 30_000 for number in range(count(500, 200))}
            with suppress(asyncssh.Error):
                await connection.create_process(subsystem="sftp", encoding=None, env=environment)


@pytest.mark.parametrize(
    "attack",
    [
        silent_connections,
        wrong_keys,
        many_channels,
        many_handles,
        sparse_writes,
        huge_packets,
        half_packets,
        slow_writers,
        many_rekeys,
        unread_answers,
        unread_connection,
        huge_environment,
    ],
)
async def test_others_are_served(home: Home, attack: Any) -> None:
    """Whatever one of them does, the others' files come in, the memory stays flat, and all of it passes."""
    await others_are_served(home, attack)
