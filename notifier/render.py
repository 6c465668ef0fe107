"""Turns a notice into the mail that the campaign owner receives: plain text with the machine-readable line, and HTML.

The same notice makes the same bytes, Message-ID and MIME boundary included, so a mail sent twice is recognisable.
Text that came from outside (file and campaign names above all) can neither break a line nor a header nor the HTML.
"""

import hashlib
import re
from dataclasses import replace
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default as unix_lines
from email.utils import parseaddr
from zoneinfo import ZoneInfo

from notifier.headers import headers
from notifier.view import view_of
from notifier.wording import fill
from postern.model import Notice, NoticeKind

LONGEST_LINE = 998  # octets without CRLF: RFC 5322, 2.1.1


def render(notice: Notice, *, sender: str, zone: ZoneInfo, hold_url: str | None = None) -> EmailMessage:
    """The mail for a notice, from `sender`, with times in `zone`; a hold notice has the link to decide by."""
    view = {**view_of(notice, zone), "hold_url": hold_url}
    mail = EmailMessage(policy=unix_lines.clone(header_factory=headers()))
    mail["Subject"] = fill(notice.kind, "subject.txt", view).strip()
    mail["From"] = sender
    mail["To"] = Address(addr_spec=notice.recipient)
    mail["Date"] = notice.created_at.astimezone(zone)
    mail["Message-ID"] = message_id(notice, sender=sender)
    answered = answered_kind(notice)
    if answered is not None:
        mail["In-Reply-To"] = mail["References"] = message_id(replace(notice, kind=answered), sender=sender)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5
    mail["X-Auto-Response-Suppress"] = "All"  # the same to Exchange
    text = re.sub(r"\n{3,}", "\n\n", fill(notice.kind, "body.txt", view))
    mail.set_content(text, cte=_text_encoding(text))
    mail.add_alternative(fill(notice.kind, "body.html", view), subtype="html", cte="quoted-printable")
    mail.set_boundary("=_postern_" + hashlib.sha256(notice.upload_id.encode()).hexdigest()[:32])
    return mail


def message_id(notice: Notice, *, sender: str) -> str:
    """`<accepted.upload_…@host>`: the same for every mail about the same outcome of the same upload."""
    host = parseaddr(sender)[1].rpartition("@")[2]
    return f"<{notice.kind}.{notice.upload_id}@{host}>"


def answered_kind(notice: Notice) -> NoticeKind | None:
    """The kind of the mail about the same upload that this one follows, if any."""
    kind = notice.context.get("answers")
    return None if kind is None else NoticeKind(kind)


def _text_encoding(text: str) -> str:
    # Quoted-printable would fold the result line with soft breaks and base64 would hide it: a `grep` over a
    # mailbox would find neither. Sent as it is, the line survives raw and decoded alike; a server without
    # 8BITMIME gets base64 from the courier's generator. Only a line that SMTP may cut needs base64 here.
    if max(len(line.encode()) for line in text.splitlines()) > LONGEST_LINE:
        return "base64"
    return "7bit" if text.isascii() else "8bit"
