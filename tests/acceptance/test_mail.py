"""Mails over SMTP, to a real server, also to one that is away for a while."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

from acceptance.installation import Installation, good_file, json_line, until
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class _Inbox:
    """What the mail server was given."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], EmailMessage]] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert envelope.content is not None
        content = envelope.content if isinstance(envelope.content, bytes) else envelope.content.encode()
        mail = message_from_bytes(content, policy=policy.default)
        self.mails.append((envelope.mail_from or "", list(envelope.rcpt_tos), mail))
        return "250 taken"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _mail_server(port: int) -> Iterator[_Inbox]:
    inbox = _Inbox()
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


def _over_smtp(installation: Installation, port: int) -> None:
    installation.environ |= {
        "POSTERN_SMTP_URL": f"smtp://127.0.0.1:{port}",
        "POSTERN_MAIL_FROM": "Postern <postern@agency.example>",
    }


def test_the_outcome_mail_reaches_a_real_mail_server(installation: Installation) -> None:
    """One mail, from and to the right addresses, with the exact JSON line and an HTML part."""
    port = _free_port()
    _over_smtp(installation, port)
    with _mail_server(port) as inbox, installation.serving() as postern:
        campaign_id, key = postern.enrolled()
        postern.put(campaign_id, key, good_file(3))
        upload = postern.outcome()
        until("the mail to arrive", lambda: inbox.mails)
        postern.final_batch(upload["batchId"])
    (sender, recipients, mail), *more = inbox.mails
    assert more == []
    assert (sender, recipients) == ("postern@agency.example", ["owner@agency.example"])
    assert json_line(mail) == [f'{{"isValid":true,"batchId":"{upload["batchId"]}"}}']
    html = mail.get_body(("html",))
    assert html is not None
    assert upload["batchId"] in html.get_content()


def test_a_mail_server_that_is_away_delays_a_mail_and_holds_up_no_batch(installation: Installation) -> None:
    """The batch goes out meanwhile, the mail waits through a restart, and arrives once the server is there."""
    port = _free_port()
    _over_smtp(installation, port)
    with installation.serving() as postern:
        campaign_id, key = postern.enrolled()
        postern.put(campaign_id, key, good_file(3))
        upload = postern.outcome()
        assert postern.final_batch(upload["batchId"])["messages"] == {"success": 3}
        until("a try to deliver", lambda: postern.query("SELECT 1 FROM notices WHERE tries > 0"))
        postern.kill("worker")
        with _mail_server(port) as inbox:
            until("the mail to arrive", lambda: inbox.mails)
            until("the notice to be sent", lambda: postern.query("SELECT 1 FROM notices WHERE status = 'sent'"))
    assert upload["id"] in str(inbox.mails[0][2]["Message-ID"])
