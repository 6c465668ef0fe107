"""Report links where blobs are in S3: the web role sends people to the store for a moment, or serves them itself."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest
from support.domain import NOW, SimulatedClock
from support.s3 import Store

from postern.links import LinkSigner
from postern.model import IdKind, new_id
from postern.settings import StoreSettings
from storage.blobs import Blobs, blobs_from
from storage.database import Database
from storage.engine import Jobs
from web.app import create_app
from web.holds import HoldDesk

pytest_plugins = ["support.databases", "support.stores"]

BASE = "https://postern.example"
REPORT = b"recipient,name,Error Reason\r\n,Emily,No recipient.\r\n"
LINKS = LinkSigner(b"s" * 32)
STEM = f"/validation-reports/{new_id(IdKind.CAMPAIGN)}/{new_id(IdKind.UPLOAD)}"
WORKBOOK_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

Put = Callable[[str, bytes], None]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A ledger on SQLite."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def settings(s3: Store) -> StoreSettings:
    """Blobs in S3."""
    return StoreSettings(blob_url=s3.new_url(), s3_endpoint_url=s3.endpoint)


@pytest.fixture
def put(settings: StoreSettings, tmp_path: Path) -> Put:
    """Puts a blob."""
    blobs = blobs_from(settings)

    def put(path: str, content: bytes) -> None:
        (tmp_path / "source").write_bytes(content)
        blobs.put(path.removeprefix("/"), tmp_path / "source")

    return put


async def get(database: Database, blobs: Blobs, path: str) -> httpx.Response:
    clock = SimulatedClock()
    holds = HoldDesk(database=database, jobs=Jobs(database.url), links=LINKS, zone=ZoneInfo("UTC"), now=clock)
    app = create_app(database, blobs, LINKS, clock, holds=holds)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as web:
        return await web.get(LINKS.sign(BASE, path, NOW + timedelta(days=7)))


@pytest.mark.parametrize(("form", "media_type"), [("csv", "text/csv; charset=utf-8"), ("xlsx", WORKBOOK_TYPE)])
async def test_a_link_leads_to_the_store_for_a_moment(
    database: Database, settings: StoreSettings, put: Put, form: str, media_type: str
) -> None:
    """Where the same file comes under the same name, and nobody keeps or passes on the address."""
    put(f"{STEM}.{form}", REPORT)
    answer = await get(database, blobs_from(settings), f"{STEM}.{form}")
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    address = answer.headers["Location"]
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["60"]
    async with httpx.AsyncClient() as client:
        found = await client.get(address)
    assert (found.status_code, found.content, found.headers["Content-Type"]) == (200, REPORT, media_type)
    name = f"validation-report-{STEM.rpartition('/')[2]}.{form}"
    assert found.headers["Content-Disposition"] == f'attachment; filename="{name}"'


async def test_the_web_role_can_serve_reports_itself(database: Database, settings: StoreSettings, put: Put) -> None:
    """Where people cannot reach the store."""
    put(f"{STEM}.csv", REPORT)
    answer = await get(database, blobs_from(settings.model_copy(update={"s3_link_seconds": 0})), f"{STEM}.csv")
    assert (answer.status_code, answer.content) == (200, REPORT)


async def test_a_workbook_is_waited_for_as_anywhere(database: Database, settings: StoreSettings, put: Put) -> None:
    """Not there yet: 503; an empty one: there is none; no report: it is gone."""
    blobs, path = blobs_from(settings), f"{STEM}.xlsx"
    assert (await get(database, blobs, path)).status_code == 410
    put(f"{STEM}.csv", REPORT)
    waits = await get(database, blobs, path)
    assert (waits.status_code, waits.headers["Retry-After"]) == (503, "3")
    put(path, b"")
    assert (await get(database, blobs, path)).status_code == 404


async def test_a_store_that_is_away_is_unavailable(database: Database, s3_environ: None) -> None:
    """Without a word of where it is."""
    blobs = blobs_from(StoreSettings(blob_url="s3://bucket", s3_endpoint_url="http://127.0.0.1:1"))
    answer = await get(database, blobs, f"{STEM}.csv")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
