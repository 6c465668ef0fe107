"""The address under which a provider reports on an attempt: the attempt's id and a signature of ours in the path.

The signature is what protects it where the provider's own cannot be checked: Twilio signs with the account's auth
token, which those who work with API keys need not have.
"""

import base64
import hashlib
import hmac

from postern.secret import derive_key

_OVERRIDES = "#rc=5&rp=all"  # Twilio's webhook connection overrides: five more tries, whatever went wrong


class CallbackSigner:
    """Makes and checks callback addresses, with a key of their own derived from the secret."""

    def __init__(self, secret: bytes) -> None:
        self._mac = hmac.new(derive_key(secret, "callbacks"), digestmod=hashlib.sha256)

    def url(self, base_url: str, provider: str, attempt_id: str) -> str:
        """The whole address, for the provider to keep."""
        return f"{base_url}{self.path(provider, attempt_id)}{_OVERRIDES}"

    def path(self, provider: str, attempt_id: str) -> str:
        """What the provider asks for."""
        return f"/webhooks/{provider}/{attempt_id}/{self._signature(provider, attempt_id)}"

    def is_good(self, provider: str, attempt_id: str, signature: str) -> bool:
        """Whether the signature is ours for this attempt."""
        return hmac.compare_digest(self._signature(provider, attempt_id).encode(), signature.encode())

    def _signature(self, provider: str, attempt_id: str) -> str:
        mac = self._mac.copy()
        mac.update(f"{provider}\n{attempt_id}".encode())
        return base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=")
