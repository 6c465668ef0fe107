"""What Prometheus reads of a running gate."""

import asyncio
import socket
import time
import urllib.request
from pathlib import Path

import asyncssh
import pytest
from integration.gate_fixtures import GOOD, WAIT, make_home, make_key, running
from prometheus_client.parser import text_string_to_metric_families

from postern.errors import PosternError
from sftpd.connections import Connection
from sftpd.gate import Gate

PREFIX = "postern_gate_"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def text_of(port: int) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            content: bytes = answer.read()
            return content.decode()

    return await asyncio.to_thread(read)


async def read_metrics(port: int) -> dict[str, float]:
    """Every sample of ours, its label's value behind its name; those that are 0 are left out."""
    samples = [sample for family in text_string_to_metric_families(await text_of(port)) for sample in family.samples]
    return {
        " ".join([sample.name.removeprefix(PREFIX), *sample.labels.values()]): sample.value
        for sample in samples
        if sample.name.startswith(PREFIX) and not sample.name.endswith("_created") and sample.value
    }


async def metrics_with(port: int, name: str) -> dict[str, float]:
    """Read until that one is not 0 any more."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        found = await read_metrics(port)
        if name in found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} stayed 0")


async def test_what_happened_is_counted(tmp_path: Path) -> None:
    """Logins, refusals and uploads by their outcomes, and what is there now."""
    home, port = make_home(tmp_path), free_port()
    stranger = make_key(tmp_path / "stranger")
    async with running(home, gate_metrics_port=port):
        assert await read_metrics(port) == {}
        assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0
        assert (await home.sftp(f"put {home.file('notes.txt')}")).status == 1
        assert (await home.sftp(f"put {home.file('good.csv')} late.csv.part")).status == 0
        assert (await home.sftp("ls", key=stranger)).status != 0
        async with home.connect() as connection, connection.start_sftp_client() as sftp:
            file = await sftp.open("open.csv", "wb")
            await file.write(b"recipient")
            seen = await metrics_with(port, "open_files")
            assert (seen["open_files"], seen["open_connections"]) == (1, 1)
            connection.abort()
        found = await metrics_with(port, "uploads_abandoned_total not_closed")
        found = {name: value for name, value in found.items() if not name.startswith("open_")}  # they may lag behind
    assert found == {
        "connections_total": 5,
        "logins_total accepted": 4,
        "logins_total refused": 1,
        "refusals_total name_not_csv": 1,
        "refusals_total never_renamed": 1,
        "refusals_total not_found": 1,  # sftp looks whether the target of its put is a folder
        "uploads_accepted_total": 1,
        "uploads_abandoned_total never_renamed": 1,
        "uploads_abandoned_total not_closed": 1,
        "received_bytes_total": 2 * len(GOOD) + len(b"recipient"),
    }


async def test_bans_and_silent_guests_are_counted(tmp_path: Path) -> None:
    """A banned address, its turned away connections, and logins that took too long."""
    home, port = make_home(tmp_path), free_port()
    stranger = make_key(tmp_path / "stranger")
    async with running(home, gate_metrics_port=port, ban_points=2, login_timeout=1):
        with socket.create_connection(("127.0.0.1", home.port)):
            await metrics_with(port, "logins_total timed_out")
        for _each in range(3):
            with pytest.raises((asyncssh.Error, OSError)):
                await home.connect(client_keys=[str(stranger)])
        found = await read_metrics(port)
    assert found["bans_total"] == 1
    assert found["turned_away_total banned"] >= 1


async def test_a_silent_guest_is_counted_where_the_gate_was_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that ran out of time is that, however late the gate came to look at its connection."""

    class SlowConnection(Connection):
        def __init__(self, house: Gate) -> None:
            time.sleep(0.2)
            super().__init__(house)

    monkeypatch.setattr("sftpd.gate.Connection", SlowConnection)
    home, port = make_home(tmp_path), free_port()
    async with running(home, gate_metrics_port=port, ban_points=2, login_timeout=0.5):
        with socket.create_connection(("127.0.0.1", home.port)):
            found = await metrics_with(port, "logins_total timed_out")
    assert found["bans_total"] == 1


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-Guest\r\n", b"SSH-2.0-Guest\r\n" + bytes(20)])
@pytest.mark.parametrize("reads", [True, False])
async def test_a_guest_that_left_in_time_is_not_late(tmp_path: Path, says: bytes, reads: bool) -> None:
    """Also where the gate hears of it, or that the connection was reset, when the time is up."""
    home, port = make_home(tmp_path), free_port()
    async with running(home, gate_metrics_port=port, login_timeout=2):
        with socket.create_connection(("127.0.0.1", home.port)) as guest:
            if reads:
                assert (await asyncio.to_thread(guest.recv, 100)).startswith(b"SSH-2.0-Postern")
            else:
                await metrics_with(port, "open_connections")
            guest.sendall(says)
        time.sleep(2.5)  # noqa: ASYNC251 - this is what holds the gate up
        found = await metrics_with(port, "logins_total left")
    assert "logins_total timed_out" not in found


async def test_metrics_name_nobody(tmp_path: Path) -> None:
    """No campaign, key, address or file name, whatever happened; and no metrics without a port."""
    home, port = make_home(tmp_path), free_port()
    async with running(home, gate_metrics_port=port):
        assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0
        assert (await home.sftp(f"put {home.file('notes.txt')}")).status == 1
        text = await text_of(port)
    (entry,) = home.entries[home.campaign_id]
    for personal in (home.campaign_id, entry.fingerprint, entry.enrolment_id, "127.0.0.1", "good", "notes"):
        assert personal not in text
    with pytest.raises(OSError, match="refused"):
        await text_of(port)


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The gate does not start without what it was told to serve."""
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PosternError, match=str(port)):
            async with running(home, gate_metrics_port=port):
                pass
