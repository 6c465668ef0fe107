"""The gate on sockets that were passed to it, as systemd does (sd_listen_fds(3))."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.gate_fixtures import WAIT, Home, make_home, until

from postern.errors import PosternError
from postern.running import announcement
from postern.settings import GateSettings
from sftpd.sockets import HANDED_DOWN, address_of, close_all, handed_down, open_listeners, passed_by_systemd

# What systemd does: the sockets at 3 and on, and the process's own id in LISTEN_PID.
ACTIVATE = """
import os, sys
passed = [int(number) for number in sys.argv[1].split(",")]
copies = [os.dup(number) for number in passed]
for place, copy in enumerate(copies, 3):
    os.dup2(copy, place)
    os.set_inheritable(place, True)  # where it was there already dup2 leaves it as it is
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(copies)), LISTEN_FDNAMES="postern.socket")
os.execv(sys.executable, [sys.executable, "-m", "postern", *sys.argv[2:]])
"""


@asynccontextmanager
async def activated(
    home: Home, listeners: Sequence[socket.socket], role: str = "gate", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A role that systemd started with these sockets; ended in order by the end of the block."""
    numbers = [listener.fileno() for listener in listeners]
    named = {"POSTERN_HOME": str(home.settings.home), "POSTERN_SFTP_PORT": "1", "POSTERN_DISK_RESERVE": "0"}
    with (home.folder / "gate.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), role),
            env={**os.environ, **named, **environment},
            pass_fds=numbers,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 3 * WAIT)


@pytest.mark.parametrize("processes", [1, 2])
async def test_who_dials_before_the_gate_runs_is_served(tmp_path: Path, processes: int) -> None:
    """The socket is there before the gate, and after it; clients wait in it and find the next one."""
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        home.port = listener.getsockname()[1]
        for round_ in range(2):
            put = asyncio.create_task(home.sftp(f"put {home.file('good.csv')} {round_}.csv"))
            async with activated(home, [listener], POSTERN_GATE_PROCESSES=str(processes)) as gate:
                assert (await put).status == 0, (home.folder / "gate.log").read_text()
                await until(lambda: announcement(home.settings.run_folder, "gate") is not None)
                said = announcement(home.settings.run_folder, "gate")
                assert said is not None
                assert said["port"] == home.port
            assert gate.returncode == 0
    assert [sidecar.file_name for sidecar, _data in home.accepted()] == ["0.csv", "1.csv"]


async def test_every_socket_is_listened_on(tmp_path: Path) -> None:
    """A unit may have several ListenStream= lines."""
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        async with activated(home, [one, two]):
            for listener in (one, two):
                home.port = listener.getsockname()[1]
                assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0
    assert len(home.accepted()) == 2


async def test_serve_hands_the_socket_to_its_gate(tmp_path: Path) -> None:
    """It is systemd's child, the gate is not."""
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        home.port = listener.getsockname()[1]
        async with activated(home, [listener], "serve", POSTERN_HTTP_PORT="0") as serve:
            await until(lambda: b"Postern is ready" in (home.folder / "gate.log").read_bytes(), 3 * WAIT)
            home.write_keyring()  # intake wrote one of its own, without enrolments
            await home.refreshed()
            assert (await home.sftp(f"put {home.file('good.csv')}")).status == 0
        assert serve.returncode == 0


def test_what_is_meant_for_another_process_is_left_alone() -> None:
    """An inherited LISTEN_PID names the parent; and the variables go no further."""
    for environ in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}, {"LISTEN_FDS": "1"}):
        assert passed_by_systemd(environ) == []
        assert environ == {}


def test_what_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    """A file, a UNIX socket, a datagram socket, a socket that is connected or bound only."""
    settings = GateSettings(home=tmp_path)
    unix, datagram, bound = socket.socket(socket.AF_UNIX), socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    with (tmp_path / "file").open("w") as file, unix, datagram, bound:
        bound.bind(("127.0.0.1", 0))
        for number in (file.fileno(), unix.fileno(), datagram.fileno(), bound.fileno()):
            with pytest.raises(PosternError, match=f"Descriptor {number}, "):
                open_listeners(settings, {HANDED_DOWN: str(number)})
        assert bound.getsockname()  # and it is still open


def test_a_socket_that_is_handed_down_is_taken() -> None:
    """Nothing else is bound."""
    made = open_listeners(GateSettings(sftp_host="127.0.0.1", sftp_port=0), {})
    copies = [listener.dup() for listener in made]
    environ = handed_down(copies)
    taken = open_listeners(GateSettings(sftp_host="192.0.2.1"), environ)
    assert address_of(taken) == address_of(made)
    assert environ == {}
    assert not any(os.get_inheritable(listener.fileno()) for listener in taken)
    for listener in copies:
        listener.detach()
    close_all([*made, *taken])


def test_an_address_of_ours_has_one_listener_for_each_family() -> None:
    """IPv4 and IPv6 are sockets of their own; a taken port is named."""
    made = open_listeners(GateSettings(sftp_host="::1", sftp_port=0), {})
    assert [listener.family for listener in made] == [socket.AF_INET6]
    assert [listener.proto for listener in made] == [socket.IPPROTO_TCP]  # else asyncio leaves Nagle's algorithm on
    host, port = address_of(made)
    with pytest.raises(PosternError, match=f"Another program listens on {host}, port {port}"):
        open_listeners(GateSettings(sftp_host=host, sftp_port=port), {})
    close_all(made)
