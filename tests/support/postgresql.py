"""A PostgreSQL of the tests' own: one cluster a session, started from the machine's binaries, gone afterwards.

It listens on the loopback at a free port, trusts everybody there and syncs nothing. PostgreSQL refuses to run as
root, so root starts it as `postgres` or, where there is no such user, as `nobody`. Nothing but this cluster is ever
stopped.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_OWNERS = ("postgres", "nobody")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class Cluster:
    """A running cluster; makes databases and drops them."""

    def __init__(self, binaries: Path, **settings: str) -> None:
        """Prepare a cluster, with settings of its own where a test needs them."""
        self._binaries = binaries
        self._settings = {**_SETTINGS, **settings}
        self._folder = Path(tempfile.mkdtemp(prefix="postern-postgresql-"))
        self._owner = _owner()
        self.port = 0
        self._options = ""

    def start(self) -> None:
        """Make the cluster and wait until it answers."""
        if self._owner is not None:
            shutil.chown(self._folder, self._owner)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "postern", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in self._settings.items())
        self.resume()

    def resume(self) -> None:
        """Start the server, and wait until it answers."""
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", f"-p {self.port} {self._options}")

    def halt(self) -> None:
        """Stop the server as a crash would; what it has committed stays."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._folder / "data"))

    def stop(self) -> None:
        """Stop the cluster at once and remove it."""
        self.halt()
        shutil.rmtree(self._folder)

    def url(self, name: str) -> str:
        """The URL of a database, as the settings take it."""
        return f"postgresql://postern@127.0.0.1:{self.port}/{name}"

    def create(self, *, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run a statement that belongs to no database of a test."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload] # psycopg wants literals

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if self._owner is not None:
            command = ["runuser", "-u", self._owner, "--", *command]
        # Output goes to a file: the server inherits it, and a pipe would be open for as long as the server runs.
        output = self._folder / "output"
        with output.open("wb") as file:
            ended = subprocess.run(command, check=False, stdout=file, stderr=subprocess.STDOUT, cwd=self._folder)
        if ended.returncode != 0:
            raise RuntimeError(f"{program} failed: {output.read_text(errors='replace')}")


def find_binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl` of the newest PostgreSQL here, or None."""
    folders = []
    if shutil.which("pg_config"):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(asked.stdout.strip()))
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(installed, key=lambda folder: float(folder.parent.name), reverse=True)
    folders += [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep)]
    for folder in folders:
        if all((folder / program).is_file() for program in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """The session's cluster. Without the binaries its tests are skipped; in CI they fail."""
    binaries = find_binaries()
    if binaries is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    cluster = Cluster(binaries)
    cluster.start()
    yield cluster
    cluster.stop()


def _owner() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _OWNERS if name in known)
