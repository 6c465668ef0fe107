"""The page behind the link in a hold notice, through the real application on both databases."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest
from support.domain import NOW, SECOND, SimulatedClock, add_campaign, enrol, held_upload, jobs_of, notices_of

from postern.links import LinkSigner, Purpose, hold_path
from postern.model import IdKind, NoticeKind, Upload, UploadStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import PROCESS_UPLOAD
from storage.ledger import audit
from storage.ledger.campaigns import delete_campaign
from storage.ledger.decisions import drop_upload, release_upload
from storage.ledger.uploads import get_upload
from storage.local import LocalBlobs
from storage.tables import notices
from web.app import create_app
from web.holds import HoldDesk

pytest_plugins = ["support.databases"]

BASE = "https://postern.example"
SECRET = b"s" * 32
LINKS = LinkSigner(SECRET, Purpose.HOLD)
WEEK = timedelta(days=7)
DECISIONS = {"release": UploadStatus.VALIDATING, "drop": UploadStatus.DROPPED}


@pytest.fixture
def clock() -> SimulatedClock:
    """The time of the web role."""
    return SimulatedClock()


@pytest.fixture
def upload(database: Database, jobs: Jobs) -> Upload:
    """A repeat that is held."""
    return held_upload(database, jobs, enrol(database, add_campaign(database)))


@pytest.fixture
async def web(
    database: Database, jobs: Jobs, clock: SimulatedClock, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    holds = HoldDesk(database=database, jobs=jobs, links=LINKS, zone=ZoneInfo("Asia/Singapore"), now=clock)
    app = create_app(database, LocalBlobs(tmp_path / "blobs"), LinkSigner(SECRET), clock, holds=holds)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as web:
        yield web


def link_to(upload: Upload, links: LinkSigner = LINKS) -> str:
    return links.sign(BASE, hold_path(upload.id), NOW + WEEK)


def buttons(page: httpx.Response) -> dict[str, str]:
    """Where the buttons of a page post to, by the last part of the path."""
    actions = [urljoin(str(page.url), unescape(action)) for action in re.findall('action="([^"]*)"', page.text)]
    return {urlsplit(action).path.rpartition("/")[2]: action for action in actions}


def decisions_of(database: Database, upload: Upload) -> list[tuple[str, str]]:
    found = audit.list_audit(database, campaign_id=upload.campaign_id)
    return [(row["action"], row["actor"]) for row in found if row["subject"] == upload.id]


async def test_the_page_says_what_is_held_and_why(web: httpx.AsyncClient, database: Database, upload: Upload) -> None:
    """Name, size, time, the start of the digest, the earlier file; and a button for either decision."""
    page = await web.get(link_to(upload))
    assert page.status_code == 200
    for text in ("people.csv", f"{upload.size:,} bytes", "20 November 2026, 16:30:00", str(upload.sha256)[:16]):
        assert text in page.text
    assert "It has the same bytes as people.csv" in page.text
    assert "It is being checked." in page.text
    assert set(buttons(page)) == set(DECISIONS)
    assert page.headers["Cache-Control"] == "private, no-store"
    assert "form-action 'self'; frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text


async def test_a_cut_off_file_says_so(web: httpx.AsyncClient, database: Database, jobs: Jobs) -> None:
    """With what to do about it."""
    upload = held_upload(database, jobs, enrol(database, add_campaign(database)), is_cut_off=True)
    page = await web.get(link_to(upload))
    assert "It looks cut off" in page.text
    assert "same bytes" not in page.text


@pytest.mark.parametrize(
    ("provider", "environment", "is_simulated"),
    [("simulator", "production", True), ("twilio", "loadtest", True), ("twilio", "production", False)],
)
async def test_a_page_says_where_nothing_leaves(
    web: httpx.AsyncClient, database: Database, upload: Upload, provider: str, environment: str, is_simulated: bool
) -> None:
    """Before the decision and after it; as the mail with the link said."""
    told = {"fileName": "people.csv", "provider": provider, "environment": environment}
    with database.write() as connection:
        connection.execute(notices.update().where(notices.c.upload_id == upload.id).values(context=told))
    page = await web.get(link_to(upload))
    assert ("SIMULATED" in page.text) is is_simulated
    assert ("no SMS leaves" in page.text) is is_simulated
    done = await web.post(buttons(page)["release"])
    assert ("SIMULATED" in done.text) is is_simulated


async def test_opening_the_page_decides_nothing(web: httpx.AsyncClient, database: Database, upload: Upload) -> None:
    """Programs that follow the links in mails do no harm, whatever they append."""
    before = jobs_of(database)
    link = link_to(upload)
    for _ in range(3):
        assert (await web.get(link)).status_code == 200
    page = await web.get(link)
    for action in buttons(page).values():
        assert (await web.get(action)).status_code == 405
    assert (await web.head(link)).status_code == 405
    assert (await web.post(link)).status_code == 405
    assert get_upload(database, upload.id) == upload
    assert (jobs_of(database), decisions_of(database, upload)) == (before, [])


@pytest.mark.parametrize("decision", DECISIONS)
async def test_a_button_decides_once(
    web: httpx.AsyncClient, database: Database, upload: Upload, clock: SimulatedClock, decision: str
) -> None:
    """The upload goes on or is dropped; who comes back is told, and changes nothing."""
    page = await web.get(link_to(upload))
    clock.advance(60)
    answer = await web.post(buttons(page)[decision])
    assert answer.status_code == 200
    decided = get_upload(database, upload.id)
    assert (decided.status, decided.decided_by) == (DECISIONS[decision], "owner")
    assert decided.decided_at == NOW + 60 * SECOND
    left = jobs_of(database)
    for again in DECISIONS:
        clock.advance(60)
        used = await web.post(buttons(page)[again])
        assert used.status_code == 409
        assert "was decided already" in used.text
        assert "20 November 2026, 16:31:00" in used.text
    gone = await web.get(link_to(upload))
    assert (gone.status_code, buttons(gone)) == (410, {})
    assert get_upload(database, upload.id) == decided
    assert jobs_of(database) == left
    assert decisions_of(database, upload) == [(f"upload.{'released' if decision == 'release' else 'dropped'}", "owner")]


@pytest.mark.parametrize("decide", [release_upload, drop_upload])
async def test_a_page_left_open_learns_of_the_operators_decision(
    web: httpx.AsyncClient, database: Database, jobs: Jobs, upload: Upload, decide: object
) -> None:
    """The button of a page that was right when it was opened."""
    page = await web.get(link_to(upload))
    decided = decide(database, jobs, upload.id, actor="operator", now=NOW)  # type: ignore[operator]
    for action in buttons(page).values():
        assert (await web.post(action)).status_code == 409
    assert get_upload(database, upload.id) == decided


async def test_of_many_presses_exactly_one_counts(web: httpx.AsyncClient, database: Database, upload: Upload) -> None:
    """Both buttons at once, many times."""
    actions = buttons(await web.get(link_to(upload)))
    answers = await asyncio.gather(*(web.post(actions[decision]) for decision in ("release", "drop") * 6))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    assert len(decisions_of(database, upload)) == 1
    released = get_upload(database, upload.id).status is UploadStatus.VALIDATING
    assert (jobs_of(database).get(upload.id) == PROCESS_UPLOAD.name) is released
    assert (NoticeKind.DROPPED in notices_of(database, upload.id)) is not released


async def test_a_link_works_until_it_expires(
    web: httpx.AsyncClient, database: Database, upload: Upload, clock: SimulatedClock
) -> None:
    """To the second; the upload stays held, and the page says what an operator can do."""
    page = await web.get(link_to(upload))
    clock.now = NOW + WEEK - SECOND
    assert (await web.get(link_to(upload))).status_code == 200
    clock.now = NOW + WEEK
    for answer in (await web.get(link_to(upload)), await web.post(buttons(page)["release"])):
        assert (answer.status_code, buttons(answer)) == (410, {})
        assert f"postern upload release {upload.id}" in answer.text
    assert get_upload(database, upload.id) == upload


def changed(url: str, **query: str) -> str:
    parts = urlsplit(url)
    values = {name: value for name, (value,) in parse_qs(parts.query).items()}
    return parts._replace(query=urlencode({**values, **query})).geturl()


def forgeries(upload: Upload) -> Iterator[str]:
    """Links that are none."""
    link = link_to(upload)
    other = replace(upload, id=new_id(IdKind.UPLOAD))
    yield link.partition("?")[0]
    yield changed(link, signature="A" * 43)
    yield changed(link, expires=str(int((NOW + 2 * WEEK).timestamp())))
    yield link.replace(upload.id, other.id)
    yield link.replace(upload.id, "upload_x")
    yield link_to(upload, LinkSigner(SECRET))  # a link of the kind that opens reports
    yield link_to(upload, LinkSigner(b"t" * 32, Purpose.HOLD))
    yield LINKS.sign(BASE, f"/validation-reports/{upload.campaign_id}/{upload.id}.csv", NOW + WEEK)
    yield link_to(other)  # signed, and there is no such upload


async def test_a_forged_link_decides_nothing(web: httpx.AsyncClient, database: Database, upload: Upload) -> None:
    """Neither shows anything of the upload."""
    for forged in forgeries(upload):
        parts = urlsplit(forged)
        asked = [await web.get(forged)]
        asked += [await web.post(parts._replace(path=f"{parts.path}/{decision}").geturl()) for decision in DECISIONS]
        assert {answer.status_code for answer in asked} <= {403, 404, 405}, forged
        assert all("people.csv" not in answer.text for answer in asked)
    good = urlsplit(link_to(upload))
    assert (await web.post(good._replace(path=f"{good.path}/accept").geturl())).status_code == 403
    assert get_upload(database, upload.id) == upload


async def test_a_hold_link_opens_no_report(web: httpx.AsyncClient, upload: Upload) -> None:
    """Each purpose has a key of its own."""
    path = f"/validation-reports/{upload.campaign_id}/{upload.id}.csv"
    assert (await web.get(LINKS.sign(BASE, path, NOW + WEEK))).status_code == 403


async def test_a_hostile_name_is_shown_not_obeyed(web: httpx.AsyncClient, database: Database, jobs: Jobs) -> None:
    """Markup and marks that turn the reading direction."""
    key = enrol(database, add_campaign(database, name="<b>Passports</b>"))
    upload = held_upload(database, jobs, key, file_name="<script>x</script>\u202e.csv")
    page = await web.get(link_to(upload))
    assert "&lt;script&gt;x&lt;/script&gt;\N{REPLACEMENT CHARACTER}.csv" in page.text
    assert "<script" not in page.text
    assert "<b>" not in page.text


async def test_the_link_of_a_deleted_campaign_finds_its_upload_dropped(
    web: httpx.AsyncClient, database: Database, jobs: Jobs, upload: Upload
) -> None:
    """Nothing more is sent for it."""
    page = await web.get(link_to(upload))
    delete_campaign(database, jobs, upload.campaign_id, actor="operator", now=NOW)
    answer = await web.post(buttons(page)["release"])
    assert (answer.status_code, "dropped" in answer.text) == (409, True)
