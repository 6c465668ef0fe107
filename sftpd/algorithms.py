"""Which algorithms the gate offers, in two policies.

`compatible` lets in every client that can do without SHA-1; `strict` only those that pass an audit without a
finding (`deploy/ssh-audit` has both as policy files). In neither: SHA-1, CBC, Diffie-Hellman under 2048 bits,
compression. Strict key exchange (the answer to CVE-2023-48795) is on in asyncssh and cannot be switched off.
The client's order decides, so ours says only what is there and what a client's first guess meets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postern.settings import SshPolicy
from sftpd.seams import available_key_exchanges

# Post-quantum hybrids, where they are at hand: ML-KEM comes with the cryptography library, NTRU Prime with liboqs.
_POST_QUANTUM = ("mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com")
# GCM is the fastest here. chacha20-poly1305 is left out: OpenSSH's client puts it first, and it costs half as
# much again of the gate's processor.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
_SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithms:
    """What one policy offers."""

    key_exchanges: Sequence[str]
    host_keys: Sequence[str]  # types of host keys, as `ssh-keygen` calls them
    macs: Sequence[str]


_POLICIES: Mapping[SshPolicy, Algorithms] = {
    SshPolicy.COMPATIBLE: Algorithms(
        key_exchanges=(
            "curve25519-sha256",  # first: Dropbear's client guesses the server's first and waits for no answer
            *_POST_QUANTUM,
            "curve25519-sha256@libssh.org",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
            # Not group 18: who knows it knows another of these, and one exchange of it holds up everybody for 16 ms.
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group14-sha256",
        ),
        host_keys=("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"),
        macs=(*_MACS, "hmac-sha2-256", "hmac-sha2-512"),
    ),
    SshPolicy.STRICT: Algorithms(key_exchanges=_POST_QUANTUM, host_keys=("ssh-ed25519", "ssh-rsa"), macs=_MACS),
}


def algorithm_options(policy: SshPolicy) -> dict[str, object]:
    """The policy as options of an asyncssh server."""
    algorithms = _POLICIES[policy]
    return {
        "kex_algs": available_key_exchanges(algorithms.key_exchanges),
        "encryption_algs": _CIPHERS,
        "mac_algs": algorithms.macs,
        "compression_algs": ["none"],  # a compressed put costs twelve times the processor time
        "signature_algs": _SIGNATURES,
    }


def host_key_types(policy: SshPolicy) -> Sequence[str]:
    """The types of host keys that are offered."""
    return _POLICIES[policy].host_keys
