"""What asyncssh knows of a client's key and of key exchanges, and does not let be said by an option."""

from collections.abc import Sequence

import asyncssh
from asyncssh.kex import get_kex_algs

_SHA1_SIGNATURES = frozenset({b"ssh-rsa", b"rsa1024-sha1"})


def forbid_sha1(key: asyncssh.SSHKey) -> None:
    """Make a client's key refuse SHA-1 signatures: `signature_algs` limits only what is announced."""
    key.all_sig_algorithms = set(key.all_sig_algorithms) - _SHA1_SIGNATURES


def available_key_exchanges(wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that this installation has: post-quantum ones depend on the cryptography library."""
    available = {name.decode("ascii") for name in get_kex_algs()}
    return [name for name in wanted if name in available]
