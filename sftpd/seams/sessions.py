"""A session on a channel: SFTP, and nothing else that SSH has."""

import asyncio
from collections.abc import Callable
from typing import cast

import asyncssh
from asyncssh.connection import SSHServerConnection
from asyncssh.stream import SSHServerStreamSession
from typing_extensions import override

from sftpd.seams.requests import GateHandler, Service

# What a client may send ahead of what was read; more makes nothing faster, and each session may fill it.
WINDOW = 1024 * 1024
OLD_SCP = b"Only SFTP is served here: use scp without -O (OpenSSH 9.0 or newer), or sftp.\n"


class SftpSession(SSHServerStreamSession[bytes]):
    """A session that runs the SFTP subsystem and nothing else: no shell, no command, no terminal.

    Subclassed because `sftp_factory=` bypasses `session_requested`, where sessions are limited, and keeps the
    task that serves the session to itself: the gate has to wait for it before it leaves.
    """

    def __init__(
        self,
        *,
        serve: "Callable[[asyncssh.SSHServerChannel[bytes]], Service]",
        on_task: "Callable[[asyncio.Task[None]], None]",
        on_data: Callable[[int], None],
        on_end: "Callable[[SftpSession], None]",
    ) -> None:
        super().__init__(None)
        self._serve = serve
        self._on_task = on_task
        self._on_data = on_data
        self._on_end = on_end
        self._is_old_scp = False

    @override
    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    @override
    def exec_requested(self, command: str) -> bool:
        """Run no command; only tell who comes with scp's old protocol what to do. scp hides why it was refused."""
        self._is_old_scp = command.startswith("scp ")
        return self._is_old_scp

    @override
    def exception_received(self, exc: Exception) -> None:
        """Signals, breaks and terminal sizes mean nothing here; asyncssh would end the connection with a fault."""

    @override
    def session_started(self) -> None:
        channel = cast("asyncssh.SSHServerChannel[bytes]", self._chan)
        if self._is_old_scp:
            channel.write_stderr(OLD_SCP)
            channel.exit(1)
            return
        handler = GateHandler(
            self._serve(channel), asyncssh.SSHReader(self, channel), asyncssh.SSHWriter(self, channel)
        )
        self._on_task(channel.get_connection().create_task(handler.run(), channel.logger))

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._on_data(len(data))
        super().data_received(data, datatype)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_end(self)


def bare_channel(connection: SSHServerConnection) -> "asyncssh.SSHServerChannel[bytes]":
    """A channel for SFTP. It takes no environment: asyncssh would keep all that a client sends.

    Nor does it put each packet into words for a log that is off.
    """
    channel = connection.create_server_channel(encoding=None, window=WINDOW)
    vars(channel)["_process_env_request"] = lambda _packet: False
    vars(channel)["log_received_packet"] = vars(channel)["log_sent_packet"] = lambda *_packet: None
    return channel
