"""What the web role answers, through its real application: report links, health, metrics."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest
from support.domain import (
    NOW,
    OWNER,
    RECIPIENT,
    SECOND,
    SimulatedClock,
    add_campaign,
    enqueued_batch,
    enrol,
    new_refusal,
    new_upload,
)

from postern import __version__
from postern.links import LinkSigner, Purpose
from postern.model import IdKind, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import open_circuit
from storage.ledger.receiving import receive_upload, refuse_upload
from storage.local import LocalBlobs
from web.app import create_app
from web.holds import HoldDesk

pytest_plugins = ["support.databases"]

BASE = "https://postern.example"
REPORT = b"recipient,name,Error Reason\r\n,Emily,No recipient.\r\n"
LINKS, HOLD_LINKS = LinkSigner(b"s" * 32), LinkSigner(b"s" * 32, Purpose.HOLD)
WEEK = timedelta(days=7)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A ledger on SQLite."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def clock() -> SimulatedClock:
    """The time of the web role."""
    return SimulatedClock()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    """Where reports are kept."""
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
async def web(database: Database, blobs: LocalBlobs, clock: SimulatedClock) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    async with client(database, blobs, clock) as web:
        yield web


def client(database: Database, blobs: LocalBlobs, clock: SimulatedClock) -> httpx.AsyncClient:
    holds = HoldDesk(
        database=database, jobs=Jobs(database.url), links=HOLD_LINKS, zone=ZoneInfo("Asia/Singapore"), now=clock
    )
    app = create_app(database, blobs, LINKS, clock, holds=holds)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)


@pytest.fixture
def path(blobs: LocalBlobs, tmp_path: Path) -> str:
    """The path of a stored report."""
    path = new_path()
    (tmp_path / "report.csv").write_bytes(REPORT)
    blobs.put(path.removeprefix("/"), tmp_path / "report.csv")
    return path


def new_path() -> str:
    return f"/validation-reports/{new_id(IdKind.CAMPAIGN)}/{new_id(IdKind.UPLOAD)}.csv"


def signed(path: str) -> str:
    return LINKS.sign(BASE, path, NOW + WEEK)


def changed(url: str, **query: str) -> str:
    """A link with another expiry or signature."""
    parts = urlsplit(url)
    values = {name: value for name, (value,) in parse_qs(parts.query).items()}
    return parts._replace(query=urlencode({**values, **query})).geturl()


# Reports


async def test_a_link_serves_its_report(web: httpx.AsyncClient, path: str) -> None:
    """Byte for byte, as a file to be saved under its own name, kept by nobody on the way."""
    answer = await web.get(signed(path))
    assert (answer.status_code, answer.content) == (200, REPORT)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    name = path.rpartition("/")[2]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="validation-report-{name}"'
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_large_report_is_served_whole(
    web: httpx.AsyncClient, blobs: LocalBlobs, path: str, tmp_path: Path
) -> None:
    """Piece by piece."""
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    blobs.put(path.removeprefix("/"), tmp_path / "large")
    assert (await web.get(signed(path))).content == content


async def test_a_link_works_until_it_expires(web: httpx.AsyncClient, clock: SimulatedClock, path: str) -> None:
    """To the second; then it says so."""
    clock.now = NOW + WEEK - SECOND
    assert (await web.get(signed(path))).status_code == 200
    clock.now = NOW + WEEK
    answer = await web.get(signed(path))
    assert (answer.status_code, "expired" in answer.text) == (410, True)
    assert b"recipient" not in answer.content


async def test_a_report_that_is_gone_says_so(web: httpx.AsyncClient) -> None:
    """The link was right, the report is not kept any more."""
    answer = await web.get(signed(new_path()))
    assert (answer.status_code, "not kept" in answer.text) == (410, True)


# Workbooks


def workbook_of(path: str) -> str:
    return path.removesuffix(".csv") + ".xlsx"


def csv_link(text: str) -> str:
    """The one link of a page."""
    (link,) = re.findall('href="([^"]*)"', text)
    return unescape(link)


async def test_a_link_serves_its_workbook(web: httpx.AsyncClient, blobs: LocalBlobs, path: str, tmp_path: Path) -> None:
    """Byte for byte, as what it is, under its own name."""
    content = bytes(range(256)) * 5_000
    (tmp_path / "workbook").write_bytes(content)
    blobs.put(workbook_of(path).removeprefix("/"), tmp_path / "workbook")
    answer = await web.get(signed(workbook_of(path)))
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["Content-Type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    name = workbook_of(path).rpartition("/")[2]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="validation-report-{name}"'
    assert answer.headers["Cache-Control"] == "private, no-store"


async def test_a_workbook_that_is_not_ready_is_waited_for(web: httpx.AsyncClient, path: str) -> None:
    """Programs are told to come again, browsers do so by themselves, people can take the CSV: with a good link."""
    answer = await web.get(signed(workbook_of(path)))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert '<meta http-equiv="refresh" content="3">' in answer.text
    assert "The workbook is being made" in answer.text
    assert (await web.get(csv_link(answer.text))).content == REPORT


async def test_a_workbook_that_cannot_be_made_is_not_waited_for(
    web: httpx.AsyncClient, blobs: LocalBlobs, path: str, tmp_path: Path
) -> None:
    """The page says so, once, and leads to the CSV."""
    (tmp_path / "none").touch()
    blobs.put(workbook_of(path).removeprefix("/"), tmp_path / "none")
    answer = await web.get(signed(workbook_of(path)))
    assert (answer.status_code, "refresh" in answer.text) == (404, False)
    assert "This report has no workbook" in answer.text
    assert (await web.get(csv_link(answer.text))).content == REPORT


async def test_the_link_of_a_page_ends_when_the_first_one_does(
    web: httpx.AsyncClient, clock: SimulatedClock, path: str
) -> None:
    """Nobody prolongs a link this way."""
    link = csv_link((await web.get(signed(workbook_of(path)))).text)
    clock.now = NOW + WEEK
    for expired in (link, signed(workbook_of(path))):
        assert (await web.get(expired)).status_code == 410


async def test_a_workbook_that_is_gone_says_so(web: httpx.AsyncClient) -> None:
    """It went with its report: nobody waits for it."""
    answer = await web.get(signed(workbook_of(new_path())))
    assert (answer.status_code, "not kept" in answer.text) == (410, True)


async def test_a_link_is_for_one_form_of_the_report(web: httpx.AsyncClient, path: str) -> None:
    """Neither opens the other, nor anything else of that name, not even with a good signature."""
    for good, other in ((path, workbook_of(path)), (workbook_of(path), path)):
        assert (await web.get(signed(good).replace(good, other))).status_code == 403
    for form in ("csv.bak", "html", "XLSX", "xlsx.csv.xlsx"):
        answer = await web.get(signed(path.removesuffix("csv") + form))
        assert (answer.status_code, "not right" in answer.text) == (403, True), form


# Tampering


async def test_a_tampered_path_is_refused(web: httpx.AsyncClient, path: str) -> None:
    """A signature is for one report: it opens neither another one nor a blob that is no report."""
    other = new_path()
    for elsewhere in (other, path.replace("validation-reports", "uploads"), path.upper()):
        answer = await web.get(signed(path).replace(path, elsewhere))
        assert answer.status_code in {403, 404}, elsewhere
        assert REPORT not in answer.content


@pytest.mark.parametrize("signature", ["", "x", "ä", "A" * 43, "0" * 10_000])
async def test_a_tampered_signature_is_refused(web: httpx.AsyncClient, path: str, signature: str) -> None:
    """Whatever it looks like, and one with a letter changed as well."""
    assert (await web.get(changed(signed(path), signature=signature))).status_code == 403
    right = parse_qs(urlsplit(signed(path)).query)["signature"][0]
    wrong = ("B" if right[0] == "A" else "A") + right[1:]
    assert (await web.get(changed(signed(path), signature=wrong))).status_code == 403


@pytest.mark.parametrize("expires", ["", "never", "-1", "1e99", "9" * 40, "٣", "1.5", "\n", "0x7fffffff"])
async def test_a_tampered_expiry_is_refused(web: httpx.AsyncClient, path: str, expires: str) -> None:
    """A number or not, with a signature that would be good for another one."""
    answer = await web.get(changed(signed(path), expires=expires))
    assert (answer.status_code, "not right" in answer.text) == (403, True)


async def test_a_later_expiry_is_refused(web: httpx.AsyncClient, path: str) -> None:
    """Nobody prolongs a link."""
    later = str(int((NOW + 2 * WEEK).timestamp()))
    assert (await web.get(changed(signed(path), expires=later))).status_code == 403


async def test_a_link_without_a_signature_is_refused(web: httpx.AsyncClient, path: str) -> None:
    """Whoever guesses a path gets nothing."""
    assert (await web.get(path)).status_code == 403


async def test_a_signature_by_another_key_is_refused(web: httpx.AsyncClient, path: str) -> None:
    """Links of another installation do not work here."""
    url = LinkSigner(b"t" * 32).sign(BASE, path, NOW + WEEK)
    assert (await web.get(url)).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/validation-reports/../uploads.csv",
        "/validation-reports/campaign_x/upload_x.csv",
        "/validation-reports/%2e%2e/%2e%2e.csv",
        "/validation-reports/campaign_x/..%2f..%2fsecret.key.csv",
    ],
)
async def test_a_path_that_is_no_report_is_refused(web: httpx.AsyncClient, path: str) -> None:
    """Not even with a good signature."""
    assert (await web.get(signed(path))).status_code in {403, 404}


# Health


async def test_health_is_that_of_the_process(web: httpx.AsyncClient) -> None:
    """It answers, whatever the database does."""
    answer = await web.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readiness_is_that_of_the_database(web: httpx.AsyncClient) -> None:
    """Both are there."""
    answer = await web.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("page", ["/readyz", "/metrics"])
async def test_a_database_that_is_away_is_unavailable(blobs: LocalBlobs, clock: SimulatedClock, page: str) -> None:
    """503, without a word of where the database is; the process is healthy all the same."""
    database = Database("postgresql://postern:secret@127.0.0.1:1/none")
    async with client(database, blobs, clock) as web:
        answer = await web.get(page)
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert (await web.get("/healthz")).status_code == 200
    database.dispose()


async def test_metrics_count_by_status(web: httpx.AsyncClient, database: Database, sqlite_url: str) -> None:
    """In the format that Prometheus reads."""
    key = enrol(database, add_campaign(database))
    jobs = Jobs(sqlite_url)
    receive_upload(database, jobs, new_upload(key))
    refuse_upload(database, jobs, new_refusal(key), recipient=OWNER, context={})
    jobs.close()
    answer = await web.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    assert 'postern_uploads{status="received"} 1.0' in lines
    assert 'postern_uploads{status="refused"} 1.0' in lines
    assert 'postern_notices{status="pending"} 1.0' in lines


async def test_metrics_tell_what_waits_for_a_provider(
    web: httpx.AsyncClient, database: Database, sqlite_url: str, clock: SimulatedClock
) -> None:
    """How many messages, and which trouble accounts are in; none is named."""
    jobs = Jobs(sqlite_url)
    enqueued_batch(database, jobs, add_campaign(database), [RECIPIENT] * 3)
    jobs.close()
    assert "postern_messages_waiting 3.0" in (await web.get("/metrics")).text.splitlines()
    for account, trouble in (("twilio:1", "account"), ("twilio:2", "throttled"), ("twilio:3", "throttled")):
        open_circuit(database, account, trouble=trouble, detail="", pause=lambda _: 60, now=clock())
    text = (await web.get("/metrics")).text
    assert 'postern_accounts_resting{trouble="account"} 1.0' in text.splitlines()
    assert 'postern_accounts_resting{trouble="throttled"} 2.0' in text.splitlines()
    assert "twilio:" not in text


@pytest.mark.parametrize("page", ["/", "/docs", "/openapi.json", "/redoc", "/validation-reports/"])
async def test_nothing_else_is_served(web: httpx.AsyncClient, page: str) -> None:
    """No page tells what runs here."""
    answer = await web.get(page)
    assert (answer.status_code, __version__ in answer.text) == (404, False)
