"""A gate of several processes on one port: who serves, who drains, and what a killed one leaves."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration.gate_fixtures import GOOD, WAIT, Home, gate_process, make_home, run, running, until

from postern.errors import PosternError
from postern.running import announcement

PROCESSES = 2


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    """A home without a gate."""
    return make_home(tmp_path)


@pytest.fixture
async def gate(home: Home) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gate of two processes."""
    async with gate_process(home, gate_processes=PROCESSES, drain_timeout=20) as process:
        yield process


def log_of(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home.folder / "gate.log").read_text().splitlines() if line.startswith("{")]


def pid_of(home: Home, number: int) -> int:
    said = announcement(home.settings.run_folder, f"gate-{number}")
    return 0 if said is None else int(said["pid"])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def unfinished_of(home: Home, number: int) -> list[Path]:
    return sorted((home.spool.incoming / f"gate-{number}").glob("upload_*"))


class Put:
    """An upload under way, and which process has it."""

    def __init__(self, connection: Any, sftp: Any, file: Any, name: str, number: int) -> None:
        self.connection, self.sftp, self.file, self.name, self.number = connection, sftp, file, name, number

    async def finish(self) -> None:
        await self.file.write(GOOD[9:])
        await self.file.close()
        self.sftp.exit()
        await self.sftp.wait_closed()

    async def leave(self) -> None:
        self.connection.abort()
        await self.connection.wait_closed()


async def begin(home: Home, name: str) -> Put:
    """Open a file and write a part of it."""
    before = {number: unfinished_of(home, number) for number in range(1, PROCESSES + 1)}
    connection = await home.connect()
    sftp = await connection.start_sftp_client()
    file = await sftp.open(name, "wb")
    await file.write(GOOD[:9])
    (number,) = (number for number, paths in before.items() if unfinished_of(home, number) != paths)
    return Put(connection, sftp, file, name, number)


async def one_for_each(home: Home) -> dict[int, Put]:
    """An upload under way in each of the processes; others are given up."""
    puts: dict[int, Put] = {}
    for attempt in range(200):
        if len(puts) == PROCESSES:
            return puts
        put = await begin(home, f"file{attempt}.csv")
        if put.number in puts:
            await put.leave()
            await until(lambda put=put: len(unfinished_of(home, put.number)) == 1)
        else:
            puts[put.number] = put
    raise AssertionError("one of the processes serves nobody")


async def test_all_processes_serve_and_nothing_is_lost(home: Home, gate: asyncio.subprocess.Process) -> None:
    """Twenty puts at once by the stock client: twenty uploads, and no process served them all."""
    home.file("good.csv")
    results = await asyncio.gather(*(home.sftp(f"put {home.folder / 'good.csv'} {n}.csv") for n in range(20)))
    assert [result.status for result in results] == [0] * 20
    assert sorted(sidecar.file_name for sidecar, _data in home.accepted()) == sorted(f"{n}.csv" for n in range(20))
    assert {data for _sidecar, data in home.accepted()} == {GOOD}
    puts = await one_for_each(home)  # of two, where each takes a connection at a time, both come to serve
    await asyncio.gather(*(put.finish() for put in puts.values()))
    assert len(home.accepted()) == 20 + PROCESSES
    served = {line["process"] for line in log_of(home) if line["event"] == "upload.accepted"}
    assert served == set(range(1, PROCESSES + 1))


async def test_a_session_sees_at_once_what_another_process_accepted(
    home: Home, gate: asyncio.subprocess.Process
) -> None:
    """A client may look for its upload through another connection than the one that it came by."""
    puts = await one_for_each(home)
    for round_ in range(3):
        assert f"{round_}.csv" not in await puts[2].sftp.listdir()
        file = await puts[1].sftp.open(f"{round_}.csv", "wb")
        await file.write(GOOD)
        await file.close()
        assert (await puts[2].sftp.stat(f"{round_}.csv")).size == len(GOOD)
        assert f"{round_}.csv" in await puts[2].sftp.listdir()
    await asyncio.gather(*(put.finish() for put in puts.values()))


async def test_all_processes_drain(home: Home, gate: asyncio.subprocess.Process) -> None:
    """SIGTERM to the gate: nobody is let in any more, uploads under way end well, then all are gone."""
    pids = [pid_of(home, number) for number in (1, 2)]
    assert pids[0] == gate.pid  # no process is there only to watch
    puts = await one_for_each(home)
    gate.send_signal(signal.SIGTERM)
    await until(lambda: len([line for line in log_of(home) if line["event"] == "gate.draining"]) == PROCESSES)
    await until(lambda: announcement(home.settings.run_folder, "gate") is None)
    with pytest.raises(ConnectionRefusedError):
        await home.connect()
    await asyncio.gather(*(put.finish() for put in puts.values()))
    assert await asyncio.wait_for(gate.wait(), 2 * WAIT) == 0
    assert len(home.accepted()) == PROCESSES
    assert all(is_gone(pid) for pid in pids)


async def test_a_killed_process_costs_its_siblings_nothing(home: Home, gate: asyncio.subprocess.Process) -> None:
    """It comes back and sweeps what it was receiving; the other one's upload stays and ends well."""
    puts = await one_for_each(home)
    survivor, victim = puts[1], puts[2]
    (living,), (left,) = unfinished_of(home, 1), unfinished_of(home, 2)
    first, pid = pid_of(home, 1), pid_of(home, 2)
    assert first == gate.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid_of(home, 2) not in {0, pid})
    assert not left.exists()
    assert living.is_dir()
    assert pid_of(home, 1) == first
    await survivor.finish()
    assert [sidecar.file_name for sidecar, _data in home.accepted()] == [survivor.name]
    with pytest.raises((asyncssh.Error, OSError)):
        await victim.finish()
    again = await one_for_each(home)  # the one that came back serves
    await asyncio.gather(*(put.finish() for put in again.values()))
    assert len(home.accepted()) == 1 + PROCESSES


async def test_without_the_first_the_others_drain_and_keep_other_gates_away(home: Home) -> None:
    """SIGKILL to the first process: a new gate may not sweep while an upload is under way in another one."""
    async with gate_process(home, gate_processes=PROCESSES, drain_timeout=30) as gate:
        puts = await one_for_each(home)
        pid = pid_of(home, 2)
        gate.kill()
        await gate.wait()
        await until(lambda: len([line for line in log_of(home) if line["event"] == "gate.draining"]) == PROCESSES - 1)
        with pytest.raises(PosternError, match="Another gate"):
            async with running(home):
                pass
        await puts[2].finish()
        await until(lambda: is_gone(pid), 2 * WAIT)
        with pytest.raises((asyncssh.Error, OSError)):
            await puts[1].finish()
    assert [sidecar.file_name for sidecar, _data in home.accepted()] == [puts[2].name]
    async with running(home):
        assert home.unfinished() == []
        assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0


async def test_a_gate_of_which_a_process_cannot_serve_ends(home: Home) -> None:
    """And says why: here the port of the first one's metrics is taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        named = {
            "POSTERN_HOME": str(home.settings.home),
            "POSTERN_SFTP_HOST": "127.0.0.1",
            "POSTERN_SFTP_PORT": "0",
            "POSTERN_GATE_PROCESSES": str(PROCESSES),
            "POSTERN_GATE_METRICS_PORT": str(min(int(listener.getsockname()[1]), 65_000)),
        }
        outcome = await run(sys.executable, "-m", "postern", "gate", **named)
    assert outcome.status == 1
    assert "metrics cannot be served" in outcome.output


@pytest.mark.parametrize("processes", [1, 2])
async def test_strangers_are_refused(
    home: Home, gate: asyncio.subprocess.Process, tmp_path: Path, processes: int
) -> None:
    """A second gate on the same home, and one of another home on the same port; each is told what is wrong."""
    named = {
        "POSTERN_GATE_PROCESSES": str(processes),
        "POSTERN_SFTP_HOST": "127.0.0.1",
        "POSTERN_SFTP_PORT": str(home.port),
    }
    command = (sys.executable, "-m", "postern", "gate")
    second = await run(*command, POSTERN_HOME=str(home.settings.home), **named)
    assert second.status == 1
    assert "Another gate runs" in second.output
    (tmp_path / "other").mkdir()
    stranger = make_home(tmp_path / "other")
    third = await run(*command, POSTERN_HOME=str(stranger.settings.home), **named)
    assert third.status == 1
    assert f"Another program listens on 127.0.0.1, port {home.port}" in third.output


async def test_leftovers_of_every_process_are_swept_at_the_start(home: Home) -> None:
    """Also where there are fewer processes than before."""
    async with gate_process(home, gate_processes=3) as gate:
        await until(lambda: pid_of(home, 3) != 0)
        for number in (1, 2, 3):
            (home.spool.incoming / f"gate-{number}" / "upload_left").mkdir()
        gate.send_signal(signal.SIGTERM)
        await asyncio.wait_for(gate.wait(), 2 * WAIT)
    async with running(home):
        assert home.unfinished() == []


def free_ports() -> int:
    """The first of two ports that follow each other and that nobody listens on."""
    for _attempt in range(100):
        with socket.create_server(("127.0.0.1", 0)) as listener, suppress(OSError):
            port = int(listener.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port
    raise AssertionError("no two free ports")


async def test_each_process_has_its_metrics(home: Home) -> None:
    """On ports that follow each other."""
    port = free_ports()
    async with gate_process(home, gate_processes=PROCESSES, gate_metrics_port=port):
        for number in range(PROCESSES):
            reader, writer = await asyncio.open_connection("127.0.0.1", port + number)
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"postern_gate_open_connections" in await asyncio.wait_for(reader.read(), WAIT)
            writer.close()
