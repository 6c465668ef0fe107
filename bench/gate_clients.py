"""The clients that are let loose on both servers: the stock `sftp`, and libraries where no process is to be started.

Logins are those of libssh2, the library of curl, from a pool of processes: it takes 1 ms of CPU time a login, where
asyncssh's client takes 3, so that the server is what is waited for. Everything here raises where a client is turned
away: a server that is fast because it serves nobody is not to be measured.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncssh
from ssh2.session import Session

from bench.gate_servers import Server

PROCESSES = 16  # that log in, one login after the other
_AT_ONCE = 16  # logins, while idle sessions are opened
_HELD = 1_000_000  # bytes that an idle session has written to its open file


def put(server: Server, path: Path, copies: int = 1, *options: str) -> float:
    """Seconds until as many stock clients, started at once, have all put a file."""
    environ = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    start = time.perf_counter()
    clients = [
        subprocess.Popen(
            _sftp(server, number, options),
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number in range(copies)
    ]
    for number, client in enumerate(clients):
        assert client.stdin is not None
        client.stdin.write(f"put {path} {number}.csv\n".encode())
        client.stdin.close()
    outputs = [client.stdout.read() for client in clients if client.stdout is not None]
    statuses = [client.wait() for client in clients]
    taken = time.perf_counter() - start
    for status, output in zip(statuses, outputs, strict=True):
        if status:
            raise RuntimeError(f"sftp to {server.title} ended with {status}: {output.decode(errors='replace')}")
    return taken


def negotiated(server: Server, *options: str) -> str:
    """The cipher and the MAC that the stock client agrees on with a server."""
    command = [
        "ssh",
        "-vv",
        "-p",
        str(server.port),
        *_login(server, options),
        "-s",
        f"{server.users[0]}@127.0.0.1",
        "sftp",
    ]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    (line,) = (line for line in ended.stderr.splitlines() if "kex: client->server cipher:" in line)
    words = line.split()
    return f"{words[words.index('cipher:') + 1]}, {words[words.index('MAC:') + 1]}".replace("@openssh.com", "")


def _sftp(server: Server, number: int, options: Sequence[str]) -> list[str]:
    user = server.users[number % len(server.users)]
    return ["sftp", "-q", "-b", "-", "-P", str(server.port), *_login(server, options), f"{user}@127.0.0.1"]


def _login(server: Server, options: Sequence[str]) -> list[str]:
    return [
        *("-F", "/dev/null", "-i", str(server.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *options,
    ]


def log_in(pool: Executor, server: Server, count: int) -> float:
    """Seconds until `count` clients have connected, logged in, opened SFTP and left."""
    share = count // PROCESSES
    start = time.perf_counter()
    for done in [pool.submit(_log_in, server, share) for _ in range(PROCESSES)]:
        done.result()
    return time.perf_counter() - start


def warm_up(pool: Executor) -> None:
    """Start the pool's processes before anything is timed."""
    for done in [pool.submit(time.sleep, 0.5) for _ in range(PROCESSES)]:
        done.result()


def _log_in(server: Server, count: int) -> None:
    for number in range(count):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session()
            session.handshake(connection)
            session.userauth_publickey_fromfile(server.users[number % len(server.users)], str(server.key))
            session.sftp_init()
            session.disconnect()


class Crowd:
    """Sessions that have a file open and say nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._key = asyncssh.read_private_key(server.key)
        self._stack = AsyncExitStack()
        self._size = 0

    async def grow(self, size: int) -> None:
        """Make it that many."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def enter(number: int) -> None:
            async with room:
                sftp = await self._stack.enter_async_context(_session(self._server, number, self._key))
                file = await sftp.open(f"{number}.csv", "wb")
                await file.write(bytes(_HELD))

        await asyncio.gather(*(enter(number) for number in range(self._size, size)))
        self._size = size

    async def leave(self) -> None:
        """End them all."""
        await self._stack.aclose()


@asynccontextmanager
async def _session(server: Server, number: int, key: asyncssh.SSHKey) -> AsyncIterator[asyncssh.SFTPClient]:
    """An SFTP session; the key is read once, and nothing of the machine's configuration."""
    async with (
        asyncssh.connect(
            "127.0.0.1",
            server.port,
            username=server.users[number % len(server.users)],
            client_keys=[key],
            known_hosts=None,
            config=None,
            agent_path=None,
            kex_algs=["curve25519-sha256"],
            encryption_algs=["aes128-gcm@openssh.com"],
            server_host_key_algs=["ssh-ed25519"],
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        yield sftp
