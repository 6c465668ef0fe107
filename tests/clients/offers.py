"""Which algorithms a client and the gate agree on: seen from what each offers in its first packet."""

import socket
from collections.abc import Mapping

from clients.cases import CASES
from clients.catalogue import Client
from clients.gate import PATIENCE, Gate
from clients.matrix import order_of, started

BANNER = b"SSH-2.0-Postern\r\n"
KEXINIT = 20
COOKIE = 16  # bytes
KINDS = ("key exchange", "host key", "cipher", "MAC")
IMPLICIT_MAC = "-gcm@openssh.com"  # a cipher that brings its own

Offer = Mapping[str, list[str]]


def agreed(client: Offer, gate: Offer) -> dict[str, str]:
    """The first of the client's that the gate has (RFC 4253, 7.1), for what the client sends."""
    found = {kind: next(name for name in client[kind] if name in gate[kind]) for kind in KINDS}
    if found["cipher"].endswith(IMPLICIT_MAC):
        found["MAC"] = "its own"
    return found


def offer_of_gate(gate: Gate) -> Offer:
    """What the gate offers."""
    with socket.create_connection(("127.0.0.1", gate.port), PATIENCE) as connection:
        return _exchange(connection)


def offer_of_client(gate: Gate, client: Client) -> Offer:
    """What a client offers to a server of which it knows the gate's host keys."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        gate.know_port(port)
        with started(gate, client.order(gate.login(port=port), order_of(gate, CASES["put"]))):
            connection, _address = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                return _exchange(connection)


def _exchange(connection: socket.socket) -> Offer:
    connection.sendall(BANNER)
    with connection.makefile("rb") as stream:
        while not stream.readline().startswith(b"SSH-"):
            pass
        packet = stream.read(int.from_bytes(stream.read(4), "big"))
    assert packet[1] == KEXINIT
    at, lists = 2 + COOKIE, []
    for _ in range(6):  # key exchange, host key, ciphers and MACs of both directions (RFC 4253, 7.1)
        size = int.from_bytes(packet[at : at + 4], "big")
        lists.append(packet[at + 4 : at + 4 + size].decode("ascii").split(","))
        at += 4 + size
    return {"key exchange": lists[0], "host key": lists[1], "cipher": lists[2], "MAC": lists[4]}
