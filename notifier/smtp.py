"""Delivers mails to an SMTP server, over STARTTLS or TLS where asked; the only home of aiosmtplib.

The answer to the mail itself decides: 4xx is temporary, 5xx permanent. What goes wrong before the mail is offered
(no route, a wrong password, a certificate) is never the mail's fault, so it delays the mail and loses none.
An answer lost after DATA is temporary too: the second copy has the same Message-ID. Passwords are in no message.
"""

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import parseaddr

import aiosmtplib

from notifier.courier import PermanentMailError, TemporaryMailError
from postern.smtp_url import SmtpServer, StartTls

REPLY_TIMEOUT = 30.0  # seconds for one answer of the server
DELIVERY_TIMEOUT = 120.0  # seconds for one mail in all
LONGEST_REPLY = 200  # characters of a server's answer that an error repeats


class SmtpCourier:
    """Hands each mail to the server on a connection of its own."""

    def __init__(
        self,
        server: SmtpServer,
        *,
        sender: str,
        reply_timeout: float = REPLY_TIMEOUT,
        delivery_timeout: float = DELIVERY_TIMEOUT,
    ) -> None:
        self._server = server
        self._tls_context = _tls_context(server)
        self._envelope_sender = parseaddr(sender)[1]
        self._reply_timeout = reply_timeout
        self._delivery_timeout = delivery_timeout

    async def deliver(self, mail: EmailMessage, *, recipient: str) -> None:
        try:
            async with asyncio.timeout(self._delivery_timeout):
                await self._deliver(mail, recipient)
        except TimeoutError:
            raise TemporaryMailError(f"The mail server {self._server.host} took too long.") from None

    async def check(self) -> str:
        """Greet the server and log in as before a mail, and leave without one.

        Returns:
            which server it was.

        Raises:
            TemporaryMailError: it does not answer, or does not let us in.
        """
        client = self._client()
        try:
            with _before_the_mail(self._server.host):
                await client.connect()
                await client.quit()
        finally:
            client.close()
        return f"{self._server.host}:{self._server.port}"

    async def _deliver(self, mail: EmailMessage, recipient: str) -> None:
        client = self._client()
        try:
            with _before_the_mail(self._server.host):
                await client.connect()
            with _about_the_mail(self._server.host):
                await client.send_message(mail, sender=self._envelope_sender, recipients=[recipient])
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit()  # the server has the mail; how it says good-bye changes nothing
        finally:
            client.close()

    def _client(self) -> aiosmtplib.SMTP:
        server = self._server
        start_tls = {StartTls.REQUIRE: True, StartTls.AUTO: None, StartTls.NEVER: False}[server.starttls]
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            start_tls=False if server.tls else start_tls,
            tls_context=self._tls_context,
            timeout=self._reply_timeout,
        )


@contextmanager
def _before_the_mail(host: str) -> Iterator[None]:
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        raise TemporaryMailError(_answered(host, error)) from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise TemporaryMailError(f"The mail server {host} cannot be used: {_safe(str(error))}.") from None


@contextmanager
def _about_the_mail(host: str) -> Iterator[None]:
    try:
        yield
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refusal(host, error.recipients[0]) from None
    except aiosmtplib.SMTPResponseException as error:
        raise _refusal(host, error) from None
    except (aiosmtplib.SMTPNotSupported, ValueError):
        # SMTPUTF8 is needed and missing, or the address holds what no SMTP command may.
        raise PermanentMailError(f"The mail server {host} cannot take mail for this address.") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise TemporaryMailError(f"The mail server {host} went away: {_safe(str(error))}.") from None


def _refusal(host: str, error: aiosmtplib.SMTPResponseException) -> PermanentMailError | TemporaryMailError:
    # 530 (RFC 4954, 6) asks for a login: that is in our settings, so the mail waits for them to be mended.
    permanent = 500 <= error.code <= 599 and error.code != 530  # noqa: PLR2004 - reply codes: RFC 5321, 4.2.1
    return (PermanentMailError if permanent else TemporaryMailError)(_answered(host, error))


def _answered(host: str, error: aiosmtplib.SMTPResponseException) -> str:
    return f"The mail server {host} answered {error.code}: {_safe(error.message)}."


def _safe(reply: str) -> str:
    """A server's words on one line, without the addresses that it may repeat."""
    return re.sub(r"\S+@\S+", "<address>", " ".join(reply.split()))[:LONGEST_REPLY].rstrip(".")


def _tls_context(server: SmtpServer) -> ssl.SSLContext | None:
    if not server.tls and server.starttls is StartTls.NEVER:
        return None
    context = ssl.create_default_context()  # a private authority: SSL_CERT_FILE
    if not server.tls and server.starttls is StartTls.AUTO:
        # Opportunistic (RFC 7435): who could forge a certificate here could as well strip STARTTLS, so to insist on
        # one would only turn encryption off, or mail, for relays with a self-made certificate.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
