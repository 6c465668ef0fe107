"""The gate's host keys as asyncssh signs with them, without SHA-1."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncssh

RSA_ALGORITHMS = (b"rsa-sha2-512", b"rsa-sha2-256")

_RSA = b"ssh-rsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """The host keys that a listener uses, and those that it announces: these, and the ones that come next."""

    used: Sequence[asyncssh.SSHKeyPair]
    announced: Sequence[asyncssh.SSHKeyPair]


def host_key_pairs(keys: Sequence[asyncssh.SSHKey]) -> list[asyncssh.SSHKeyPair]:
    """Host keys for the listener, without the SHA-1 signatures that asyncssh offers for RSA.

    Each RSA algorithm gets a pair of its own: asyncssh notes the negotiated algorithm in the pair, which all
    connections share, so that two handshakes at once could sign with each other's.
    """
    pairs: list[asyncssh.SSHKeyPair] = []
    for key in keys:
        algorithms = RSA_ALGORITHMS if key.algorithm == _RSA else (key.algorithm,)
        for algorithm in algorithms:
            (pair,) = asyncssh.load_keypairs([key])
            pair.host_key_algorithms = (algorithm,)
            pair.set_sig_algorithm(algorithm)
            pairs.append(pair)
    return pairs
