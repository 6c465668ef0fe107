"""Guests who have not logged in, and how much those who have may have at a time."""

import asyncio
import os
import socket
import statistics
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.channel import SSHClientChannel
from integration.gate_fixtures import GOOD, Home, make_home, make_key, running, until
from structlog.testing import capture_logs

from postern.model import IdKind, new_id
from storage.spool_records import EventKind

TRIES = int(os.environ.get("POSTERN_LOGIN_TRIES", "20"))  # 500 measures
UNEQUAL = 0.001 if TRIES >= 500 else 0.05  # seconds between medians; few tries on a busy machine differ by chance


class Dial:
    """A plain connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)

    async def read(self) -> bytes:
        """What comes next; nothing where the gate ended it."""
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1000), 10)
        except ConnectionError:
            return b""

    async def is_let_in(self) -> bool:
        return (await self.read()).startswith(b"SSH-2.0-Postern")


async def fails(home: Home, key: Path, **options: Any) -> float:
    """Log in with a key that gets nowhere; returns how long that took, in seconds."""
    began = time.perf_counter()
    with pytest.raises((asyncssh.Error, OSError)):
        async with home.connect(client_keys=[str(key)], **options):
            pass
    return time.perf_counter() - began


async def gets_in(home: Home) -> bool:
    """Log in with the enrolled key, as a person would: once more after a second or two."""
    for _ in range(5):
        if (await home.sftp("ls")).status == 0:
            return True
        await asyncio.sleep(1.1)
    return False


async def ban(home: Home, key: Path) -> None:
    """Fail until the gate has had enough."""
    with capture_logs() as lines:
        for _ in range(20):
            await fails(home, key)
            if any(line["event"] == "address.banned" for line in lines):
                return
    pytest.fail("nobody was banned")


async def test_silent_guests_give_way_to_newcomers(tmp_path: Path) -> None:
    """An address that is full of them still gets in, and so do others."""
    home = make_home(tmp_path)
    async with running(home, max_guests_per_address=3):
        dials = [Dial(home.port) for _ in range(3)]
        assert all([await dial.is_let_in() for dial in dials])
        dials.append(Dial(home.port))
        assert await dials[3].is_let_in()
        assert await dials[0].read() == b""
        assert (await home.sftp("ls")).status == 0
        for dial in dials:
            dial.socket.close()


@pytest.mark.parametrize(("limit", "processes"), [(2, 1), (6, 3)])
async def test_a_full_house_lets_newcomers_in(tmp_path: Path, limit: int, processes: int) -> None:
    """The limit over all addresses gives way in the same manner; several processes share it out."""
    home = make_home(tmp_path)
    async with running(home, max_guests=limit, gate_processes=processes):
        dials = [Dial(home.port) for _ in range(2)]
        assert all([await dial.is_let_in() for dial in dials])
        dials.append(Dial(home.port))
        assert await dials[2].is_let_in()
        assert await dials[0].read() == b""
        assert (await home.sftp("ls")).status == 0
        for dial in dials:
            dial.socket.close()


async def test_a_banned_address_is_let_in_by_the_trickle(tmp_path: Path) -> None:
    """Turned away before a byte is said, but not each time; and a key that is enrolled ends the ban."""
    home = make_home(tmp_path)
    stranger = make_key(home.folder / "stranger")
    async with running(home, ban_points=5):
        await ban(home, stranger)
        dials = [Dial(home.port) for _ in range(10)]
        assert not all([await dial.is_let_in() for dial in dials])
        for dial in dials:
            dial.socket.close()
        assert await gets_in(home)
        for _ in range(10):
            await fails(home, stranger)
        dials = [Dial(home.port) for _ in range(3)]
        assert all([await dial.is_let_in() for dial in dials])
        for dial in dials:
            dial.socket.close()


async def test_a_neighbour_who_fails_locks_nobody_out(tmp_path: Path) -> None:
    """Every login of an address that is known works while another one there fails and fails."""
    home = make_home(tmp_path)
    stranger = make_key(home.folder / "stranger")
    async with running(home, ban_points=5):
        assert (await home.sftp("ls")).status == 0
        failing = [asyncio.create_task(fails(home, stranger)) for _ in range(30)]
        for _ in range(5):
            outcome = await home.sftp(f"put {home.file('x.csv')}")
            assert outcome.status == 0, outcome.output
        await asyncio.gather(*failing)
    assert len(home.accepted()) == 5


async def test_an_address_that_an_enrolment_names_is_never_banned(tmp_path: Path) -> None:
    """Its owner has not even logged in yet."""
    home = make_home(tmp_path)
    home.enrol(home.folder / "named", sources=("127.0.0.1",))
    stranger = make_key(home.folder / "stranger")
    async with running(home, ban_points=3):
        with capture_logs() as lines:
            for _ in range(8):
                await fails(home, stranger)
        assert not any(line["event"] == "address.banned" for line in lines)
        assert (await home.sftp("ls", key=home.folder / "named")).status == 0


async def test_a_campaign_has_so_many_connections(tmp_path: Path) -> None:
    """One more is told why and ended; the others go on, and other campaigns have their own."""
    home = make_home(tmp_path)
    other = home.enrol(home.folder / "other", campaign_id=new_id(IdKind.CAMPAIGN))
    campaign_id = next(name for name, entries in home.entries.items() if other in entries)
    async with running(home, max_sessions=2), AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(home.connect()) for _ in range(2)]
        third = await home.sftp("ls", options=("-o", "LogLevel=INFO"))
        assert third.status != 0
        assert "too many connections" in third.output
        assert not any(connection.is_closed() for connection in connections)
        assert (await home.sftp("ls", user=campaign_id, key=home.folder / "other")).status == 0
        connections[0].close()
        await connections[0].wait_closed()
        assert (await home.sftp("ls")).status == 0


async def test_a_campaign_has_so_many_sessions_and_files(tmp_path: Path) -> None:
    """Over all of its connections; what ends makes room."""
    home = make_home(tmp_path)
    async with running(home, max_sessions=3, max_unfinished=3), AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(home.connect()) for _ in range(2)]
        clients = [await each.start_sftp_client() for each in (first, first, second)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await second.start_sftp_client()
        files = [await client.open(f"{number}.csv", "wb") for number, client in enumerate(clients)]
        with pytest.raises(asyncssh.SFTPFailure, match="no more than 3 unfinished files in one campaign"):
            await clients[0].open("x.csv", "wb")
        await files[0].write(GOOD)
        await files[0].close()
        async with clients[0].open("x.csv", "wb") as file:
            await file.write(GOOD)
    assert sorted(sidecar.file_name for sidecar, _data in home.accepted()) == ["0.csv", "x.csv"]


async def test_a_channel_that_asks_for_nothing_is_a_session(tmp_path: Path) -> None:
    """It holds memory as one that serves does."""
    home = make_home(tmp_path)
    async with running(home), home.connect() as connection:
        loop = asyncio.get_running_loop()
        channels = [SSHClientChannel(connection, loop, "strict", None, "strict", 100_000, 30_000) for _ in range(5)]
        for channel in channels[:4]:
            await channel._open(b"session")
        with pytest.raises(asyncssh.ChannelOpenError):
            await channels[4]._open(b"session")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
        assert (await home.sftp("ls")).status == 0


async def test_an_upload_that_hardly_moves_is_ended(tmp_path: Path) -> None:
    """A byte now and then is no progress; a client without an open file may take its time."""
    home = make_home(tmp_path)
    async with running(home, idle_timeout=1.5), home.connect() as slow, home.connect() as calm:
        clients = [await connection.start_sftp_client() for connection in (slow, calm)]
        file = await clients[0].open("x.csv", "wb")
        for _ in range(100):
            with suppress(asyncssh.SFTPError):
                await file.write(b"a")
            await clients[1].stat(".")
            await asyncio.sleep(0.1)
            if slow.is_closed():
                break
        assert slow.is_closed()
        assert not calm.is_closed()
        await until(lambda: not home.unfinished())


async def test_a_disk_that_is_nearly_full_takes_no_new_file(tmp_path: Path) -> None:
    """Refused at OPEN, with a sentence that the stock client shows."""
    home = make_home(tmp_path)
    async with running(home, disk_reserve=10**18):
        outcome = await home.sftp(f"put {home.file('x.csv')}")
        assert outcome.status != 0
        assert "no room left on its disk" in outcome.output
    assert (home.accepted(), home.unfinished()) == ([], [])


async def test_many_logins_of_a_key_are_told_at_once(tmp_path: Path) -> None:
    """No login waits for a disk; the last one of each key is in the spool when the gate has stopped."""
    home = make_home(tmp_path)
    home.enrol(home.folder / "second")
    with capture_logs() as lines:
        async with running(home):
            for _ in range(10):
                for key in (home.key, home.folder / "second"):
                    async with home.connect(client_keys=[str(key)]):
                        pass
    logins = home.events(EventKind.LOGIN)
    entries = home.entries[home.campaign_id]
    assert sum(line["event"] == "login.accepted" for line in lines) == 20
    assert {event.key_fingerprint for event in logins} == {entry.fingerprint for entry in entries}
    assert len(logins) < 20


async def test_unknown_users_and_wrong_keys_take_as_long(tmp_path: Path) -> None:
    """Medians of tries that take turns; `POSTERN_LOGIN_TRIES=500` holds them to a millisecond."""
    home = make_home(tmp_path)
    stranger = make_key(home.folder / "stranger")
    times: dict[str, list[float]] = {home.campaign_id: [], new_id(IdKind.CAMPAIGN): []}
    async with running(home, ban_points=0):
        for turn in range(TRIES):
            for user, taken in list(times.items())[:: 1 if turn % 2 else -1]:
                taken.append(await fails(home, stranger, username=user))
    wrong_key, unknown_user = (statistics.median(taken) for taken in times.values())
    print(f"\nwrong key {wrong_key * 1000:.3f} ms, unknown user {unknown_user * 1000:.3f} ms")
    assert abs(wrong_key - unknown_user) < UNEQUAL


@pytest.mark.parametrize("change", ["key revoked", "campaign deleted", "sources changed"])
async def test_a_change_of_the_keyring_ends_sessions(tmp_path: Path, change: str) -> None:
    """Within two seconds, whichever change takes the right away."""
    home = make_home(tmp_path)
    entry = home.enrol(home.folder / "mine", sources=("127.0.0.1",))
    async with running(home), home.connect(client_keys=[str(home.folder / "mine")]) as connection:
        client = await connection.start_sftp_client()
        file = await client.open("x.csv", "wb")
        await file.write(GOOD)
        others = [each for each in home.entries[home.campaign_id] if each is not entry]
        if change == "key revoked":
            home.entries[home.campaign_id] = others
        elif change == "campaign deleted":
            del home.entries[home.campaign_id]
        else:
            elsewhere = type(entry)(
                public_key=entry.public_key,
                fingerprint=entry.fingerprint,
                enrolment_id=entry.enrolment_id,
                sources=("192.0.2.0/24",),
            )
            home.entries[home.campaign_id] = [*others, elsewhere]
        home.write_keyring()
        await asyncio.wait_for(connection.wait_closed(), 2)
        await until(lambda: not home.unfinished())
    assert home.accepted() == []
