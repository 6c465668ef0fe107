"""The gate as its systemd unit runs it: a socket of the host's, and no network of its own to call anybody by."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from integration.gate_fixtures import WAIT, make_home
from integration.test_gate_activation import ACTIVATE

ALONE = ["unshare", "--net", "--"]


def _can_be_alone() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*ALONE, "true"], check=False).returncode == 0


def interfaces_of(pid: int) -> list[str]:
    """The network interfaces that a process sees."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


@pytest.mark.skipif(not _can_be_alone(), reason="needs unshare(1) and the right to use it")
async def test_a_gate_without_a_network_serves_its_socket(tmp_path: Path) -> None:
    """PrivateNetwork=yes: uploads come in as ever."""
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "gate.log").open("ab") as log:
        home.port = listener.getsockname()[1]
        gate = await asyncio.create_subprocess_exec(
            *(*ALONE, sys.executable, "-c", ACTIVATE, str(listener.fileno()), "gate"),
            env={**os.environ, "POSTERN_HOME": str(home.settings.home), "POSTERN_DISK_RESERVE": "0"},
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
        try:
            put = await home.sftp(f"put {home.file('good.csv')}")
            assert put.status == 0, (tmp_path / "gate.log").read_text()
            assert interfaces_of(gate.pid) == ["lo"]
        finally:
            gate.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gate.wait(), 3 * WAIT) == 0
    assert len(home.accepted()) == 1
