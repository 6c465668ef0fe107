"""The job that gets a notice out: delivered, delayed or refused for good, and marked as such."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from support.domain import NOW, OWNER, add_campaign, enrol, new_refusal, new_upload, notice_id

from notifier.courier import PermanentMailError, TemporaryMailError
from notifier.eml import EmlCourier
from notifier.workflow import Notifier, deliver, register
from pipeline.context import notice_context
from pipeline.holding import holding_of
from postern.errors import NotFoundError
from postern.links import LinkSigner, Purpose, hold_path
from postern.model import NoticeKind, Upload
from postern.settings import IntakeSettings, WorkerSettings
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import SEND_NOTICE, JobKind
from storage.ledger.decisions import drop_upload
from storage.ledger.notices import get_notice, mark_failed
from storage.ledger.receiving import receive_upload, refuse_upload
from storage.tables import notices

pytest_plugins = ["support.databases"]

LINKS = LinkSigner(bytes(32), Purpose.HOLD)


@dataclass
class ScriptedCourier:
    """A courier that raises what its script holds, one after the other, and then delivers."""

    script: list[Exception] = field(default_factory=list)
    delivered: list[tuple[str, EmailMessage]] = field(default_factory=list)
    tries: int = 0

    async def deliver(self, mail: EmailMessage, *, recipient: str) -> None:
        self.tries += 1
        if self.script:
            raise self.script.pop(0)
        self.delivered.append((recipient, mail))


@dataclass
class Outbox:
    """A database with one mail that waits."""

    database: Database
    notice: str

    patience: float = 120.0

    def notifier(self, courier: Any) -> Notifier:
        return Notifier(
            settings=WorkerSettings(),
            database=self.database,
            courier=courier,
            links=LINKS,
            now=lambda: NOW,
            patience=self.patience,
        )

    async def send(self, courier: Any) -> None:
        """Do the job that the engine would do."""
        registry = Registry()
        register(registry, self.notifier(courier))  # type: ignore[arg-type]
        assert registry.workflow is not None
        await asyncio.wait_for(registry.workflow(self.notice), 20)

    def state(self) -> tuple[str, int, str | None]:
        """Status, tries and the last error."""
        query = sa.select(notices.c.status, notices.c.tries, notices.c.last_error)
        with self.database.read() as connection:
            status, tries, error = connection.execute(query).one()
        return status, tries, error


@dataclass
class Registry:
    """Takes the workflow that a program registers, so that it can be called here."""

    workflow: Callable[..., Coroutine[Any, Any, None]] | None = None

    def register(self, kind: JobKind, workflow: Callable[..., Coroutine[Any, Any, None]]) -> None:
        assert kind is SEND_NOTICE
        self.workflow = workflow


@pytest.fixture
def outbox(sqlite_url: str) -> Iterator[Outbox]:
    """The mail about a refused upload."""
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)
    campaign = add_campaign(database)
    upload = new_refusal(enrol(database, campaign))
    context = notice_context(upload, campaign, WorkerSettings(), reason=upload.reason)
    refuse_upload(database, jobs, upload, recipient=OWNER, context=context)
    yield Outbox(database, notice_id(upload.id, NoticeKind.REFUSED))
    jobs.close()
    database.dispose()


async def test_a_notice_is_delivered_and_marked(outbox: Outbox, tmp_path: Path) -> None:
    """The mail is on disk, to the owner, and the outbox knows when."""
    await outbox.send(EmlCourier(tmp_path / "mail"))
    (path,) = (tmp_path / "mail").rglob("*.eml")
    text = path.read_text()
    assert f"To: {OWNER}" in text
    assert "people.txt" in text
    assert outbox.state() == ("sent", 1, None)
    assert get_notice(outbox.database, outbox.notice).sent_at == NOW


async def test_a_mail_server_that_is_away_delays_a_mail(outbox: Outbox) -> None:
    """It is tried again until it goes through, and each try is counted."""
    courier = ScriptedCourier([TemporaryMailError("greylisted")])
    task = asyncio.create_task(outbox.send(courier))
    await task
    assert [recipient for recipient, _mail in courier.delivered] == [OWNER]
    assert outbox.state() == ("sent", 2, None)


async def test_a_delayed_mail_tells_why(outbox: Outbox) -> None:
    """While it waits, the outbox shows the server's words."""
    courier = ScriptedCourier([TemporaryMailError("greylisted"), PermanentMailError("no such mailbox")])
    await outbox.send(courier)
    assert courier.tries == 2
    assert outbox.state() == ("failed", 2, "no such mailbox")


@pytest.mark.parametrize("trouble", [TemporaryMailError("mailbox full"), ValueError("a bug")])
async def test_a_mail_that_nobody_takes_lets_the_others_go_first(outbox: Outbox, trouble: Exception) -> None:
    """Its job ends after a while with a line, and the mail is still to be sent; the next job sends it."""
    outbox.patience = 0.2
    courier = ScriptedCourier([trouble] * 2)
    with capture_logs() as logs:
        await outbox.send(courier)
    assert [line["event"] for line in logs if line["event"] == "notice.left_for_later"] == ["notice.left_for_later"]
    status, tries, _error = outbox.state()
    assert (status, tries, courier.tries) == ("pending", 2, 2)
    await outbox.send(courier)
    assert outbox.state() == ("sent", 3, None)


async def test_a_mail_that_is_refused_for_good_is_given_up(outbox: Outbox) -> None:
    """It is marked as failed, and not tried again."""
    courier = ScriptedCourier([PermanentMailError("no such mailbox")])
    await outbox.send(courier)
    assert (courier.tries, courier.delivered) == (1, [])
    assert outbox.state() == ("failed", 1, "no such mailbox")
    assert get_notice(outbox.database, outbox.notice).sent_at is None


async def test_a_sent_notice_is_not_sent_again(outbox: Outbox) -> None:
    """A job that is done twice sends one mail."""
    courier = ScriptedCourier()
    for _ in range(2):
        await outbox.send(courier)
    assert len(courier.delivered) == 1
    assert outbox.state() == ("sent", 1, None)


async def test_a_mail_sent_twice_is_recognisable(outbox: Outbox) -> None:
    """A worker died between the server's OK and our mark: both mails have one Message-ID."""
    courier = ScriptedCourier()
    notice = get_notice(outbox.database, outbox.notice)
    for _ in range(2):
        await deliver(outbox.notifier(courier), notice)
    (_, first), (_, second) = courier.delivered
    assert first["Message-ID"] == second["Message-ID"] is not None
    assert outbox.state() == ("sent", 1, None)


async def test_a_failed_notice_stays_failed(outbox: Outbox) -> None:
    """Its job, run again by whoever took over, does not make it sent behind the operator's back."""
    mark_failed(outbox.database, outbox.notice, error="no such mailbox")
    await outbox.send(ScriptedCourier())
    assert outbox.state() == ("failed", 1, "no such mailbox")


async def test_a_notice_that_is_not_there_is_a_bug(outbox: Outbox) -> None:
    """It is not waited for."""
    registry = Registry()
    register(registry, outbox.notifier(ScriptedCourier()))  # type: ignore[arg-type]
    assert registry.workflow is not None
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(registry.workflow("notice_x"), 5)


# Held uploads


@pytest.fixture
def held(sqlite_url: str) -> Iterator[tuple[Database, Jobs, Upload]]:
    """A repeat that is held, whose notice waits."""
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)
    campaign = add_campaign(database)
    key = enrol(database, campaign)
    settings = IntakeSettings(public_url=WorkerSettings().public_url)
    for _ in range(2):
        upload = new_upload(key)
        receive_upload(database, jobs, upload, holding_of(settings, campaign, write_block=0, lines=None, now=NOW))
    yield database, jobs, upload
    jobs.close()
    database.dispose()


async def test_a_hold_notice_links_the_page_to_decide_on(held: tuple[Database, Jobs, Upload]) -> None:
    """Signed where it is sent, for as long as reports are, and no result for a program."""
    database, _, upload = held
    courier = ScriptedCourier()
    await Outbox(database, notice_id(upload.id, NoticeKind.HELD)).send(courier)
    ((recipient, mail),) = courier.delivered
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    (url,) = re.findall(r"http://\S+/held/\S+", text)
    parts = urlsplit(url)
    query = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert (recipient, parts.path) == (OWNER, hold_path(upload.id))
    assert LINKS.is_good(parts.path, query["expires"], query["signature"])
    assert int(query["expires"]) == int((NOW + timedelta(days=7)).timestamp())
    assert "{" not in text
    assert mail["In-Reply-To"] is None


async def test_the_mail_about_a_decision_comes_after_the_hold_notice(held: tuple[Database, Jobs, Upload]) -> None:
    """And follows it; the outbox sends them in order even where the first is delayed."""
    database, jobs, upload = held
    drop_upload(database, jobs, upload.id, actor="operator", now=NOW)
    courier = ScriptedCourier([TemporaryMailError("greylisted")])
    second = asyncio.create_task(Outbox(database, notice_id(upload.id, NoticeKind.DROPPED)).send(courier))
    await asyncio.sleep(0)
    await Outbox(database, notice_id(upload.id, NoticeKind.HELD)).send(courier)
    await second
    first_mail, second_mail = (mail for _, mail in courier.delivered)
    assert (first_mail["Subject"].split(":")[0], second_mail["Subject"].split(":")[0]) == ("Held", "Dropped")
    assert second_mail["In-Reply-To"] == second_mail["References"] == first_mail["Message-ID"]


async def test_a_hold_notice_refused_for_good_holds_up_nothing(held: tuple[Database, Jobs, Upload]) -> None:
    """The outcome mail is tried all the same."""
    database, jobs, upload = held
    mark_failed(database, notice_id(upload.id, NoticeKind.HELD), error="no such mailbox")
    drop_upload(database, jobs, upload.id, actor="operator", now=NOW)
    courier = ScriptedCourier()
    await Outbox(database, notice_id(upload.id, NoticeKind.DROPPED)).send(courier)
    assert len(courier.delivered) == 1
