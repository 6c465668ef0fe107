"""Signed links: a path under the service's own address that works for whoever has it, until it expires."""

import base64
import hashlib
import hmac
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlencode

from postern.secret import derive_key


class Purpose(StrEnum):
    """What a link is for; each purpose has a key of its own, so no link of one is ever one of another."""

    REPORT = "links"
    HOLD = "hold links"


class LinkSigner:
    """Makes and checks links for one purpose, with a key of their own derived from the secret."""

    def __init__(self, secret: bytes, purpose: Purpose = Purpose.REPORT) -> None:
        self._key = derive_key(secret, purpose)

    def sign(self, base_url: str, path: str, expires_at: datetime) -> str:
        """The whole URL.

        Args:
            base_url: such as `https://postern.example`, without a slash at its end.
            path: starts with a slash.
            expires_at: the link works before this time.
        """
        expires = str(int(expires_at.timestamp()))
        query = urlencode({"expires": expires, "signature": self._signature(path, expires)})
        return f"{base_url}{path}?{query}"

    def is_good(self, path: str, expires: str, signature: str) -> bool:
        """Whether the signature is ours for this path and expiry; says nothing of whether it has expired."""
        return hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())

    def _signature(self, path: str, expires: str) -> str:
        digest = hmac.new(self._key, f"{path}\n{expires}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def hold_path(upload_id: str) -> str:
    """Where the owner decides about a held upload."""
    return f"/held/{upload_id}"
