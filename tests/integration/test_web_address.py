"""The web role on IPv6: it listens there, and URLs have the brackets that they need."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.waiting import until

from postern.cli.supervise import _with_ports
from postern.settings import ServeSettings

pytest_plugins = ["support.databases"]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(("host", "dialled"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])])
def test_web_answers_on_ipv6(sqlite_url: str, tmp_path: Path, host: str, dialled: list[str]) -> None:
    """On one address, or on every one."""
    home = tmp_path / "home"
    environ = {
        "PATH": os.environ["PATH"],
        "POSTERN_HOME": str(home),
        "POSTERN_HTTP_HOST": host,
        "POSTERN_HTTP_PORT": str(_free_port()),
    }
    command = [sys.executable, "-P", "-m", "postern", "web"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as web:
        try:
            said = home / "run" / "web.json"
            until(said.exists, "web to listen")
            port = json.loads(said.read_text())["port"]
            for address in dialled:
                with urllib.request.urlopen(f"http://{address}:{port}/healthz", timeout=10) as answer:
                    assert answer.status == 200
        finally:
            web.terminate()
            web.wait(30)


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:"), ("::", "http://[::1]:"), ("0.0.0.0", "http://127.0.0.1:")]
)
def test_serve_settles_on_a_port_there_and_says_how_to_reach_it(tmp_path: Path, host: str, url: str) -> None:
    """Where neither port nor public address is set."""
    settings = ServeSettings(home=tmp_path, http_host=host, http_port=0, sftp_host="::1", sftp_port=0)
    settled = _with_ports(settings, [])
    assert settled.public_url == f"{url}{settled.http_port}"
    assert 0 not in {settled.http_port, settled.sftp_port}


def _free_port() -> int:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port: int = listener.getsockname()[1]
        return port
