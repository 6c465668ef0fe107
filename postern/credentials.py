"""The credentials of a Twilio account: what they hold, how a file gives them, how they are sealed for the database.

Sealed is AES-256-GCM (NIST SP 800-38D) under a key derived from the installation's secret for this alone; the
campaign's id is authenticated with it, so that a row copied to another campaign opens nothing. They are never shown:
not in `repr`, not in errors, not in logs.
"""

import hashlib
import json
import os
from pathlib import Path

import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from postern.errors import PosternError, Refusal
from postern.secret import derive_key

_NONCE = 12  # bytes
_HEX = "[0-9a-fA-F]{32}"


class TwilioAccount(BaseModel):
    """An account, the API key to it, and what sends there."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    account_sid: str = Field(pattern=f"^AC{_HEX}$", repr=False)
    api_key_sid: str = Field(pattern=f"^SK{_HEX}$", repr=False)
    api_key_secret: str = Field(min_length=1, max_length=200, repr=False)
    messaging_service_sid: str = Field(pattern=f"^MG{_HEX}$", repr=False)
    sender_name: str = Field(default="", max_length=40)  # the sender that recipients should see
    auth_token: str = Field(default="", max_length=200, repr=False)  # with it the signatures of callbacks are checked
    rate: float = Field(default=10.0, gt=0, le=10_000)  # segments a second, over all campaigns of the account

    @property
    def id(self) -> str:
        """What the account is called in our tables and logs: the same for all who use it, and not its SID."""
        return _hashed(self.account_sid)

    @property
    def circuit_id(self) -> str:
        """What these credentials are called: the same for all that use this key and service of the account."""
        return _hashed(self.account_sid, self.api_key_sid, self.messaging_service_sid)


def _hashed(*sids: str) -> str:
    return f"twilio:{hashlib.sha256(' '.join(sids).encode()).hexdigest()[:16]}"


def id_without_account(campaign_id: str) -> str:
    """What stands for an account where a campaign has none that can be used."""
    return f"twilio:{campaign_id}"


class Vault:
    """Seals and opens credentials."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(derive_key(secret, "credentials"))

    def seal(self, account: TwilioAccount, campaign_id: str) -> bytes:
        """The credentials of a campaign as the database keeps them."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, account.model_dump_json().encode(), campaign_id.encode())

    def open(self, sealed: bytes, campaign_id: str) -> TwilioAccount:
        """What `seal` sealed.

        Raises:
            PosternError: it was sealed under another secret key, for another campaign, or was changed.
        """
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], campaign_id.encode())
        except (InvalidTag, ValueError):
            raise PosternError(
                f"The credentials of {campaign_id} cannot be opened: POSTERN_SECRET_KEY is not the one that they were "
                "sealed with. Set that one again, or give the credentials anew: postern campaign credentials"
            ) from None
        return TwilioAccount.model_validate_json(plain)


def read_credentials(path: Path) -> TwilioAccount:
    """Credentials from a file, JSON or YAML.

    Raises:
        Refusal: the file cannot be read or something in it cannot be right; says which field, never what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise Refusal("file_unreadable", f"{path} cannot be read: {reason}.") from None
    try:
        return TwilioAccount.model_validate(_parsed(text))
    except (yaml.YAMLError, RecursionError):  # whose text would show the file
        raise Refusal("file_malformed", f"{path} is neither JSON nor YAML.") from None
    except ValidationError as error:
        lines = [f"{path} holds no credentials:"]
        lines += [
            f"  {'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise Refusal("credentials_invalid", "\n".join(lines)) from None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)
