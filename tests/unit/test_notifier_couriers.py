"""How couriers are chosen, and how an SMTP URL is read."""

from pathlib import Path

import pytest

from notifier.courier import courier_from
from notifier.eml import EmlCourier
from notifier.smtp import SmtpCourier
from postern.errors import SettingsError
from postern.settings import WorkerSettings
from postern.smtp_url import SmtpServer, StartTls


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "starttls"),
    [
        ("smtp://mail.example", "mail.example", 25, False, StartTls.AUTO),
        ("smtp://mail.example:2525?starttls=never", "mail.example", 2525, False, StartTls.NEVER),
        ("smtp://u:p@mail.example", "mail.example", 587, False, StartTls.REQUIRE),
        ("smtp://u:p@mail.example?starttls=auto", "mail.example", 587, False, StartTls.AUTO),
        ("smtps://u:p@[::1]/", "::1", 465, True, StartTls.REQUIRE),
    ],
)
def test_an_smtp_url_says_where_and_how(url: str, host: str, port: int, tls: bool, starttls: StartTls) -> None:
    """Ports and encryption have the defaults that are safe for what the URL holds."""
    server = SmtpServer.from_url(url)

    assert (server.host, server.port, server.tls, server.starttls) == (host, port, tls, starttls)


def test_user_and_password_are_percent_decoded() -> None:
    """Characters that end a host can stand in a password."""
    server = SmtpServer.from_url("smtp://user%40agency.example:p%40ss%2Fw%3Ard@mail.example")

    assert (server.user, server.password) == ("user@agency.example", "p@ss/w:rd")


@pytest.mark.parametrize(
    "url",
    [
        "smtp://user:hush/hush@mail.example",
        "smtp://user:hush@",
        "smtp://user:hush@mail.example:99999",
        "smtp://user:hush@mail.example?starttls=maybe",
        "smtp://user:hush@mail.example?timeout=5",
        "smtps://user:hush@mail.example?starttls=require",
        "smtp://user:hush@mail.example/path",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    """The error goes to a terminal, so it repeats nothing of the URL."""
    with pytest.raises(SettingsError, match="POSTERN_SMTP_URL=…: ") as refused:
        WorkerSettings.load({"POSTERN_SMTP_URL": url})

    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_server_does_not_show_its_password() -> None:
    """Not even where a value is printed by mistake."""
    assert "hush" not in repr(SmtpServer.from_url("smtp://user:hush@mail.example"))


def test_settings_choose_the_courier(tmp_path: Path) -> None:
    """SMTP where a server is named, files otherwise."""
    smtp = WorkerSettings(home=tmp_path, smtp_url="smtp://mail.example")

    assert isinstance(courier_from(smtp), SmtpCourier)
    assert isinstance(courier_from(WorkerSettings(home=tmp_path)), EmlCourier)
    assert isinstance(courier_from(WorkerSettings(home=tmp_path, smtp_url=f"eml:{tmp_path}")), EmlCourier)


def test_a_sender_without_an_address_is_refused() -> None:
    """The envelope needs an address, and the start is the time to say so."""
    with pytest.raises(SettingsError, match="POSTERN_MAIL_FROM='Postern': use an address"):
        WorkerSettings.load({"POSTERN_MAIL_FROM": "Postern"})
