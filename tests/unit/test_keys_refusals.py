"""What people send instead of a public key, and what they are told."""

import base64
import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keys.parse import LARGEST_FILE, parse_public_key
from postern.errors import Refusal

MAKE = "`ssh-keygen -t ed25519 -f postern_key`"
ED25519_POINT = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()


def string(content: bytes) -> bytes:
    """One string of RFC 4251, section 5."""
    return len(content).to_bytes(4, "big") + content


def encoded(*fields: bytes, rest: bytes = b"") -> str:
    return base64.b64encode(b"".join(map(string, fields)) + rest).decode()


def line(*fields: bytes) -> str:
    """The public key line of these fields, the first of which is the type."""
    return f"{fields[0].decode()} {encoded(*fields)}"


def refusal_of(data: str | bytes) -> Refusal:
    """The refusal of this input, which tells how to make a good key and which file of it to send."""
    with pytest.raises(Refusal) as caught:
        parse_public_key(data)
    assert MAKE in str(caught.value)
    assert "the file to send is the .pub one" in str(caught.value)
    return caught.value


def point_on(curve: ec.EllipticCurve) -> bytes:
    return (
        ec.derive_private_key(7, curve)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )


BLOB = encoded(b"ssh-ed25519", ED25519_POINT)
GOOD = f"ssh-ed25519 {BLOB}"
OTHER = line(b"sk-ssh-ed25519@openssh.com", ED25519_POINT, b"ssh:")
P256 = point_on(ec.SECP256R1())
P384 = point_on(ec.SECP384R1())
NUMBER = b"\x7f" + bytes(255)
OFF_CURVE = P256[:-1] + bytes([P256[-1] ^ 1])
COMPRESSED = bytes([2 + P256[-1] % 2]) + P256[1:33]


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("key_empty", ""),
        ("key_empty", b" \r\n\n"),
        ("key_empty", f"# {GOOD}\n"),
        ("key_too_large", GOOD + " " * LARGEST_FILE),
        ("key_utf16", GOOD.encode("utf-16")),
        ("key_utf16", GOOD.encode("utf-16-le")),
        ("key_utf16", GOOD.encode("utf-16-be")),
        ("key_byte_order_mark", GOOD.encode("utf-8-sig")),
        ("key_binary", b"\x30\x82\x01\x0a\x02\x82\x01\x01\0"),
        ("key_binary", bytes(64)),
        ("key_binary", "Schlüssel folgt".encode("latin-1")),
        ("key_binary", GOOD + " \x1b[2J"),
        ("key_known_hosts", f"gate.example.com {GOOD}"),
        ("key_known_hosts", f"gate.example.com,192.0.2.1 {GOOD}\ngate {OTHER}"),
        ("key_known_hosts", f"[192.0.2.1]:2222 {GOOD}"),
        ("key_known_hosts", f"|1|dGVzdA==|dGVzdA== {GOOD}"),
        ("key_known_hosts", f"@cert-authority *.example.com {GOOD}"),
        ("key_several", f"{GOOD}\n{OTHER}\n"),
        ("key_several", f"{GOOD} {OTHER}"),
        ("key_several", f"{GOOD}{OTHER}"),
        ("key_several", f"{GOOD} me@host{OTHER}"),
        ("key_options", f"no-pty {GOOD}"),
        ("key_options", f'from="192.0.2.0/24",command="/bin/echo a b" {GOOD} me'),
        ("key_options", f"restrict,pty {GOOD}"),
        ("key_options", f"cert-authority {GOOD}"),
        ("key_extra_text", f"My key: {GOOD}"),
        ("key_extra_text", f"Hi\n{GOOD}"),
        ("key_extra_text", f"> {GOOD}"),
        ("key_extra_text", f"{GOOD} me\nRegards"),
        ("key_wrapped", f"{GOOD[:50]}\n{GOOD[50:]}"),
        ("key_wrapped", f"{GOOD[:40]}\r\n{GOOD[40:60]}\r\n{GOOD[60:]} me@host"),
        ("key_wrapped", GOOD.replace(" ", "\n")),
        ("key_type_missing", BLOB),
        ("key_type_missing", f"{BLOB} me@host"),
        ("key_type_unknown", line(b"ssh-ed448", bytes(57))),
        ("key_type_unknown", line(b"ssh-\xc3\xbc", bytes(57))),
        ("key_type_mismatch", f"ssh-rsa {BLOB}"),
        ("key_type_mismatch", f"sh-ed25519 {BLOB}"),
        ("key_type_mismatch", f"SSH-ED25519 {BLOB}"),
        ("key_dsa", line(b"ssh-dss", NUMBER, NUMBER, NUMBER, NUMBER)),
        ("key_dsa", line(b"ssh-dss", NUMBER, NUMBER, NUMBER, NUMBER) + "\nRegards"),
        ("key_certificate", line(b"ssh-ed25519-cert-v01@openssh.com", bytes(32), ED25519_POINT)),
        ("key_base64", "ssh-ed25519"),
        ("key_base64", "ssh-ed25519 some words"),
        ("key_base64", GOOD[:-1]),
        ("key_base64", GOOD[:60] + "*" + GOOD[61:]),
        ("key_base64", GOOD + "="),
        ("key_base64", GOOD[:60] + "é" + GOOD[61:]),
        ("key_truncated", f"ssh-ed25519 {BLOB[:-8]}"),
        ("key_truncated", f"ssh-ed25519 {encoded(b'ssh-ed25519')}"),
        ("key_trailing_bytes", f"ssh-ed25519 {encoded(b'ssh-ed25519', ED25519_POINT, rest=b'!')}"),
        ("key_length", line(b"ssh-ed25519", ED25519_POINT[:-1])),
        ("key_length", line(b"ssh-ed25519", ED25519_POINT + b"\0")),
        ("key_point", line(b"ssh-ed25519", (2).to_bytes(32, "little"))),
        ("key_point", line(b"ssh-ed25519", (2**255 - 19 + 3).to_bytes(32, "little"))),
        ("key_point", line(b"ssh-ed25519", bytes(32))),
        ("key_point", line(b"ssh-ed25519", (1).to_bytes(32, "little"))),
        ("key_point", line(b"ecdsa-sha2-nistp256", b"nistp256", OFF_CURVE)),
        ("key_point", line(b"ecdsa-sha2-nistp256", b"nistp256", COMPRESSED)),
        ("key_point", line(b"ecdsa-sha2-nistp256", b"nistp256", P384)),
        ("key_point", line(b"ecdsa-sha2-nistp256", b"nistp256", b"")),
        ("key_curve", line(b"ecdsa-sha2-nistp256", b"nistp384", P384)),
        ("key_number", line(b"ssh-rsa", b"", NUMBER)),
        ("key_number", line(b"ssh-rsa", b"\x03", b"\xff" + NUMBER)),
        ("key_number", line(b"ssh-rsa", b"\0\x03", NUMBER)),
        ("key_fingerprint", "SHA256:1M4RzhMyWuFS/86uPY/ce2prh/dVTHW7iD2RhpquOZA"),
        ("key_fingerprint", "256 SHA256:WkvqjnyPAeC0cbPErYiGP9vqHdgL1MqqvPdIe3lvHgI me (ED25519)"),
        ("key_fingerprint", "MD5:dd:3b:b8:2e:85:04:06:e9:ab:ff:a8:0a:c0:04:6e:d6"),
        ("key_fingerprint", "dd:3b:b8:2e:85:04:06:e9:ab:ff:a8:0a:c0:04:6e:d6"),
        ("key_url", "https://github.com/example.keys"),
        ("key_url", "git@github.com:example/keys.git"),
        ("key_pem", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n-----END PGP PUBLIC KEY BLOCK-----\n"),
        ("key_unrecognised", "recipient,language\n6599999999,english\n"),
    ],
)
def test_each_wrong_input_has_its_code(code: str, data: str | bytes) -> None:
    """Everything that is not one public key is refused for what it is, with what to do."""
    assert refusal_of(data).code == code


@pytest.fixture(scope="module")
def private_keys() -> dict[str, bytes]:
    """Private keys in the formats that programs write."""
    key, password = rsa.generate_private_key(65537, 2048), serialization.BestAvailableEncryption(b"secret")
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return {
        "OpenSSH": key.private_bytes(pem, serialization.PrivateFormat.OpenSSH, plain),
        "PEM": key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain),
        "encrypted PEM": key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, password),
        "PKCS #8": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        "encrypted PKCS #8": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, password),
        "PuTTY": b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: me\r\n",
        "SSH2": b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAA\n",
    }


@pytest.mark.parametrize("kind", ["OpenSSH", "PEM", "encrypted PEM", "PKCS #8", "encrypted PKCS #8", "PuTTY", "SSH2"])
def test_a_private_key_is_called_compromised(private_keys: dict[str, bytes], kind: str) -> None:
    """Whoever sends a private key is told to replace it, in whatever format and encoding it came."""
    data = private_keys[kind]
    disguises = [data, data.decode().encode("utf-16"), b"\xef\xbb\xbf" + data, GOOD.encode() + b"\n" + data]
    for disguise in disguises:
        refusal = refusal_of(disguise)
        assert refusal.code == "key_private"
        assert "COMPROMISED" in str(refusal)
        assert "replace it" in str(refusal)


def test_a_private_key_without_its_frame_is_recognised(private_keys: dict[str, bytes]) -> None:
    """The base64 alone of an OpenSSH private key is still one."""
    assert refusal_of(b"".join(private_keys["OpenSSH"].splitlines()[1:-1])).code == "key_private"


def test_no_refusal_repeats_a_secret() -> None:
    """A word where the type belongs is not quoted unless it looks like a type."""
    assert "hunter2" not in str(refusal_of(f"hunter2 {BLOB}"))


@pytest.mark.parametrize(("code", "form"), [("key_ssh2", "RFC4716"), ("key_pem", "PEM"), ("key_pem", "PKCS8")])
def test_the_conversion_command_of_a_refusal_works(tmp_path: Path, code: str, form: str) -> None:
    """The command in the sentence turns another public key format into a key that is accepted."""
    path, other = tmp_path / "key", tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path], check=True)
    other.write_bytes(
        subprocess.run(["ssh-keygen", "-e", "-m", form, "-f", path], check=True, capture_output=True).stdout
    )
    refusal = refusal_of(other.read_bytes())
    assert refusal.code == code
    command = str(refusal).split("`")[1].replace("FILE", str(other)).split()
    converted = subprocess.run(command, check=True, capture_output=True).stdout
    assert parse_public_key(converted).line == parse_public_key(path.with_suffix(".pub").read_bytes()).line


def test_an_x509_certificate_is_refused() -> None:
    """A certificate of the web's kind is named as what it is."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + dt.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    assert refusal_of(certificate.public_bytes(serialization.Encoding.PEM)).code == "key_x509"


def test_an_ssh_certificate_is_refused(tmp_path: Path) -> None:
    """A certificate that ssh-keygen signed is named as what it is."""
    for name in ("ca", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "me", tmp_path / "key.pub"], check=True)
    assert refusal_of((tmp_path / "key-cert.pub").read_bytes()).code == "key_certificate"


def test_the_largest_key_of_all_is_small_enough() -> None:
    """The limit on the size of the file refuses no RSA key that could be enrolled."""
    assert parse_public_key(line(b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 2048)).bits == 16384


def test_long_nonsense_is_refused_at_once() -> None:
    """No pattern takes more than linear time over a file of the largest size."""
    for word in ("BEGIN ", "a", "a ", "no-", "00:", "@revoked ", "ssh-rsa ", "[", "AAAAB3NzaC1yc2E"):
        refusal_of((word * LARGEST_FILE)[:LARGEST_FILE])
