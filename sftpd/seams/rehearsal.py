"""A start's rehearsal of all seams: a gate that runs on another asyncssh than it was written for must not run."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import asyncssh
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import MSG_KEXINIT
from asyncssh.packet import Boolean, Byte, SSHPacket, String, UInt32
from asyncssh.sftp import SFTPServerHandler
from asyncssh.stream import SSHServerStreamSession

from sftpd.operations import OPERATIONS, Operation
from sftpd.seams.connections import GateConnection
from sftpd.seams.host_keys import HostKeys, host_key_pairs
from sftpd.seams.rehearsal_packets import SeamError, Wire, flushed, rehearse_packets
from sftpd.seams.requests import GateHandler

Result = TypeVar("Result")


def check_seams() -> None:
    """Make sure that asyncssh still is what the gate was written against.

    Raises:
        SeamError: it is not; says what is missing.
    """
    owners: Mapping[str, object] = {
        "_get_next_handle": SFTPServerHandler,
        "_cleanup": SFTPServerHandler,
        "_extensions": SFTPServerHandler,
        "recv_packet": SFTPServerHandler,
        "_process_packet": SFTPServerHandler,
        "choose_server_host_key": SSHServerConnection,
        "send_userauth_failure": SSHServerConnection,
        "_process_hostkeys_prove_00_at_openssh_dot_com_global_request": SSHServerConnection,
        "session_started": SSHServerStreamSession,
        "_process_env_request": asyncssh.SSHServerChannel,
        "log_received_packet": asyncssh.SSHServerChannel,
        "log_sent_packet": asyncssh.SSHServerChannel,
        "reload_config": SSHServerConnection,
        "_login_timer_callback": SSHServerConnection,
        "_force_close": SSHServerConnection,
        "send_newkeys": SSHServerConnection,
        "_recv_pkthdr": SSHServerConnection,
        "_accept_data": asyncssh.SSHServerChannel,
        "all_sig_algorithms": asyncssh.SSHKey,
    }
    for name, owner in owners.items():
        if not hasattr(owner, name):
            raise SeamError(f"asyncssh {asyncssh.__version__} has no {name}; install asyncssh~=2.24.1")
    if not hasattr(SSHPacket(b""), "_packet"):
        raise SeamError(f"asyncssh {asyncssh.__version__} keeps a packet's bytes elsewhere")
    missing = OPERATIONS.keys() - GateHandler._packet_handlers.keys()  # noqa: SLF001
    if missing:
        raise SeamError(f"asyncssh {asyncssh.__version__} does not know the operations {missing}")
    if "saslprep" not in SSHServerConnection._process_userauth_request.__code__.co_names:  # noqa: SLF001
        raise SeamError(f"asyncssh {asyncssh.__version__} prepares user names in another way")
    _rehearse_ending()
    asyncio.run(_rehearse_connection())


class _Rehearsal:
    """Stands in for a service, to see in which order a teardown calls it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def perform(self, operation: Operation, serve: Callable[[], Awaitable[Result]]) -> Result:
        self.calls.append(operation.name)
        return await serve()

    def session_ends(self) -> None:
        self.calls.append("session_ends")

    def close(self, _file: object) -> None:
        self.calls.append("close")

    def exit(self) -> None:
        self.calls.append("exit")


def _rehearse_ending() -> None:
    """Tear down a session with one open file: were the order another, a lost connection could accept a file."""
    quiet = SimpleNamespace(info=lambda *_words: None)
    quiet.get_child = lambda _name: quiet
    service = _Rehearsal()
    handler = GateHandler(
        service, cast(Any, SimpleNamespace(logger=quiet)), cast(Any, SimpleNamespace(close=lambda: None))
    )
    handler._file_handles[b"1"] = object()  # noqa: SLF001
    _run_at_once(handler._cleanup(None))  # noqa: SLF001
    if service.calls != ["session_ends", "close", "exit"]:
        raise SeamError(f"asyncssh {asyncssh.__version__} ends a session in another order: {service.calls}")


def _run_at_once(work: Coroutine[Any, Any, None]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise SeamError(f"asyncssh {asyncssh.__version__} waits while it ends a session")


async def _rehearse_connection() -> None:
    """Make a connection that nobody is at: what is read and set in one has to be there."""
    keys = host_key_pairs([asyncssh.generate_private_key("ssh-ed25519")])
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=asyncssh.SSHServer, config=None, server_host_keys=keys, gss_host=None, login_timeout=0
    )

    def connect() -> GateConnection:
        return GateConnection(options, HostKeys(used=keys, announced=keys), address="", most_failures=0)

    connection = connect()
    names = (
        "_transport",
        "_login_timer",
        "_deferred_packets",
        "_server_host_key",
        "_all_server_host_keys",
        "_inpbuf",
        "_logger",
    )
    missing = [name for name in names if not hasattr(connection, name)]
    if missing or not connection.choose_server_host_key([keys[0].algorithm]) or connection.unread:
        raise SeamError(f"asyncssh {asyncssh.__version__} makes another kind of connection (without {missing})")
    for version, is_heard_first in ((b"SSH-2.0-OpenSSH_9.9\r\n", True), (b"SSH-2.0-Other\r\n", False)):
        await _rehearse_offer(connect(), version, is_heard_first=is_heard_first)
    await rehearse_packets(connect())


async def _rehearse_offer(connection: GateConnection, version: bytes, *, is_heard_first: bool) -> None:
    """Shake hands in small pieces, up to the two offers: were one sent late or twice, nobody could log in."""
    wire = Wire()
    connection.connection_made(cast(asyncio.Transport, wire))
    connection.data_received(version)
    await flushed()
    early = len(wire.sent)
    offer = _client_offer()
    for start in range(0, len(offer), 50):
        connection.data_received(offer[start : start + 50])
    await flushed()
    sent = b"".join(wire.sent)
    connection.abort()
    await asyncio.sleep(0)
    seen = (early, sent.count(b"ext-info-s"), b"aes128-gcm" in sent, b"aes128-ctr" in sent)
    if seen != (1, 1, True, not is_heard_first):
        raise SeamError(f"asyncssh {asyncssh.__version__} offers its algorithms in another way: {seen}")


def _client_offer() -> bytes:
    """A KEXINIT (RFC 4253, 7.1) in a packet (6)."""
    ciphers = b"aes128-ctr,aes128-gcm@openssh.com"
    lists = (b"curve25519-sha256,ext-info-c", b"ssh-ed25519", ciphers, ciphers, *(b"hmac-sha2-256",) * 2)
    names = b"".join(String(names) for names in (*lists, b"none", b"none", b"", b""))
    payload = Byte(MSG_KEXINIT) + bytes(16) + names + Boolean(False) + UInt32(0)  # noqa: FBT003
    padding = 4 + -(4 + 1 + len(payload) + 4) % 8
    return UInt32(1 + len(payload) + padding) + Byte(padding) + payload + bytes(padding)
