"""The secret key of this installation, and the keys derived from it for one purpose each.

`secret.key` under home is made on first start, readable by its owner only; `POSTERN_SECRET_KEY` replaces it
where roles run on several hosts. The gate never has it.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from postern.errors import SettingsError
from postern.settings_file import read_settings_file

_LENGTH = 32  # bytes
_FINGERPRINT = 8  # characters
VARIABLE = "POSTERN_SECRET_KEY"


def load_secret(home: Path, environ: Mapping[str, str] | None = None) -> bytes:
    """The secret key: from the environment or `postern.env`, or from home, where it is made if it is not there.

    Raises:
        SettingsError: it is there and is no key.
    """
    text = _setting(home, environ) or _from_file(home / "secret.key")
    try:
        return decoded(text)
    except ValueError as error:
        raise SettingsError(f"{VARIABLE}: {error}") from None


def source_of_secret(home: Path, environ: Mapping[str, str] | None = None) -> str | None:
    """Where the secret key is found, the variable or `secret.key`; None where one would have to be made."""
    if _setting(home, environ):
        return VARIABLE
    return "secret.key" if (home / "secret.key").exists() else None


def decoded(text: str) -> bytes:
    """The key that a text stands for.

    Raises:
        ValueError: it stands for none; says what a key looks like, and not the text.
    """
    try:
        key = base64.urlsafe_b64decode(text)
    except ValueError:  # not ASCII, or wrong padding
        key = b""
    if len(key) < _LENGTH:
        raise ValueError(f"needs {_LENGTH} random bytes in URL-safe base64, such as {_make()!r}")
    return key


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose; knowing it tells nothing of the secret or of the other keys."""
    return hmac.new(secret, f"postern:{purpose}".encode(), hashlib.sha256).digest()


def fingerprint(secret: bytes) -> str:
    """What operators compare between hosts: the same key has the same one, and it tells nothing of the key."""
    return derive_key(secret, "fingerprint").hex()[:_FINGERPRINT]


def _setting(home: Path, environ: Mapping[str, str] | None) -> str | None:
    environ = os.environ if environ is None else environ
    return environ.get(VARIABLE) or read_settings_file(home).get(VARIABLE)


def _from_file(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where another role was faster, which is as good
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text(encoding="ascii", errors="replace").strip()


def _make() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(_LENGTH)).decode()
