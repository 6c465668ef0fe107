"""The header of the PROXY protocol, version 2, byte by byte (haproxy's proxy-protocol.txt, 2.2)."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftpd.proxy import SIGNATURE, ProxyHeaderError, read_header

TCP4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 40000, 22)
TCP6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 40000, 22)
)
TLV = b"\x04\x00\x03abc"


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (header(0x21, 0x11, TCP4), "192.0.2.7"),
        (header(0x21, 0x11, TCP4 + TLV), "192.0.2.7"),
        (header(0x21, 0x21, TCP6), "2001:db8::7"),
        (header(0x20, 0x00, b""), None),
        (header(0x20, 0x11, TCP4), None),
        (header(0x21, 0x00, b""), None),
        (header(0x21, 0x31, bytes(216)), None),
    ],
    ids=["TCP4", "TLV", "TCP6", "LOCAL", "LOCAL with addresses", "unspecified", "UNIX socket"],
)
def test_whom_a_header_speaks_for(data: bytes, source: str | None) -> None:
    """Read at whatever length it comes, and not a byte beyond it."""
    assert all(read_header(data[:length]) is None for length in range(len(data)))
    for rest in (b"", b"SSH-2.0-x\r\n"):
        found = read_header(data + rest)
        assert found is not None
        assert (found.source, found.length) == (source, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 22\r\n",
        b"\r\n\r\n\x00\r\nQUIX",
        header(0x11, 0x11, TCP4),
        header(0x22, 0x11, TCP4),
        header(0x21, 0x11, TCP4[:11]),
        header(0x21, 0x21, TCP4),
    ],
    ids=["SSH", "version 1 in text", "signature", "version", "command", "short TCP4", "short TCP6"],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    """At once, not after a wait for more."""
    with pytest.raises(ProxyHeaderError):
        read_header(data)


@given(st.binary(max_size=64))
def test_whatever_comes_is_read_or_refused(tail: bytes) -> None:
    """Nothing but the one exception gets out."""
    try:
        found = read_header(SIGNATURE + tail)
    except ProxyHeaderError:
        return
    assert found is None or found.length <= len(SIGNATURE) + len(tail)
