"""Both couriers against what they deliver to: a real SMTP server on the loopback, a real folder."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from notifier.context import NoticeContext
from notifier.courier import Courier, PermanentMailError, TemporaryMailError
from notifier.eml import EmlCourier
from notifier.render import render
from notifier.smtp import SmtpCourier
from postern.model import Notice, NoticeKind, Verdict
from postern.smtp_url import SmtpServer

SENDER = "Postern <postern@agency.example>"
RECIPIENT = "owner@agency.example"
UPLOAD = "upload_7f1f6c0e-6d6b-4b7a-9c55-1b2f0a3d9e11"
BATCH = "batch_0b8a2f7e-4f0e-5e0a-8a4e-5a7c1e2d3f40"
RESULT = f'{{"isValid":true,"batchId":"{BATCH}"}}'
VERDICT = Verdict(
    is_valid=True,
    total_rows=2,
    num_rows=0,
    num_errors=0,
    has_avoidable_character=False,
    has_unicode=False,
    by_code={},
    first_errors=[],
    warnings={},
    first_warnings=[],
    rows_by_language={"english": 2},
    segments=2,
    local_segments=2,
)


def mail() -> EmailMessage:
    context: NoticeContext = {
        "uploadId": UPLOAD,
        "campaignId": "campaign_2f1c9d0a-31b5-4a1e-8a57-0d9f6b8e7c21",
        "campaignName": "Passport renewals",
        "agency": "Immigration",
        "fileName": "续签.csv",
        "size": 512,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "receivedAt": "2026-11-20T21:35:06.582+08:00",
        "verdict": VERDICT.as_json(),
        "batchId": BATCH,
        "reportURL": None,
        "reportExpiresAt": None,
        "workbookURL": None,
        "supportId": None,
        "reason": None,
        "estimatedCost": "0.09",
        "environment": "production",
        "provider": "simulator",
    }
    notice = Notice(
        id="notice_0d5b4a52-7a34-4b07-9a0e-1de7a7c1d5f3",
        upload_id=UPLOAD,
        kind=NoticeKind.ACCEPTED,
        recipient=RECIPIENT,
        context=context,
        created_at=datetime(2026, 11, 20, 13, 35, 9, tzinfo=UTC),
    )
    return render(notice, sender=SENDER, zone=ZoneInfo("Asia/Singapore"))


@dataclass
class Postbox:
    """The handler of a test server: keeps what it takes, and answers as it is told."""

    envelopes: list[Envelope] = field(default_factory=list)
    to_recipient: str | None = None
    to_data: str = "250 OK"
    hangs_up: bool = False  # instead of an answer to the mail
    encrypted: list[bool] = field(default_factory=list)

    # aiosmtpd finds these by their names and hands them more than they need.
    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.to_recipient is not None:
            return self.to_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.to_data.startswith("250"):
            self.envelopes.append(envelope)
            self.encrypted.append(session.ssl is not None)
        if self.hangs_up:
            server.transport.abort()
        return self.to_data


@asynccontextmanager
async def serving(postbox: Any, *, ssl_context: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[int]:
    """An SMTP server on a free port of the loopback."""
    sessions: list[SMTP] = []

    def session() -> SMTP:
        sessions.append(SMTP(postbox, hostname="mail.example", loop=asyncio.get_running_loop(), **options))
        return sessions[-1]

    async with listening(session, sessions, ssl_context) as port:
        yield port


@asynccontextmanager
async def listening(
    session: Callable[[], asyncio.BaseProtocol], sessions: list[Any], ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen on a free port; at the end close it and what is left of its sessions."""
    listener = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=ssl_context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for each in sessions:
            if each.transport is not None:
                each.transport.close()
        await listener.wait_closed()


class Mute(asyncio.Protocol):
    """A server's side of a connection that never says a word."""

    def __init__(self, *, hang_up: bool) -> None:
        self._hang_up = hang_up
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._hang_up:
            transport.close()


@asynccontextmanager
async def mute_server(*, hang_up: bool) -> AsyncIterator[int]:
    sessions: list[Mute] = []

    def session() -> Mute:
        sessions.append(Mute(hang_up=hang_up))
        return sessions[-1]

    async with listening(session, sessions) as port:
        yield port


def courier_to(port: int, *, login: str = "", options: str = "", **limits: float) -> SmtpCourier:
    server = SmtpServer.from_url(f"smtp://{login}127.0.0.1:{port}{options}")
    return SmtpCourier(server, sender=SENDER, **limits)


@dataclass
class Delivery:
    """A courier that works, one of its kind that cannot, and the mails that arrived as they lie there."""

    courier: Courier
    broken: Courier
    arrived: Callable[[], list[bytes]]


@pytest.fixture(params=["smtp", "eml"])
async def delivery(request: pytest.FixtureRequest, tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Delivery]:
    if request.param == "eml":
        folder, no_folder = tmp_path / "mail", tmp_path / "file"
        no_folder.touch()
        yield Delivery(
            courier=EmlCourier(folder),
            broken=EmlCourier(no_folder),
            arrived=lambda: [path.read_bytes() for path in sorted(folder.iterdir())],
        )
        return
    postbox = Postbox()
    async with serving(postbox) as port:
        yield Delivery(
            courier=courier_to(port),
            broken=courier_to(unused_tcp_port),
            arrived=lambda: [bytes(envelope.content or b"") for envelope in postbox.envelopes],
        )


class TestEveryCourier:
    """What the notifier relies on, whichever courier the settings name."""

    async def test_a_mail_arrives_as_it_was_made(self, delivery: Delivery) -> None:
        """Headers and text read back the same, other scripts too."""
        await delivery.courier.deliver(mail(), recipient=RECIPIENT)

        [raw] = delivery.arrived()
        arrived: EmailMessage = message_from_bytes(raw, policy=default)  # type: ignore[assignment]
        assert {name: arrived[name] for name in mail()} == {name: mail()[name] for name in mail()}
        for was, came in zip(mail().iter_parts(), arrived.iter_parts(), strict=True):
            assert came.get_content().splitlines() == was.get_content().splitlines()

    async def test_the_result_line_arrives_raw(self, delivery: Delivery) -> None:
        """A program that searches the raw bytes finds the line."""
        await delivery.courier.deliver(mail(), recipient=RECIPIENT)

        [raw] = delivery.arrived()
        assert RESULT.encode() in raw.splitlines()

    async def test_a_repeated_mail_is_recognisable(self, delivery: Delivery) -> None:
        """However many copies lie there, they are one Message-ID."""
        for _ in range(2):
            await delivery.courier.deliver(mail(), recipient=RECIPIENT)

        ids = {message_from_bytes(raw)["Message-ID"] for raw in delivery.arrived()}
        assert ids == {f"<accepted.{UPLOAD}@agency.example>"}

    async def test_a_mail_is_not_changed_by_its_delivery(self, delivery: Delivery) -> None:
        """The same object can be delivered again."""
        sent = mail()
        await delivery.courier.deliver(sent, recipient=RECIPIENT)

        assert sent.as_bytes() == mail().as_bytes()

    async def test_what_cannot_be_reached_is_temporary(self, delivery: Delivery) -> None:
        """A refused connection or an unusable folder delays a mail and loses none."""
        with pytest.raises(TemporaryMailError):
            await delivery.broken.deliver(mail(), recipient=RECIPIENT)


def listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


class TestEml:
    """What only the folder of `.eml` files does."""

    async def test_the_name_says_when_what_and_which(self, tmp_path: Path) -> None:
        """A listing is a history, and nothing half-written stays in it."""
        await EmlCourier(tmp_path).deliver(mail(), recipient=RECIPIENT)

        assert [path.name for path in listing(tmp_path)] == [
            "20261120T133509Z-accepted-upload_7f1f6c0e-6d6b-4b7a-9c55-1b2f0a3d9e11.eml"
        ]

    async def test_the_same_notice_twice_is_one_file(self, tmp_path: Path) -> None:
        """A repeat overwrites itself, also when both are written at the same time."""
        courier = EmlCourier(tmp_path)
        await asyncio.gather(*(courier.deliver(mail(), recipient=RECIPIENT) for _ in range(8)))

        assert len(listing(tmp_path)) == 1

    async def test_lines_end_as_they_do_on_this_machine(self, tmp_path: Path) -> None:
        """`grep -x` finds the result: no carriage return is at its end."""
        await EmlCourier(tmp_path).deliver(mail(), recipient=RECIPIENT)

        [path] = listing(tmp_path)
        assert f"\n{RESULT}\n".encode() in path.read_bytes()

    async def test_the_envelope_is_kept(self, tmp_path: Path) -> None:
        """The file says whom it went to, even where To says otherwise."""
        await EmlCourier(tmp_path).deliver(mail(), recipient="other@agency.example")

        [path] = listing(tmp_path)
        assert message_from_bytes(path.read_bytes())["Delivered-To"] == "other@agency.example"


class TestSmtp:
    """What only a mail server can answer."""

    async def test_the_envelope_is_our_own(self) -> None:
        """Sender and recipient come from the settings and the call, not from the headers."""
        postbox = Postbox()
        async with serving(postbox) as port:
            await courier_to(port).deliver(mail(), recipient="other@agency.example")

        [envelope] = postbox.envelopes
        assert envelope.mail_from == "postern@agency.example"
        assert envelope.rcpt_tos == ["other@agency.example"]

    @pytest.mark.parametrize(
        "postbox",
        [Postbox(to_recipient="450 4.2.0 <owner@agency.example> try later"), Postbox(to_data="451 4.3.0 later")],
    )
    async def test_a_4xx_answer_is_temporary(self, postbox: Postbox) -> None:
        """The error says the code and not the address."""
        async with serving(postbox) as port:
            with pytest.raises(TemporaryMailError, match="answered 45") as error:
                await courier_to(port).deliver(mail(), recipient=RECIPIENT)

        assert RECIPIENT not in str(error.value)

    @pytest.mark.parametrize(
        "postbox",
        [Postbox(to_recipient="550 5.1.1 <owner@agency.example> unknown"), Postbox(to_data="554 5.6.0 no")],
    )
    async def test_a_5xx_answer_to_the_mail_is_permanent(self, postbox: Postbox) -> None:
        """The error says the code and not the address."""
        async with serving(postbox) as port:
            with pytest.raises(PermanentMailError, match="answered 55") as error:
                await courier_to(port).deliver(mail(), recipient=RECIPIENT)

        assert RECIPIENT not in str(error.value)

    async def test_a_lost_answer_to_the_mail_is_temporary(self) -> None:
        """Whether the server has the mail is not known, so it is sent again under the same Message-ID."""
        async with serving(Postbox(hangs_up=True)) as port:
            with pytest.raises(TemporaryMailError, match="went away"):
                await courier_to(port).deliver(mail(), recipient=RECIPIENT)

    async def test_a_server_that_hangs_up_is_temporary(self) -> None:
        """A connection that ends before the greeting delays the mail."""
        async with mute_server(hang_up=True) as port:
            with pytest.raises(TemporaryMailError):
                await courier_to(port).deliver(mail(), recipient=RECIPIENT)

    @pytest.mark.parametrize("limit", ["reply_timeout", "delivery_timeout"])
    async def test_a_server_that_says_nothing_is_temporary(self, limit: str) -> None:
        """Both time limits end the wait."""
        async with mute_server(hang_up=False) as port:
            with pytest.raises(TemporaryMailError):
                await courier_to(port, **{limit: 0.05}).deliver(mail(), recipient=RECIPIENT)

    @pytest.mark.parametrize("recipient", ["所有者@agency.example", "<>"])
    async def test_an_address_that_the_server_cannot_be_told_is_permanent(self, recipient: str) -> None:
        """Without SMTPUTF8 there are addresses that no second try would reach."""
        async with serving(Postbox()) as port:
            with pytest.raises(PermanentMailError):
                await courier_to(port).deliver(mail(), recipient=recipient)

    async def test_an_address_cannot_smuggle_a_command(self) -> None:
        """A line break in an address adds no recipient."""
        postbox = Postbox()
        async with serving(postbox) as port:
            with suppress(PermanentMailError):
                await courier_to(port).deliver(mail(), recipient="a@b.example>\r\nRCPT TO:<c@d.example>")

        assert "c@d.example" not in [address for envelope in postbox.envelopes for address in envelope.rcpt_tos]


@dataclass(frozen=True)
class Authority:
    """A self-made certificate for 127.0.0.1, and the server's side of it."""

    certificate: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return Authority(certificate=pem, context=context)


def password_is_right(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    right = (data.login, data.password) == (b"user@agency", b"p@ss/word")
    return AuthResult(success=right, handled=False)


LOGIN = "user%40agency:p%40ss%2Fword@"


class TestEncryption:
    """Who is let in, and who may listen."""

    async def test_a_password_goes_over_verified_starttls(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With credentials in the URL, the connection is encrypted, verified and logged in."""
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        postbox = Postbox()
        options = {"tls_context": authority.context, "auth_required": True, "authenticator": password_is_right}
        async with serving(postbox, require_starttls=True, **options) as port:
            await courier_to(port, login=LOGIN).deliver(mail(), recipient=RECIPIENT)

        assert postbox.encrypted == [True]

    async def test_a_wrong_password_delays_the_mail(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A 535 is the settings' fault: the mail waits, and the error does not repeat the password."""
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        options = {"tls_context": authority.context, "auth_required": True, "authenticator": password_is_right}
        async with serving(Postbox(), require_starttls=True, **options) as port:
            with pytest.raises(TemporaryMailError, match="535") as error:
                await courier_to(port, login="user:hush@").deliver(mail(), recipient=RECIPIENT)

        assert "hush" not in str(error.value)

    async def test_no_password_goes_to_a_server_that_cannot_encrypt(self) -> None:
        """Where STARTTLS is missing or stripped, nothing is sent."""
        postbox = Postbox()
        async with serving(postbox) as port:
            with pytest.raises(TemporaryMailError):
                await courier_to(port, login=LOGIN).deliver(mail(), recipient=RECIPIENT)

        assert postbox.envelopes == []

    async def test_no_password_goes_to_a_server_that_nobody_vouches_for(self, authority: Authority) -> None:
        """A certificate of an unknown authority ends the attempt."""
        postbox = Postbox()
        async with serving(postbox, tls_context=authority.context) as port:
            with pytest.raises(TemporaryMailError):
                await courier_to(port, login=LOGIN).deliver(mail(), recipient=RECIPIENT)

        assert postbox.envelopes == []

    async def test_a_relay_without_a_password_is_used_encrypted_where_it_offers_it(self, authority: Authority) -> None:
        """STARTTLS is taken when offered, with a self-made certificate too."""
        postbox = Postbox()
        async with serving(postbox, tls_context=authority.context) as port:
            await courier_to(port).deliver(mail(), recipient=RECIPIENT)

        assert postbox.encrypted == [True]

    async def test_never_means_never(self, authority: Authority) -> None:
        """The option turns off what the server offers."""
        postbox = Postbox()
        async with serving(postbox, tls_context=authority.context) as port:
            await courier_to(port, options="?starttls=never").deliver(mail(), recipient=RECIPIENT)

        assert postbox.encrypted == [False]

    async def test_smtps_is_encrypted_from_the_start(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The whole conversation runs over TLS."""
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        postbox = Postbox()
        async with serving(postbox, ssl_context=authority.context) as port:
            server = SmtpServer.from_url(f"smtps://127.0.0.1:{port}")
            await SmtpCourier(server, sender=SENDER).deliver(mail(), recipient=RECIPIENT)

        assert len(postbox.envelopes) == 1
