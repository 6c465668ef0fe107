"""The PROXY protocol, version 2: whom a load balancer speaks for. Pure.

The header stands before the first byte of SSH (haproxy's proxy-protocol.txt, section 2.2). What follows the
addresses, TLVs and a checksum among them, is skipped: only peers that are trusted are listened to. Version 1, the
one in text, is not taken.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = struct.Struct("!12sBBH")  # signature, version and command, family and protocol, length of the rest
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_TCP4_ADDRESSES = 12  # bytes: two addresses, two ports
_TCP6_ADDRESSES = 36


class ProxyHeaderError(ValueError):
    """What came is no header of the PROXY protocol, version 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What the header says."""

    source: str | None  # the client's address; None: the connection is the balancer's own, a health check
    length: int  # bytes of the header


def read_header(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with, or None where more of it has to come.

    Raises:
        ProxyHeaderError: this becomes none, whatever comes.
    """
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        raise ProxyHeaderError("no signature")
    if len(data) < _FIXED.size:
        return None
    _signature, command, family, rest = _FIXED.unpack_from(data)
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"version and command {command:#04x}")
    if len(data) < _FIXED.size + rest:
        return None
    source = None if command == _LOCAL else _source(family, data[_FIXED.size : _FIXED.size + rest])
    return ProxyHeader(source=source, length=_FIXED.size + rest)


def _source(family: int, addresses: bytes) -> str | None:
    if family == _TCP4:
        _check_length(addresses, _TCP4_ADDRESSES)
        return str(IPv4Address(addresses[:4]))
    if family == _TCP6:
        _check_length(addresses, _TCP6_ADDRESSES)
        return str(IPv6Address(addresses[:16]))
    return None  # unspecified or a UNIX socket: "the receiver must use the real connection endpoints"


def _check_length(addresses: bytes, least: int) -> None:
    if len(addresses) < least:
        raise ProxyHeaderError(f"{len(addresses)} bytes of addresses")
