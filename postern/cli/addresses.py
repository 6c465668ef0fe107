"""Addresses that this machine listens on: sockets at them, and how they stand in a URL."""

import socket
from ipaddress import ip_address

_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - every address, and the one that this machine reaches


def listener_at(host: str, port: int) -> socket.socket:
    """A socket that listens there, for IPv4 or IPv6; `::` is every address of both, where the system can do that.

    Args:
        host: an address, or a name that stands for one.
        port: 0: any that is free.

    Raises:
        OSError: the address is not one of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)


def in_url(host: str) -> str:
    """A host that can be reached from this machine, as it stands in a URL: IPv6 in brackets (RFC 3986, 3.2.2)."""
    reached = _EVERY.get(host, host)
    try:
        return f"[{reached}]" if ip_address(reached).version == 6 else reached  # noqa: PLR2004
    except ValueError:  # a name
        return reached
