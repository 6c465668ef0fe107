"""A PostgreSQL of the bench's own, with its defaults: what it commits is on disk.

It listens on the loopback at a free port and is gone afterwards. PostgreSQL refuses to run as root, so root starts it
as `postgres` or, where there is no such user, as `nobody`.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path | None:
    """The folder with the programs of the newest PostgreSQL here, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    folders += [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep)]
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextmanager
def postgresql(binaries: Path) -> Iterator[str]:
    """Start one; yields the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="postern-bench-postgresql-"))
    users = {entry.pw_name for entry in pwd.getpwall()}
    owner = next(name for name in ("postgres", "nobody") if name in users) if os.geteuid() == 0 else None
    if owner:
        shutil.chown(folder, owner)

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), *arguments, "-D", str(folder / "data")]
        with (folder / "output").open("wb") as output:  # the server inherits it; a pipe would stay open
            subprocess.run(
                ["runuser", "-u", owner, "--", *command] if owner else command,
                check=True, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
    try:
        run("initdb", "-U", "postern", "-A", "trust", "-E", "UTF8", "--locale=C")
        run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
        try:
            yield f"postgresql://postern@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "fast")
    finally:
        shutil.rmtree(folder)
