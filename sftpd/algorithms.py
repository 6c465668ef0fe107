"""Which algorithms the gate offers: the policy `compatible`.

No SHA-1, no CBC, no Diffie-Hellman under 2048 bits, no compression; strict key exchange (the answer to
CVE-2023-48795) is on in asyncssh and cannot be switched off. The client's order decides, so ours says only
what is there and what a client's first guess meets.
"""

from sftpd.seams import available_key_exchanges

_KEY_EXCHANGES = (
    "curve25519-sha256",  # first: Dropbear's client guesses the server's first and waits for no answer
    "mlkem768x25519-sha256",  # post-quantum hybrids, where the cryptography library has them
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
)
# GCM is the fastest here. chacha20-poly1305 is left out: OpenSSH's client puts it first, and it costs half as
# much again of the gate's processor.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
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


def algorithm_options() -> dict[str, object]:
    """The policy as options of `asyncssh.listen`."""
    return {
        "kex_algs": available_key_exchanges(_KEY_EXCHANGES),
        "encryption_algs": _CIPHERS,
        "mac_algs": _MACS,
        "compression_algs": ["none"],  # a compressed put costs twelve times the processor time
        "signature_algs": _SIGNATURES,
    }
