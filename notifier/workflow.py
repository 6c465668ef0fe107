"""The job that gets a notice out: rendered, handed to the courier, marked as sent.

A mail server that is away delays a mail and nothing else: the job waits with growing pauses, and survives the worker
that it waits in. After some minutes it ends, so that mails that nobody takes do not hold up the others; the mail stays
in the outbox, and `pipeline.reconciler` leaves the job again, at the end of its queue. A worker that dies between the
server's OK and our mark sends the mail again; its Message-ID is made from upload and kind, so the second one is
recognisable.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage

from notifier.courier import Courier, PermanentMailError, TemporaryMailError
from notifier.render import answered_kind, render
from postern.links import LinkSigner, hold_path
from postern.logs import get_logger
from postern.model import IdKind, Notice, NoticeKind, derived_id
from postern.settings import WorkerSettings
from postern.times import from_iso
from storage.database import Database
from storage.engine import PATIENCE, Engine, pause, persistently
from storage.jobs import SEND_NOTICE
from storage.ledger.notices import get_notice, mark_failed, mark_sent, mark_tried

_FIRST_PAUSE = 1.0  # seconds

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """What sending notices needs."""

    settings: WorkerSettings
    database: Database
    courier: Courier
    links: LinkSigner  # of the pages on which held uploads are decided about
    now: Callable[[], datetime]
    patience: float = PATIENCE


def register(engine: Engine, notifier: Notifier) -> None:
    """Let this worker send notices."""

    async def send_notice(notice_id: str) -> None:
        notice = await persistently(get_notice, notifier.database, notice_id)
        if not notice.is_settled:
            await _let_earlier_go_first(notifier, notice)
            await deliver(notifier, notice)

    engine.register(SEND_NOTICE, send_notice)


async def deliver(notifier: Notifier, notice: Notice) -> None:
    """Deliver a notice, trying again for some minutes; only a refusal for good ends it for ever."""
    about = {"notice_id": notice.id, "upload_id": notice.upload_id}
    until = time.monotonic() + notifier.patience
    is_old = notifier.now() - notice.created_at > timedelta(seconds=notifier.patience)
    seconds = notifier.patience if is_old else _FIRST_PAUSE  # its server has been asked often enough
    while True:
        try:
            mail = _mail(notifier, notice)
            await notifier.courier.deliver(mail, recipient=notice.recipient)
        except PermanentMailError as error:
            log.critical("notice.failed", error=str(error), **about)
            await persistently(lambda why=str(error): mark_failed(notifier.database, notice.id, error=why))
            return
        except TemporaryMailError as error:
            why = str(error)
            log.warning("notice.delayed", error=why, seconds=seconds, **about)
        except Exception as error:  # a bug of ours must not cost the owner the mail: it waits for the mend
            why, seconds = type(error).__name__, notifier.patience
            log.critical("notice.stuck", exc_info=error, **about)
        else:
            await persistently(lambda: mark_sent(notifier.database, notice.id, now=notifier.now()))
            log.info("notice.sent", kind=notice.kind.value, **about)
            return
        await persistently(lambda why=why: mark_tried(notifier.database, notice.id, error=why))
        if (left := until - time.monotonic()) <= 0:
            log.warning("notice.left_for_later", error=why, **about)
            return
        await pause(min(seconds, left))
        seconds *= 2


def _mail(notifier: Notifier, notice: Notice) -> EmailMessage:
    settings = notifier.settings
    url = None
    if notice.kind is NoticeKind.HELD:  # signed here and not where it was held, as intake has no key to sign with
        expires_at = from_iso(notice.context["hold"]["linkExpiresAt"])
        url = notifier.links.sign(settings.public_url, hold_path(notice.upload_id), expires_at)
    return render(notice, sender=settings.mail_from, zone=settings.timezone, hold_url=url)


async def _let_earlier_go_first(notifier: Notifier, notice: Notice) -> None:
    """Wait for the mail that this one follows, for some minutes at most: it must never be the cause that none comes."""
    answered = answered_kind(notice)
    if answered is None:
        return
    earlier_id = derived_id(IdKind.NOTICE, notice.upload_id, answered)
    seconds = _FIRST_PAUSE
    while seconds < notifier.patience:
        earlier = await persistently(get_notice, notifier.database, earlier_id)
        if earlier.is_settled:
            return
        await pause(seconds)
        seconds *= 2
