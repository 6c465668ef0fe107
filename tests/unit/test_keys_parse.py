"""Keys as ssh-keygen makes them, and what Postern keeps of them."""

import base64
import subprocess
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from keys.parse import PublicKey, parse_public_key
from postern.errors import Refusal


def string(content: bytes) -> bytes:
    """One string of RFC 4251, section 5."""
    return len(content).to_bytes(4, "big") + content


def line(*fields: bytes) -> str:
    """The public key line of these fields, the first of which is the type."""
    return f"{fields[0].decode()} {base64.b64encode(b''.join(map(string, fields))).decode()}"


ED25519_POINT = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
GOOD = line(b"ssh-ed25519", ED25519_POINT)


def p256_point() -> bytes:
    numbers = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()
    return b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def fingerprint_of(path: Path) -> tuple[int, str]:
    listed = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
    return int(listed.split()[0]), listed.split()[1]


@pytest.mark.parametrize(
    ("kind", "bits", "name"),
    [
        ("rsa", 1024, "ssh-rsa"),
        ("rsa", 2048, "ssh-rsa"),
        ("rsa", 3072, "ssh-rsa"),
        ("rsa", 4096, "ssh-rsa"),
        ("ecdsa", 256, "ecdsa-sha2-nistp256"),
        ("ecdsa", 384, "ecdsa-sha2-nistp384"),
        ("ecdsa", 521, "ecdsa-sha2-nistp521"),
        ("ed25519", 256, "ssh-ed25519"),
    ],
)
def test_a_key_reads_as_ssh_keygen_lists_it(tmp_path: Path, kind: str, bits: int, name: str) -> None:
    """Type, bits, fingerprint, line and comment of every kind of key are those that OpenSSH knows, and the gate."""
    path = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", kind, "-b", str(bits), "-N", "", "-C", "batch job", "-f", path]
    subprocess.run(command, check=True)
    public = path.with_suffix(".pub")
    key = parse_public_key(public.read_bytes())
    assert (key.bits, key.fingerprint) == fingerprint_of(public)
    assert (key.type, key.comment) == (name, "batch job")
    assert public.read_text() == f"{key.line} batch job\n"
    assert (key.modulus or 0).bit_length() == (bits if kind == "rsa" else 0)
    assert key.exponent == (65537 if kind == "rsa" else None)
    assert asyncssh.import_public_key(key.line).get_fingerprint() == key.fingerprint


@pytest.mark.parametrize(
    "text",
    [
        line(b"sk-ssh-ed25519@openssh.com", ED25519_POINT, b"ssh:"),
        line(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", p256_point(), b"ssh:"),
    ],
)
def test_a_security_key_reads_as_ssh_keygen_lists_it(tmp_path: Path, text: str) -> None:
    """The keys of hardware tokens have the bits and the fingerprint that OpenSSH knows, and the gate."""
    public = tmp_path / "key.pub"
    public.write_text(text + "\n")
    key = parse_public_key(text)
    assert (key.bits, key.fingerprint) == fingerprint_of(public)
    assert key.line == text
    assert asyncssh.import_public_key(key.line).get_fingerprint() == key.fingerprint


@pytest.mark.parametrize(
    "around",
    ["{}", "{}\n", "{}\r\n", "\n\n{}\n\n", "  {}  ", "# the batch job's key\n{}\n", "{}\r"],
)
def test_line_ends_and_blank_lines_do_not_matter(around: str) -> None:
    """What editors and transfers do around a line leaves the key as it is."""
    assert parse_public_key(around.format(GOOD)).line == GOOD


def test_text_and_bytes_are_the_same() -> None:
    """A key may come from a file or from a form."""
    assert parse_public_key(GOOD) == parse_public_key(GOOD.encode())


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        (b"", ""),
        (b"job@host  in two words ", "job@host  in two words"),
        ("Zoë's laptop".encode(), "Zoë's laptop"),
        ("Zoë".encode("latin-1"), "Zo\ufffd"),
        ("\u202eevil".encode(), "\ufffdevil"),
    ],
)
def test_a_comment_is_kept_printable(comment: bytes, kept: str) -> None:
    """No comment makes a good key bad, and none brings what a terminal would obey."""
    assert parse_public_key(GOOD.encode() + b" " + comment).comment == kept


def read(data: str | bytes) -> PublicKey | None:
    """The key, or None for a refusal."""
    try:
        return parse_public_key(data)
    except Refusal:
        return None


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_anything_at_all_is_a_key_or_a_refusal(data: str | bytes) -> None:
    """No input raises anything but a refusal."""
    read(data)


@given(st.data())
def test_a_damaged_key_is_a_key_or_a_refusal(data: st.DataObject) -> None:
    """Whatever is overwritten, lost or put in, the answer is a refusal or a key that reads back as itself."""
    text = data.draw(st.sampled_from([GOOD, line(b"ecdsa-sha2-nistp256", b"nistp256", p256_point()) + " me"]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    alphabet = st.sampled_from(" \n\r\tA/+=#\"',\0\ufeff-") | st.characters()
    key = read(text[:start] + data.draw(st.text(alphabet, max_size=8)) + text[end:])
    assert key is None or parse_public_key(key.line).fingerprint == key.fingerprint


@given(
    st.sampled_from([b"ssh-rsa", b"ssh-ed25519", b"ecdsa-sha2-nistp384", b"sk-ssh-ed25519@openssh.com", b"ssh-dss"]),
    st.lists(st.binary(max_size=100) | st.just(b"nistp384"), max_size=4),
)
def test_any_fields_are_a_key_or_a_refusal(kind: bytes, fields: list[bytes]) -> None:
    """Well-formed base64 around nonsense raises nothing but a refusal."""
    read(line(kind, *fields))
