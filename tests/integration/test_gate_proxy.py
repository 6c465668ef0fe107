"""Behind a load balancer: whose address counts, told by the PROXY protocol, version 2."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import asyncssh
import pytest
from integration.gate_fixtures import Home, make_home, running

from sftpd import door
from sftpd.proxy import SIGNATURE

CLIENTS = {"192.0.2.7": socket.AF_INET, "2001:db8::7": socket.AF_INET6}


def header(source: str) -> bytes:
    family = CLIENTS[source]
    address = socket.inet_pton(family, source)
    code = {socket.AF_INET: 0x11, socket.AF_INET6: 0x21}[family]
    rest = 2 * address + struct.pack("!HH", 40000, 22)
    return SIGNATURE + struct.pack("!BBH", 0x21, code, len(rest)) + rest


LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate behind a balancer at 127.0.0.1, with a key that gets in from 192.0.2.7 and 2001:db8::7 only."""
    home = make_home(tmp_path)
    home.entries.clear()
    home.enrol(home.key, sources=tuple(CLIENTS))
    home.enrol(home.folder / "anywhere")
    async with running(home, proxy_from=(ip_network("127.0.0.1/32"),)):
        yield home


async def gets_in(home: Home, *pieces: bytes, key: str = "key") -> bool:
    """Whether a client that the balancer announces like this logs in."""
    dial = socket.create_connection(("127.0.0.1", home.port))
    dial.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        dial.sendall(piece)
        await asyncio.sleep(0.01)
    try:
        async with home.connect(sock=dial, client_keys=[str(home.folder / key)]):
            return True
    except (asyncssh.Error, OSError):
        return False


@pytest.mark.parametrize("source", CLIENTS)
async def test_the_client_counts_not_the_balancer(home: Home, source: str) -> None:
    """Its address is the one that an enrolment allows."""
    assert await gets_in(home, header(source))


async def test_a_header_may_come_in_pieces(home: Home) -> None:
    """Byte by byte; and together with what follows it."""
    assert await gets_in(home, *(bytes([byte]) for byte in header("192.0.2.7")))
    dial = socket.create_connection(("127.0.0.1", home.port))
    dial.sendall(header("192.0.2.7") + b"SSH-2.0-x\r\n")
    dial.settimeout(10)
    assert (await asyncio.to_thread(dial.recv, 100)).startswith(b"SSH-2.0-Postern")
    dial.close()


async def test_a_health_check_is_the_balancers_own(home: Home) -> None:
    """LOCAL: the address is 127.0.0.1, which is not among the client's."""
    assert not await gets_in(home, LOCAL)
    assert await gets_in(home, LOCAL, key="anywhere")


async def test_a_balancer_without_a_header_gets_nothing(home: Home) -> None:
    """No guessing: the connection ends, and no byte of SSH is said."""
    for opening in (b"SSH-2.0-x\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", header("192.0.2.7")[:11] + b"X"):
        dial = socket.create_connection(("127.0.0.1", home.port))
        dial.sendall(opening)
        dial.settimeout(10)
        try:
            assert await asyncio.to_thread(dial.recv, 100) == b""
        except ConnectionResetError:
            pass
        finally:
            dial.close()
    assert not await gets_in(home, key="anywhere")


async def test_a_header_has_to_come_soon(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer sends it at once; who is slow is cut off."""
    monkeypatch.setattr(door, "HEADER_TIME", 0.3)
    with socket.create_connection(("127.0.0.1", home.port)) as dial:
        dial.sendall(header("192.0.2.7")[:20])
        dial.settimeout(10)
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(dial.recv, 100) == b""


async def test_nobody_else_is_believed(tmp_path: Path) -> None:
    """A peer that is not trusted is a client like any other, and its header is no SSH."""
    home = make_home(tmp_path)
    async with running(home, proxy_from=(ip_network("192.0.2.0/24"),)):
        assert not await gets_in(home, header("192.0.2.7"))
        assert await gets_in(home)


async def test_bans_and_room_go_by_the_client(tmp_path: Path) -> None:
    """One client that fails does not lock out those behind the same balancer."""
    home = make_home(tmp_path)
    home.enrol(home.folder / "key-of-another", campaign_id=home.campaign_id.replace("_", "_0")[:-1])
    async with running(home, proxy_from=(ip_network("127.0.0.1/32"),), ban_points=3):
        for _ in range(8):
            await gets_in(home, header("192.0.2.7"), key="key-of-another")
        assert not all([await greets(home, "192.0.2.7") for _ in range(5)])
        assert all([await greets(home, "2001:db8::7") for _ in range(5)])


async def greets(home: Home, source: str) -> bool:
    """Whether a connection of that client hears of SSH."""
    dial = socket.create_connection(("127.0.0.1", home.port))
    dial.settimeout(10)
    try:
        dial.sendall(header(source))
        return bool(await asyncio.to_thread(dial.recv, 100))
    except ConnectionError:
        return False
    finally:
        dial.close()
