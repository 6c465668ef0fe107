"""The outbox in the ledger, on both databases: one mail a kind and upload, with what became of it."""

import pytest
import sqlalchemy as sa
from support.domain import NOW, OWNER, SECOND, add_campaign, count, enrol, jobs_of, new_refusal, notice_id

from postern.errors import NotFoundError
from postern.model import NoticeKind
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import SEND_NOTICE
from storage.ledger.notices import add_notice, count_notices, get_notice, mark_failed, mark_sent, mark_tried
from storage.ledger.receiving import refuse_upload
from storage.tables import notices

pytest_plugins = ["support.databases"]


@pytest.fixture
def notice(database: Database, jobs: Jobs) -> str:
    """A mail that waits in the outbox."""
    upload = new_refusal(enrol(database, add_campaign(database)))
    refuse_upload(database, jobs, upload, recipient=OWNER, context={"reason": "名"})
    return notice_id(upload.id, NoticeKind.REFUSED)


def state(database: Database, notice: str) -> tuple[str, int, str | None]:
    """Status, tries and the last error."""
    query = sa.select(notices.c.status, notices.c.tries, notices.c.last_error).where(notices.c.id == notice)
    with database.read() as connection:
        status, tries, error = connection.execute(query).one()
    return status, tries, error


def test_a_notice_comes_with_its_job(database: Database, jobs: Jobs, notice: str) -> None:
    """What the mail needs is kept with it."""
    found = get_notice(database, notice)
    assert (found.kind, found.recipient, found.context) == (NoticeKind.REFUSED, OWNER, {"reason": "名"})
    assert (found.created_at, found.sent_at) == (NOW, None)
    assert jobs_of(database) == {notice: SEND_NOTICE.name}
    assert count_notices(database) == {"pending": 1}


def test_the_same_kind_twice_is_one_notice(database: Database, jobs: Jobs, notice: str) -> None:
    """The first one stays as it was."""
    before = get_notice(database, notice)
    with database.write() as connection:
        add_notice(
            database,
            connection,
            jobs,
            upload_id=before.upload_id,
            kind=NoticeKind.REFUSED,
            recipient="other@agency.example",
            context={},
            now=NOW + SECOND,
        )
    assert get_notice(database, notice) == before
    assert (count(database, notices), list(jobs_of(database))) == (1, [notice])


def test_a_notice_is_tried_until_it_is_sent(database: Database, notice: str) -> None:
    """Each try is counted; the error is forgotten once it went through."""
    mark_tried(database, notice, error="greylisted")
    mark_tried(database, notice, error="timed out")
    assert state(database, notice) == ("pending", 2, "timed out")
    mark_sent(database, notice, now=NOW + SECOND)
    assert state(database, notice) == ("sent", 3, None)
    assert get_notice(database, notice).sent_at == NOW + SECOND


def test_a_sent_notice_stays_sent(database: Database, notice: str) -> None:
    """Whoever comes late changes nothing."""
    mark_sent(database, notice, now=NOW)
    mark_sent(database, notice, now=NOW + SECOND)
    mark_failed(database, notice, error="no such mailbox")
    mark_tried(database, notice, error="timed out")
    assert state(database, notice) == ("sent", 1, None)
    assert get_notice(database, notice).sent_at == NOW


def test_a_failed_notice_stays_failed(database: Database, notice: str) -> None:
    """It is counted as failed, with the server's words."""
    mark_failed(database, notice, error="no such mailbox")
    mark_sent(database, notice, now=NOW)
    assert state(database, notice) == ("failed", 1, "no such mailbox")
    assert count_notices(database) == {"failed": 1}


def test_an_unknown_notice_is_not_found(database: Database) -> None:
    """Marking one is harmless."""
    mark_sent(database, "notice_x", now=NOW)
    with pytest.raises(NotFoundError, match="There is no notice notice_x"):
        get_notice(database, "notice_x")
