"""The arithmetic that tells a weak key: moduli that can be factored, points that prove nothing.

Pure, and quick for any modulus that `keys.policy` lets through to it (16,384 bits at most).
"True" is certain but for ROCA, where an innocent modulus is taken for one once in 2**150; "False" means
that none of these particular faults was found. Keys that are weak because they are on a list (Debian's
CVE-2008-0166) are not found here: the lists are larger than this program.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cache

# Private halves that anybody can download. Both are keys/vagrant.pub.* of hashicorp/vagrant.
KNOWN_PUBLIC: Mapping[str, str] = {
    "SHA256:1M4RzhMyWuFS/86uPY/ce2prh/dVTHW7iD2RhpquOZA": "Vagrant's insecure RSA key",
    "SHA256:WkvqjnyPAeC0cbPErYiGP9vqHdgL1MqqvPdIe3lvHgI": "Vagrant's insecure ED25519 key",
}

TINY_FACTOR_BOUND = 1 << 16
FERMAT_ROUNDS = 100

_ROCA_GENERATOR = 65537
_ROCA_LARGEST_PRIME = 167  # the 39 primes that the M of every affected key size has in common

_ED25519_P = 2**255 - 19
_ED25519_D = -121665 * pow(121666, -1, _ED25519_P) % _ED25519_P


def tiny_factor(modulus: int) -> int | None:
    """The smallest prime under 2**16 that divides the modulus, if one does."""
    return next((prime for prime in _primes(TINY_FACTOR_BOUND) if modulus % prime == 0), None)


def has_close_primes(modulus: int) -> bool:
    """Whether an odd modulus falls to a few rounds of Fermat's factorisation (CVE-2022-26320)."""
    middle = math.isqrt(modulus - 1) + 1
    for candidate in range(middle, middle + FERMAT_ROUNDS):
        square = candidate * candidate - modulus
        if math.isqrt(square) ** 2 == square:
            return True
    return False


def shared_factor(modulus: int, others: Iterable[int]) -> int | None:
    """A factor that the modulus has in common with a different one, if there is any.

    Equal moduli share no secret that they did not share before: that is the same key, and passed over.
    """
    for other in others:
        divisor = math.gcd(modulus, other)
        if 1 < divisor < modulus or (divisor == modulus != other):
            return divisor
    return None


def has_roca_form(modulus: int) -> bool:
    """Whether the modulus is a power of 65537 modulo the product M of the primes up to 167 (CVE-2017-15361).

    Infineon's library made primes k * M + 65537**a % M, so their product is such a power. M's units
    hardly ever are one. The question whether the discrete logarithm exists is put to each prime-power
    part of the generator's order, as Pohlig and Hellman do. See Nemec, Sys, Svenda, Klinec and Matyas,
    "The Return of Coppersmith's Attack" (ACM CCS 2017), section 2, and their detector, crocs-muni/roca.
    """
    product = math.prod(_primes(_ROCA_LARGEST_PRIME + 1))
    order, parts = _roca_parts()
    if pow(modulus, order, product) != 1:
        return False
    return all(pow(modulus, cofactor, product) in powers for cofactor, powers in parts)


def is_ed25519_point(encoded: bytes) -> bool:
    """Whether 32 octets are a point of the curve (RFC 8032, 5.1.3), and not one of the eight of small order.

    Small order matters: signatures that verify under such a key can be made by anybody.
    """
    y = int.from_bytes(encoded, "little") & ((1 << 255) - 1)
    if y >= _ED25519_P:
        return False
    x_squared = _ed25519_x_squared(y)
    if pow(x_squared, (_ED25519_P - 1) // 2, _ED25519_P) not in (0, 1):
        return False
    for _ in range(3):
        y = _ed25519_doubled(y)
    return y != 1


def _ed25519_x_squared(y: int) -> int:
    """-x² + y² = 1 + dx²y², solved for x². The divisor is never 0, since -1 is a square here and d is not."""
    return (y * y - 1) * pow(_ED25519_D * y * y + 1, -1, _ED25519_P) % _ED25519_P


def _ed25519_doubled(y: int) -> int:
    """The y of twice a point that lies on the curve; the addition law is complete, so no divisor is 0."""
    x_squared = _ed25519_x_squared(y)
    y_squared = y * y
    return (y_squared + x_squared) * pow(1 - _ED25519_D * x_squared * y_squared, -1, _ED25519_P) % _ED25519_P


@cache
def _primes(bound: int) -> tuple[int, ...]:
    composite = bytearray(bound)
    for number in range(2, math.isqrt(bound) + 1):
        if not composite[number]:
            composite[number * number :: number] = b"\1" * len(range(number * number, bound, number))
    return tuple(number for number in range(2, bound) if not composite[number])


@cache
def _roca_parts() -> tuple[int, tuple[tuple[int, frozenset[int]], ...]]:
    """The order of 65537 modulo M; for each prime power in it the cofactor, and the subgroup of that size."""
    primes = _primes(_ROCA_LARGEST_PRIME + 1)
    product = math.prod(primes)
    order = math.lcm(*(_order(_ROCA_GENERATOR, prime) for prime in primes))
    # No higher power than the 8th can be there: it would have to divide a prime - 1, and 2**8 is over 167.
    sizes = [size for prime in primes if (size := math.gcd(order, prime**8)) > 1]
    return order, tuple((order // size, _subgroup(order // size, size, product)) for size in sizes)


def _subgroup(cofactor: int, size: int, product: int) -> frozenset[int]:
    generator = pow(_ROCA_GENERATOR, cofactor, product)
    return frozenset(pow(generator, exponent, product) for exponent in range(size))


def _order(element: int, prime: int) -> int:
    return next(order for order in range(1, prime) if pow(element, order, prime) == 1)
