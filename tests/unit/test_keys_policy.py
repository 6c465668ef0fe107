"""Which well-formed keys are refused, and that ordinary ones never are."""

import base64
import itertools
import math
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from keys.parse import PublicKey, parse_public_key
from keys.policy import ALLOWED_TYPES, check_key, check_shared_factors
from keys.weak_keys import has_close_primes, has_roca_form, is_ed25519_point, shared_factor, tiny_factor
from postern.errors import Refusal

VAGRANT_RSA = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2Y"
    "J6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn"
    "5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUG"
    "aHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key"
)
VAGRANT_ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y vagrant"
RANDOM = random.Random(2017)


def rsa_key(modulus: int, exponent: int = 65537) -> PublicKey:
    """The key of these numbers, by way of its line."""
    fields = [b"ssh-rsa", *(number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (exponent, modulus))]
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return parse_public_key(f"ssh-rsa {base64.b64encode(blob).decode()}")


def is_probable_prime(number: int) -> bool:
    return all(number % small for small in (3, 5, 7, 11, 13)) and pow(2, number - 1, number) == 1


def random_prime(bits: int) -> int:
    """A prime with its two highest bits set, so that a product of two has all its bits."""
    while True:
        number = RANDOM.getrandbits(bits) | 3 << (bits - 2) | 1
        if is_probable_prime(number):
            return number


def next_prime(number: int) -> int:
    return next(candidate for candidate in itertools.count(number + 2, 2) if is_probable_prime(candidate))


def roca_prime(bits: int, largest: int) -> int:
    """A prime as Infineon's library made it: k * M + 65537**a % M, M the product of the primes so far."""
    product = math.prod(n for n in range(2, largest + 1) if all(n % d for d in range(2, math.isqrt(n) + 1)))
    lowest = (3 << (bits - 2)) // product + 1
    while True:
        k, a = lowest + RANDOM.randrange((1 << (bits - 3)) // product), RANDOM.getrandbits(64)
        if is_probable_prime(prime := k * product + pow(65537, a, product)):
            return prime


PRIMES = [random_prime(1024) for _ in range(4)]
ORDINARY = rsa_key(PRIMES[0] * PRIMES[1])


def code_of(key: PublicKey) -> str:
    """The code of the refusal of this key, which tells how to make a good one."""
    with pytest.raises(Refusal) as caught:
        check_key(key)
    assert "`ssh-keygen -t ed25519 -f postern_key`" in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("rsa", 2048), ("rsa", 3072), ("rsa", 4096), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("ed25519", 256)],
)
def test_keys_that_ssh_keygen_makes_pass(tmp_path: Path, kind: str, bits: int) -> None:
    """Every kind of key that the documentation names is let through."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", str(bits), "-N", "", "-f", path], check=True)
    key = parse_public_key(path.with_suffix(".pub").read_bytes())
    check_key(key)
    check_shared_factors(key, [PRIMES[0] * PRIMES[1]])


def test_only_the_listed_types_are_allowed() -> None:
    """A type that is not on the list is refused, even if it could be read."""
    assert "ssh-dss" not in ALLOWED_TYPES
    assert code_of(replace(ORDINARY, type="ssh-dss")) == "key_type_unknown"


@pytest.mark.parametrize("bits", [768, 1024, 2047])
def test_a_short_rsa_key_is_refused(bits: int) -> None:
    """The smallest RSA key has 2048 bits; the sentence says how many this one has."""
    key = rsa_key((1 << bits) - 1)
    assert code_of(key) == "key_rsa_short"
    with pytest.raises(Refusal, match=f"has {bits} bits; at least 2048"):
        check_key(key)


def test_an_absurdly_large_rsa_key_is_refused() -> None:
    """What OpenSSL would not verify with is not enrolled."""
    assert code_of(rsa_key((1 << 16385) - 1)) == "key_rsa_long"


@pytest.mark.parametrize("exponent", [1, 2, 4, 65536, (1 << 64) + 1])
def test_a_bad_exponent_is_refused(exponent: int) -> None:
    """Exponents that protect nothing, or that SSH cannot work with, are refused."""
    assert code_of(replace(ORDINARY, exponent=exponent)) == "key_rsa_exponent"


@pytest.mark.parametrize("exponent", [3, 17, 35, 37, 65537, (1 << 64) - 1])
def test_the_exponents_of_real_programs_pass(exponent: int) -> None:
    """Old programs took 3, 17, 35 or 37; none of them makes a key weak for signing."""
    check_key(replace(ORDINARY, exponent=exponent))


@pytest.mark.parametrize(("bits", "largest"), [(1024, 701), (1536, 701), (2048, 1427)])
def test_a_roca_key_is_refused(bits: int, largest: int) -> None:
    """Keys of the form that Infineon's library gave them are found at every size in use."""
    assert code_of(rsa_key(roca_prime(bits, largest) * roca_prime(bits, largest))) == "key_rsa_roca"


def test_ordinary_moduli_have_no_fault() -> None:
    """Two hundred products of random primes raise no false alarm of any kind."""
    primes = [random_prime(512) for _ in range(21)]
    moduli = [p * q for p, q in itertools.combinations(primes, 2)]
    assert len(moduli) >= 200
    for modulus in moduli:
        assert tiny_factor(modulus) is None
        assert not has_roca_form(modulus)
        assert not has_close_primes(modulus)


@pytest.mark.parametrize("factor", [2, 3, 251, 65521])
def test_a_tiny_factor_is_found(factor: int) -> None:
    """A modulus that a small prime divides is refused, and the sentence names the prime."""
    key = rsa_key(PRIMES[0] * PRIMES[1] * factor)
    assert code_of(key) == "key_rsa_tiny_factor"
    with pytest.raises(Refusal, match=f": {factor} divides"):
        check_key(key)


def test_close_primes_are_found() -> None:
    """Neighbouring primes, and a prime with itself, are refused."""
    assert code_of(rsa_key(PRIMES[0] * next_prime(PRIMES[0]))) == "key_rsa_close_primes"
    assert code_of(rsa_key(PRIMES[0] ** 2)) == "key_rsa_close_primes"


def test_a_shared_prime_is_found() -> None:
    """A prime that another enrolled key has too breaks both."""
    with pytest.raises(Refusal, match="`ssh-keygen -t ed25519 -f postern_key`") as caught:
        check_shared_factors(ORDINARY, [PRIMES[2] * PRIMES[3], PRIMES[1] * PRIMES[2]])
    assert caught.value.code == "key_rsa_shared_factor"


def test_the_same_modulus_is_not_a_shared_factor() -> None:
    """The key itself may be among the enrolled ones; whether that is allowed is decided elsewhere."""
    check_shared_factors(ORDINARY, [PRIMES[0] * PRIMES[1], PRIMES[2] * PRIMES[3]])


def test_a_modulus_inside_another_is_a_shared_factor() -> None:
    """A key whose whole modulus divides another's shares its primes."""
    modulus = PRIMES[0] * PRIMES[1]
    assert shared_factor(modulus, [modulus * PRIMES[2]]) == modulus


@pytest.mark.parametrize("text", [VAGRANT_RSA, VAGRANT_ED25519])
def test_a_key_whose_private_half_is_public_is_refused(text: str) -> None:
    """Vagrant's insecure keys are in every Vagrant box, and nobody's."""
    assert code_of(parse_public_key(text)) == "key_known_public"


@pytest.mark.parametrize(
    "encoded",
    [
        (0).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        (2**255 - 20).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
)
def test_points_of_small_order_are_no_keys(encoded: bytes) -> None:
    """Anybody can sign for a point of order 1, 2, 4 or 8, with either sign of x."""
    assert not is_ed25519_point(encoded)
