"""The listening sockets of a gate: handed down by the process that started it, passed by systemd, or made here.

One socket is shared by all processes of a gate, not one each under SO_REUSEPORT: then the kernel keeps every
stranger off the port, a process that is busy or dies keeps no connection waiting that another one could take, and
what waits outlives them both.
"""

import errno
import os
import socket
from array import array
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from fcntl import ioctl
from termios import FIONREAD

from postern.errors import PosternError
from postern.settings import GateSettings

BACKLOG = 512  # connections that wait to be accepted; the system may allow fewer
HANDED_DOWN = "POSTERN_GATE_LISTENERS"  # descriptors, with commas

_FIRST_PASSED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def open_listeners(settings: GateSettings, environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets to listen on. What the environment says of them is taken out of it: it holds for this process.

    Raises:
        PosternError: the port is taken, or what was passed is no listening TCP socket.
        OSError: the address is not one of this machine.
    """
    handed = environ.pop(HANDED_DOWN, "")
    if handed:
        return [_adopted(int(number)) for number in handed.split(",")]
    return passed_by_systemd(environ) or _bound(settings.sftp_host, settings.sftp_port)


def passed_by_systemd(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets of socket activation, sd_listen_fds(3); none where there is none, or it is meant for another process.

    Raises:
        PosternError: one of them is no listening TCP socket.
    """
    process, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    return [_adopted(_FIRST_PASSED + each) for each in range(int(count))]


def descriptors(listeners: Sequence[socket.socket]) -> list[int]:
    """Their numbers, for a process that inherits them."""
    return [listener.fileno() for listener in listeners]


def handed_down(listeners: Sequence[socket.socket]) -> dict[str, str]:
    """What the environment of a process that inherits them says."""
    return {HANDED_DOWN: ",".join(map(str, descriptors(listeners)))}


def address_of(listeners: Sequence[socket.socket]) -> tuple[str, int]:
    """Host and port of the first one."""
    host, port = listeners[0].getsockname()[:2]
    return host, port


def close_all(listeners: Sequence[socket.socket]) -> None:
    """Stop listening here; who shares them goes on."""
    for listener in listeners:
        listener.close()


def _adopted(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keyword
        listener = socket.socket(fileno=descriptor)
    except OSError:
        raise PosternError(f"Descriptor {descriptor}, which the gate should listen on, is no socket.") from None
    is_tcp = listener.family in _FAMILIES and listener.type == socket.SOCK_STREAM
    if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # not ours to close
        raise PosternError(f"Descriptor {descriptor}, which the gate should listen on, is no listening TCP socket.")
    listener.settimeout(0)
    return listener


def _bound(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _type, _proto, _name, address in found):
            made = socket.create_server(address, family=family, backlog=BACKLOG)
            # Made anew from its descriptor it knows its protocol, which asyncio asks for before it sets TCP_NODELAY.
            listeners.append(_adopted(made.detach()))
    except OSError as error:
        close_all(listeners)
        if error.errno == errno.EADDRINUSE:
            raise PosternError(f"Another program listens on {host}, port {port}; only one can.") from None
        raise
    return listeners


def unread(connection: socket.socket | None) -> int:
    """How many bytes of a connection wait to be read (ioctl_tty(2), FIONREAD); 0 where it is gone."""
    waiting = array("i", [0])
    with suppress(OSError, ValueError):
        if connection is not None and connection.fileno() >= 0:
            ioctl(connection.fileno(), FIONREAD, waiting)
    return waiting[0]
