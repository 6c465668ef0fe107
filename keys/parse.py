"""Reads the one OpenSSH public key that a person sent, and knows what people send instead.

Pure. Every input gives a key or a `Refusal`, whose sentence says what was found and which command makes
a good key. A key that is returned is one that OpenSSH reads too, canonical, with its numbers and points
checked; whether it is strong enough is for `keys.policy`.
Sentences never repeat the input, which may be a private key: they quote words of a type's form only.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from cryptography.hazmat.primitives.asymmetric import ec

from keys.weak_keys import is_ed25519_point
from postern.errors import Refusal

LARGEST_FILE = 100_000  # bytes; an RSA key of 16,384 bits needs under 3,000


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """One well-formed public key."""

    type: str
    bits: int
    line: str  # `<type> <base64>`, no comment
    comment: str
    fingerprint: str  # SHA256:…, as `ssh-keygen -lf` prints it
    modulus: int | None = None  # of RSA keys only, like the exponent
    exponent: int | None = None


def parse_public_key(text: str | bytes) -> PublicKey:
    """The key in the content of a `.pub` file.

    Raises:
        Refusal: it is anything else than exactly one OpenSSH public key.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    _refuse_private(data)
    decoded = _decoded(data)
    _refuse_first_match(_ARMOUR, decoded)
    return _key_in(_key_line(decoded))


def refused(code: str, found: str) -> Refusal:
    """A refusal that says what was found, and then what to do about it."""
    return Refusal(
        code,
        f"{found} A good key is made with `ssh-keygen -t ed25519 -f postern_key`; the file to send is the"
        " .pub one, postern_key.pub, as it is.",
    )


# What people send instead of a public key ---------------------------------------------------------------

_PRIVATE: Sequence[tuple[str, str]] = (
    (r"PuTTY-User-Key-File-", "a PuTTY private key (.ppk)"),
    (r"BEGIN OPENSSH PRIVATE KEY|b3BlbnNzaC1rZXktdj", "an OpenSSH private key"),
    (r"BEGIN (?:SSH2 )?ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED", "an encrypted private key"),
    (r"BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|SSH PRIVATE KEY FILE FORMAT", "a private key"),
)

_ARMOUR: Sequence[tuple[str, str, str]] = (
    (
        "key_ssh2",
        r"BEGIN SSH2 PUBLIC KEY",
        "This is a public key in the SSH2 format (RFC 4716); `ssh-keygen -i -f FILE` makes it an OpenSSH one.",
    ),
    ("key_x509", r"BEGIN (?:X509 |TRUSTED )?CERTIFICATE-", "This is an X.509 certificate, not an OpenSSH key."),
    (
        "key_pem",
        r"BEGIN RSA PUBLIC KEY",
        "This is a PEM public key (PKCS #1); `ssh-keygen -i -m PEM -f FILE` makes it an OpenSSH one.",
    ),
    (
        "key_pem",
        r"BEGIN PUBLIC KEY",
        "This is a PEM public key; `ssh-keygen -i -m PKCS8 -f FILE` makes it an OpenSSH one (RSA, ECDSA).",
    ),
    ("key_pem", r"-----BEGIN ", "This is a PEM or PGP file, not an OpenSSH public key."),
)

_NO_KEY: Sequence[tuple[str, str, str]] = (
    (
        "key_fingerprint",
        r"\b(?:SHA256|SHA512|MD5):|\b(?:[0-9a-fA-F]{2}:){15}[0-9a-fA-F]{2}\b",
        "This is the fingerprint of a key; the key itself cannot be had from it.",
    ),
    (
        "key_url",
        r"^\s*(?:[a-z][a-z0-9+.-]{1,20}://|www\.|git@)",
        "This is the address of something; Postern fetches no keys, it needs the key itself.",
    ),
    (
        "key_base64",
        r"^\s*(?:ssh-|ecdsa-sha2-|sk-)",
        "This begins like a key, but what follows the type is not a key's base64; it may be cut short.",
    ),
    ("key_binary", "\ufffd", "This is neither UTF-8 nor any other text that Postern reads."),
    ("key_unrecognised", "", "There is no OpenSSH public key in this."),
)


def _refuse_private(data: bytes) -> None:
    text = data.replace(b"\0", b"").decode("latin-1")  # so that UTF-16 hides nothing
    for pattern, kind in _PRIVATE:
        if re.search(pattern, text):
            raise refused(
                "key_private",
                f"STOP: this is {kind}, which must never leave its owner's machine. Consider it COMPROMISED,"
                " with or without a passphrase: delete every copy, take it off every server that accepts it,"
                " and replace it.",
            )


def _refuse_first_match(table: Sequence[tuple[str, str, str]], text: str) -> None:
    for code, pattern, found in table:
        if re.search(pattern, text):
            raise refused(code, found)


def _decoded(data: bytes) -> str:
    if len(data) > LARGEST_FILE:
        raise refused("key_too_large", f"This is {len(data):,} bytes long; no public key is.")
    if _is_utf16(data):
        raise refused("key_utf16", "This is UTF-16 text, as Windows PowerShell and Notepad write it, not UTF-8.")
    if data.startswith(b"\xef\xbb\xbf"):
        raise refused("key_byte_order_mark", "This begins with a byte order mark, which an editor put there.")
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", data):
        raise refused("key_binary", "This is a binary file; if there is a private key in it, replace that key.")
    return data.decode("utf-8", "replace")  # a comment may be in any encoding


def _is_utf16(data: bytes) -> bool:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return len(data) > 1 and any(data) and not (any(data[::2]) and any(data[1::2]))


# Which line is the key ----------------------------------------------------------------------------------

_OPTION = re.compile(
    r"\s*(?:no-)?(?:agent-forwarding|cert-authority|command|environment|expiry-time|from|permitlisten|permitopen"
    r"|port-forwarding|principals|pty|restrict|touch-required|tunnel|user-rc|verify-required|x11-forwarding)"
    r"[=,\s]",
    re.IGNORECASE,
)
_KNOWN_HOST = re.compile(
    r"\s*(?:@cert-authority\s+|@revoked\s+)?(?:\|1\|\S+|\[\S+|[\w.*?!,:-]*[\w*])\s+(?:ssh|ecdsa|sk)-\S+\s+AAAA"
)


def _key_line(text: str) -> str:
    """The only line there is: a type, base64, and perhaps a comment."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise refused("key_empty", "There is no key in this: it is empty.")
    words = " ".join(lines).split()
    if not any(map(_is_blob, words)):
        _refuse_first_match(_NO_KEY, text)
    before = list(takewhile(lambda word: not _is_blob(word), words))
    if not before:
        raise refused("key_type_missing", "The word before the base64, such as ssh-ed25519, is missing.")
    _refuse_company(before[:-1], lines[0], keys=sum(map(_is_blob, words)))
    if len(lines) > 1:
        _refuse_more_lines(lines[0])
    return lines[0]


def _is_blob(word: str) -> bool:
    """Whether this is a key's base64: all of them begin with the length of a type's name in 32 bits."""
    return word.startswith("AAAA") and len(word) >= len("AAAAB3NzaC1y")


def _refuse_company(before: Sequence[str], first: str, *, keys: int) -> None:
    """Refuse what stands before the key's type, and further keys."""
    has_options = bool(before) and _OPTION.match(first) is not None
    if not has_options and _KNOWN_HOST.match(first):
        raise refused("key_known_hosts", "There is a host name before the key: known_hosts holds servers' keys.")
    if keys > 1:
        raise refused("key_several", f"There are {keys} keys in this; each is enrolled from a file of its own.")
    if has_options:
        raise refused("key_options", "There are options before the key, as in authorized_keys.")
    if before:
        raise refused("key_extra_text", "There is text before the key; nothing but the key may be there.")


def _refuse_more_lines(first: str) -> None:
    """Say whether a mail program broke the key into these lines, or something else is on them."""
    try:
        _key_in(first)
    except Refusal as refusal:
        if refusal.code not in _CUT_SHORT:
            raise
        raise refused(
            "key_wrapped",
            "The key is broken into several lines, as mail programs do when it is pasted; it is one line."
            " Attach the file instead.",
        ) from None
    raise refused("key_extra_text", "There is text after the line with the key; nothing but the key may be there.")


# What the line says -------------------------------------------------------------------------------------

_CUT_SHORT = frozenset({"key_base64", "key_truncated"})
_CURVES: Mapping[str, tuple[bytes, ec.EllipticCurve]] = {
    "ecdsa-sha2-nistp256": (b"nistp256", ec.SECP256R1()),
    "ecdsa-sha2-nistp384": (b"nistp384", ec.SECP384R1()),
    "ecdsa-sha2-nistp521": (b"nistp521", ec.SECP521R1()),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", ec.SECP256R1()),
}
_FIELDS: Mapping[str, int] = {  # after the type: RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4; PROTOCOL.u2f
    "ssh-rsa": 2,
    "ssh-ed25519": 1,
    "sk-ssh-ed25519@openssh.com": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


def _key_in(line: str) -> PublicKey:
    kind, encoded, comment = (*line.split(maxsplit=2), "", "")[:3]
    blob = _blob(encoded)
    fields = _fields(kind, blob)
    bits, exponent, modulus = _numbers(kind, fields)
    return PublicKey(
        type=kind,
        bits=bits,
        line=f"{kind} {encoded}",
        comment="".join(letter if letter.isprintable() else "\ufffd" for letter in comment.strip()),
        fingerprint="SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("="),
        modulus=modulus,
        exponent=exponent,
    )


def _blob(encoded: str) -> bytes:
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        blob = b""
    if not blob or base64.b64encode(blob).decode() != encoded:  # bits left over mean that letters are missing
        raise refused("key_base64", "The key's base64 is damaged or cut short.")
    return blob


def _fields(kind: str, blob: bytes) -> Sequence[bytes]:
    """The fields after the type, exactly as many as the type has."""
    name, rest = _field(blob)
    _refuse_type(kind, name.decode("utf-8", "replace"))
    fields = []
    for _ in range(_FIELDS[kind]):
        field, rest = _field(rest)
        fields.append(field)
    if rest:
        raise refused("key_trailing_bytes", "The key is damaged: it goes on after its end.")
    return fields


def _field(blob: bytes) -> tuple[bytes, bytes]:
    """The first string of RFC 4251, section 5, and what follows it."""
    end = 4 + int.from_bytes(blob[:4], "big")
    if len(blob) < end:
        raise refused("key_truncated", "The key is cut short: its base64 ends before the key does.")
    return blob[4:end], blob[end:]


def _refuse_type(kind: str, name: str) -> None:
    if "-cert-v0" in kind + name:
        raise refused("key_certificate", "This is an SSH certificate (-cert.pub), not the public key it is for.")
    if "ssh-dss" in (kind, name):
        raise refused("key_dsa", "This is a DSA key, which SSH programs of today no longer accept.")
    if kind != name:
        raise refused(
            "key_type_mismatch", f"The line begins with {_shown(kind)}, but the key after it is {_shown(name)}."
        )
    if kind not in _FIELDS:
        raise refused("key_type_unknown", f"Postern does not accept keys of this type: {_shown(kind)}.")


def _shown(kind: str) -> str:
    return kind if re.fullmatch(r"(?:ssh|ecdsa|sk|rsa|x509v3)-[a-z0-9@.-]{1,60}", kind) else "an unknown type"


def _numbers(kind: str, fields: Sequence[bytes]) -> tuple[int, int | None, int | None]:
    """Bits, and an RSA key's exponent and modulus."""
    if kind == "ssh-rsa":
        exponent, modulus = map(_mpint, fields)
        return modulus.bit_length(), exponent, modulus
    if kind in _CURVES:
        name, curve = _CURVES[kind]
        _check_ecdsa(name, curve, fields)
        return curve.key_size, None, None
    _check_ed25519(fields[0])
    return 256, None, None


def _mpint(field: bytes) -> int:
    """A positive number in its shortest form: any other would give one key two fingerprints."""
    number = int.from_bytes(field, "big", signed=True)
    if number <= 0 or len(field) != number.bit_length() // 8 + 1:
        raise refused("key_number", "The key is damaged: its numbers are not positive numbers in their short form.")
    return number


def _check_ecdsa(name: bytes, curve: ec.EllipticCurve, fields: Sequence[bytes]) -> None:
    if fields[0] != name:
        raise refused("key_curve", f"The key is damaged: its curve is not {name.decode()}, which its type has.")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, fields[1])
    except ValueError:
        is_point = False
    else:
        is_point = fields[1].startswith(b"\4")  # OpenSSH reads no compressed points
    if not is_point:
        raise refused("key_point", f"The key is damaged: it is not a point on {name.decode()}.")


def _check_ed25519(point: bytes) -> None:
    if len(point) != 32:  # noqa: PLR2004  (RFC 8709, 4)
        raise refused("key_length", f"The key is damaged: an ED25519 key is 32 bytes, this has {len(point)}.")
    if not is_ed25519_point(point):
        raise refused("key_point", "The key is damaged: it is not a usable point of its curve.")
