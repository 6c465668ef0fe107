"""Which well-formed public keys Postern enrols: allowed types, sizes, and no RSA key known to be weak.

Pure. A key that passes may still be weak in ways that cannot be seen from it; keys on lists of weak ones
(Debian's CVE-2008-0166) are not looked up. Whether a key is enrolled already is for `keys.enrolment`.
"""

from collections.abc import Iterable

from keys.parse import PublicKey, refused
from keys.weak_keys import KNOWN_PUBLIC, has_close_primes, has_roca_form, shared_factor, tiny_factor

ALLOWED_TYPES = frozenset(
    {
        "ssh-rsa",
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
SMALLEST_RSA = 2048
LARGEST_RSA = 16384  # OpenSSL verifies with none beyond (OPENSSL_RSA_MAX_MODULUS_BITS)
LARGEST_EXPONENT = 64  # bits; nor, from 3072 bits on, with larger exponents (OPENSSL_RSA_MAX_PUBEXP_BITS)


def check_key(key: PublicKey) -> None:
    """Refuse a key that must not be enrolled, whoever else's keys there are.

    Raises:
        Refusal: with the reason, and the command that makes a good key.
    """
    if key.type not in ALLOWED_TYPES:
        raise refused("key_type_unknown", f"Postern does not accept keys of this type: {key.type}.")
    if key.fingerprint in KNOWN_PUBLIC:
        raise refused(
            "key_known_public",
            f"This is {KNOWN_PUBLIC[key.fingerprint]}: its private half is public, anybody could log in with it.",
        )
    if key.modulus is not None and key.exponent is not None:
        _check_size(key.bits)
        _check_exponent(key.exponent)
        _check_modulus(key.modulus)


def check_shared_factors(key: PublicKey, others: Iterable[int]) -> None:
    """Refuse an RSA key that has a prime in common with one of the other enrolled moduli.

    Raises:
        Refusal: both keys can be factored by anybody who has both of them.
    """
    if key.modulus is not None and shared_factor(key.modulus, others) is not None:
        raise refused(
            "key_rsa_shared_factor",
            "This RSA key has a prime in common with another enrolled key, as happens where a machine has too"
            " little randomness: both keys are broken, and both have to be replaced.",
        )


def _check_size(bits: int) -> None:
    if bits < SMALLEST_RSA:
        raise refused("key_rsa_short", f"This RSA key has {bits} bits; at least {SMALLEST_RSA} are needed.")
    if bits > LARGEST_RSA:
        raise refused("key_rsa_long", f"This RSA key has {bits} bits; SSH works with {LARGEST_RSA} at most.")


def _check_exponent(exponent: int) -> None:
    if exponent < 3 or exponent % 2 == 0:  # noqa: PLR2004  (the smallest odd one that is not 1)
        raise refused("key_rsa_exponent", "This RSA key's exponent is 1 or even: it protects nothing.")
    if exponent.bit_length() > LARGEST_EXPONENT:
        raise refused("key_rsa_exponent", "This RSA key's exponent is so large that SSH does not work with it.")


def _check_modulus(modulus: int) -> None:
    factor = tiny_factor(modulus)
    if factor is not None:
        raise refused("key_rsa_tiny_factor", f"This RSA key is broken: {factor} divides its modulus.")
    if has_roca_form(modulus):
        raise refused(
            "key_rsa_roca",
            "This RSA key was made by a faulty smart card or security chip (ROCA, CVE-2017-15361) and can be"
            " broken. Make the new one in software, not on that device.",
        )
    if has_close_primes(modulus):
        raise refused("key_rsa_close_primes", "This RSA key is broken: its two primes are too close together.")
