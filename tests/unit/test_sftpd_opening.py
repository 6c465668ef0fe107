"""Packets under AES-GCM: what asyncssh seals we open, what we seal it opens, and what was touched nobody does."""

import os

import pytest
from asyncssh.encryption import Encryption, get_encryption
from asyncssh.saslprep import SASLPrepError, saslprep
from hypothesis import given
from hypothesis import strategies as st

from sftpd.seams.names import prepared
from sftpd.seams.opening import TAG, GateCipher, channel_data, gate_cipher

CIPHERS = [b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com"]
DATA = bytes.fromhex("04 5e 00000007 00000005") + b"hello" + bytes(4)  # padding, type, channel, size


def pair(cipher: bytes, iv: bytes = bytes(12)) -> tuple[Encryption, GateCipher]:
    """asyncssh's and ours, with the same keys."""
    key = os.urandom(32 if b"256" in cipher else 16)
    ours = gate_cipher(get_encryption(cipher, key, iv))
    assert isinstance(ours, GateCipher)
    return get_encryption(cipher, key, iv), ours


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("iv", [bytes(12), bytes(4) + b"\xff" * 8])  # whose counter runs over (RFC 5647, 7.1)
def test_both_speak_to_each_other(cipher: bytes, iv: bytes) -> None:
    """Packet after packet, each under a number of its own."""
    theirs, ours = pair(cipher, iv)
    for number in range(3):
        packet = bytes([4, number]) + b"payload" * number
        sealed = b"".join(theirs.encrypt_packet(0, len(packet).to_bytes(4, "big"), packet))
        assert ours.open(memoryview(sealed)) == packet
        assert ours.decrypt_packet(0, b"", b"", 4, b"") == packet
    theirs, ours = pair(cipher, iv)
    for number in range(3):
        packet = bytes([4, number]) + b"payload" * number
        header = len(packet).to_bytes(4, "big")
        sealed = b"".join(ours.encrypt_packet(0, header, packet))
        assert theirs.decrypt_packet(0, header, sealed[4:-TAG], 4, sealed[-TAG:]) == packet


@given(st.integers(0, len(DATA) + 4 + TAG - 1), st.integers(0, 7))
def test_a_packet_that_was_touched_is_not_opened(place: int, bit: int) -> None:
    """Its length, its bytes or its MAC; asyncssh, asking for it, hears the same."""
    theirs, ours = pair(CIPHERS[0])
    sealed = bytearray(b"".join(theirs.encrypt_packet(0, len(DATA).to_bytes(4, "big"), DATA)))
    sealed[place] ^= 1 << bit
    assert ours.open(memoryview(sealed)) is None
    assert ours.decrypt_packet(0, b"", b"", 4, b"") is None


def test_other_ciphers_stay_as_they_are() -> None:
    """The short way is that of AES-GCM."""
    ctr = get_encryption(b"aes128-ctr", bytes(16), bytes(16), b"hmac-sha2-256", bytes(32), etm=False)
    assert gate_cipher(ctr) is ctr
    assert gate_cipher(None) is None


@pytest.mark.parametrize(
    ("size", "kind"), [(0, bytes), (5, bytes), (1024, bytes), (1025, memoryview), (32_768, memoryview)]
)
def test_channel_data_is_found(size: int, kind: type) -> None:
    """Its channel and its bytes; many small pieces may wait for their reader, and a view is no small thing."""
    sent = os.urandom(size)
    found = channel_data(DATA[:6] + size.to_bytes(4, "big") + sent + bytes(4))
    assert found == (7, sent)
    assert isinstance(found[1], kind)


@pytest.mark.parametrize(
    "opened",
    [
        b"",
        DATA[:9],
        DATA[:1] + b"\x5f" + DATA[2:],  # another type
        DATA[:9] + b"\x04" + DATA[10:],  # more than it says
        DATA[:9] + b"\x06" + DATA[10:],  # less than it says
        b"\x09" + DATA[1:],  # padding that reaches into the data
        DATA[:6] + b"\xff" * 4 + DATA[10:],
    ],
)
def test_what_is_not_just_channel_data_is_left_to_asyncssh(opened: bytes) -> None:
    """It knows what to say to it."""
    assert channel_data(opened) is None


@pytest.mark.parametrize("name", ["campaign_5b1f", "a b", "", "Straße", "\u2168", "a\u00adb"])
def test_user_names_are_prepared_as_they_were(name: str) -> None:
    """Printable ASCII stays as it is; the rest goes through the tables."""
    assert prepared(name) == saslprep(name)


@given(st.text(st.characters(max_codepoint=127, exclude_categories=["Cc"])))
def test_printable_ascii_has_nothing_to_prepare(name: str) -> None:
    """RFC 4013."""
    assert prepared(name) == saslprep(name)


@pytest.mark.parametrize("name", ["a\x00", "a\nb", "\u200e", "\ue000"])
def test_names_that_may_not_be_are_refused(name: str) -> None:
    """As asyncssh refuses them."""
    with pytest.raises(SASLPrepError):
        prepared(name)
