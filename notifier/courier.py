"""What takes a finished mail out of the house, and how it says that it could not.

A courier that returns has delivered; one that raises `TemporaryMailError` may be asked again with the same
mail, and one that raises `PermanentMailError` will never take that mail. No courier retries by itself or logs.
"""

from email.message import EmailMessage
from typing import Protocol

from postern.errors import PosternError, TransientError
from postern.settings import WorkerSettings
from postern.smtp_url import SmtpServer


class TemporaryMailError(TransientError):
    """The mail was not delivered this time; the same mail may be delivered later."""


class PermanentMailError(PosternError):
    """The mail will not be delivered, however often it is tried."""


class Courier(Protocol):
    """Delivers one mail at a time; safe to share between tasks."""

    async def deliver(self, mail: EmailMessage, *, recipient: str) -> None:
        """Hand `mail` over for `recipient`, durably.

        Raises:
            TemporaryMailError: try again later.
            PermanentMailError: do not.
        """
        ...

    async def check(self) -> str:
        """Make sure that mails would be taken now, without one.

        Returns:
            where they go, for an operator.

        Raises:
            TemporaryMailError: they would not.
        """
        ...


def courier_from(settings: WorkerSettings) -> Courier:
    """The courier that the settings name: an SMTP server, or `.eml` files in a folder."""
    # Imported here because both couriers raise the errors above, and only the chosen one needs its library.
    if settings.smtp_url.startswith(("smtp:", "smtps:")):
        from notifier.smtp import SmtpCourier  # noqa: PLC0415

        return SmtpCourier(SmtpServer.from_url(settings.smtp_url), sender=settings.mail_from)
    from notifier.eml import EmlCourier  # noqa: PLC0415

    return EmlCourier(settings.mail_folder)
