"""What `POSTERN_SMTP_URL` says of a mail server: where it is, who we are there, and what has to be encrypted."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_WHOLE = "use smtp://user:password@host:587 or smtps://user:password@host:465"


class StartTls(StrEnum):
    """Whether a plain connection is turned into an encrypted one."""

    REQUIRE = "require"  # no mail and no password without verified encryption
    AUTO = "auto"  # encrypt where the server offers it, without verifying it
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where mail is handed over, and how."""

    host: str
    port: int
    tls: bool  # from the first byte, as smtps:// says
    starttls: StartTls
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `smtp[s]://[user:password@]host[:port][?starttls=require|auto|never]`, percent-decoded.

        Raises:
            ValueError: says what is wrong without repeating the URL, which may hold a password.
        """
        parts, port = _split(url)
        tls = parts.scheme == "smtps"
        user = unquote(parts.username) if parts.username else None
        return cls(
            host=parts.hostname or "",
            port=port or _usual_port(tls=tls, user=user),
            tls=tls,
            starttls=_starttls(parts.query, tls=tls, user=user),
            user=user,
            password=unquote(parts.password) if parts.password else None,
        )


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # A `/`, `?` or `#` in the password ends the host early; the error of urlsplit would print what is left.
        raise ValueError(f"{_WHOLE}; write / ? # @ in a password as %2F %3F %23 %40") from None
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path not in {"", "/"} or parts.fragment:
        raise ValueError(_WHOLE)
    return parts, port


def _usual_port(*, tls: bool, user: str | None) -> int:
    if tls:
        return 465  # RFC 8314, 3.3
    return 587 if user else 25  # submission (RFC 6409) asks who one is, a relay does not


def _starttls(query: str, *, tls: bool, user: str | None) -> StartTls:
    options = dict(parse_qsl(query, keep_blank_values=True))
    chosen = options.pop("starttls", None)
    if options or (chosen is not None and chosen not in set(StartTls)):
        raise ValueError("the only option is ?starttls=require, auto or never")
    if tls and chosen is not None:
        raise ValueError("smtps:// is encrypted from the start; leave starttls out")
    if chosen is None:
        return StartTls.REQUIRE if user else StartTls.AUTO
    return StartTls(chosen)
