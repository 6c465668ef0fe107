"""Which algorithms a client and the gate agree on: seen from what each offers in its first packet."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from clients.cases import CASES
from clients.catalogue import Client
from clients.gate import PATIENCE, Gate
from clients.matrix import order_of, started

BANNER = b"SSH-2.0-Postern\r\n"
KEXINIT = 20
COOKIE = 16  # bytes
KINDS = ("key exchange", "host key", "cipher", "MAC")
IMPLICIT_MAC = "-gcm@openssh.com"  # a cipher that brings its own


@dataclass(frozen=True)
class Offer:
    """What one side offers in its first packet."""

    greeting: bytes  # its version and that packet, as they came
    lists: Mapping[str, list[str]]


def agreed(client: Offer, gate: Offer, without: str = "") -> dict[str, str]:
    """The first of the client's that the gate has (RFC 4253, 7.1), for what the client sends; "" where there is none.

    Args:
        client: what the client offers.
        gate: what the gate offers to it.
        without: an algorithm that the gate is thought not to have.
    """
    found = {
        kind: next((name for name in client.lists[kind] if name in gate.lists[kind] and name != without), "")
        for kind in KINDS
    }
    if found["cipher"].endswith(IMPLICIT_MAC):
        found["MAC"] = "its own"
    return found


def offer_of_gate(gate: Gate, client: Offer) -> Offer:
    """What the gate offers to that client: it listens first to some."""
    with socket.create_connection(("127.0.0.1", gate.port), PATIENCE) as connection:
        connection.sendall(client.greeting)
        return _heard(connection)


def offer_of_client(gate: Gate, client: Client) -> Offer:
    """What a client offers to a server of which it knows the gate's host keys."""
    with _called(gate, client) as connection:
        connection.sendall(BANNER)
        return _heard(connection)


@contextmanager
def _called(gate: Gate, client: Client) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        gate.know_port(port)
        with started(gate, client.order(gate.login(port=port), order_of(gate, CASES["put"]))):
            connection, _address = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                yield connection


def _heard(connection: socket.socket) -> Offer:
    with connection.makefile("rb") as stream:
        while not (version := stream.readline()).startswith(b"SSH-"):
            pass
        size = stream.read(4)
        packet = stream.read(int.from_bytes(size, "big"))
    assert packet[1] == KEXINIT
    at, lists = 2 + COOKIE, []
    for _ in range(6):  # key exchange, host key, ciphers and MACs of both directions (RFC 4253, 7.1)
        length = int.from_bytes(packet[at : at + 4], "big")
        lists.append(packet[at + 4 : at + 4 + length].decode("ascii").split(","))
        at += 4 + length
    found = {"key exchange": lists[0], "host key": lists[1], "cipher": lists[2], "MAC": lists[4]}
    return Offer(greeting=version + size + packet, lists=found)
