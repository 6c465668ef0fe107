"""Where the web role listens, and how that stands in a URL."""

import socket

import pytest

from postern.cli.addresses import in_url, listener_at


def can_use_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not can_use_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        pytest.param("::1", ["::1"], marks=needs_ipv6),
        pytest.param("::", ["::1", "127.0.0.1"], marks=needs_ipv6),
    ],
)
def test_an_address_is_listened_at(host: str, dialled: list[str]) -> None:
    """Of either kind; `::` is all of both."""
    with listener_at(host, 0) as listener:
        for address in dialled:
            socket.create_connection((address, listener.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("localhost", "localhost"),
        ("postern.agency.example", "postern.agency.example"),
    ],
)
def test_a_host_stands_in_a_url(host: str, shown: str) -> None:
    """IPv6 in brackets, and none that nobody can dial."""
    assert in_url(host) == shown
