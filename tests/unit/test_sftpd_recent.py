"""The list that sessions see: read seldom, and never without what this gate accepted."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postern.model import IdKind, new_id
from sftpd import recent
from sftpd.recent import RecentUploads
from storage.spool import Spool
from storage.spool_records import RecentUpload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAMPAIGN = new_id(IdKind.CAMPAIGN)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool in which the campaign has one upload."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    add(spool, "x.csv")
    return spool


def add(spool: Spool, name: str) -> None:
    seen = RecentUpload(file_name=name, size=1, received_at="2026-01-01T00:00:00.000+00:00")
    spool.remember(CAMPAIGN, new_id(IdKind.UPLOAD), seen)


async def names(uploads: RecentUploads) -> list[str]:
    return sorted(await uploads.of(CAMPAIGN))


def add_unseen(spool: Spool, name: str) -> None:
    """As if it had come in the same moment as the last one: the folder's time stays."""
    folder = spool.recent / CAMPAIGN
    before = folder.stat()
    add(spool, name)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_a_list_is_kept_until_something_is_accepted(spool: Spool) -> None:
    """It is not read each time that somebody asks."""
    uploads = RecentUploads(spool, lambda: NOW)
    assert await names(uploads) == ["x.csv"]
    add_unseen(spool, "y.csv")
    assert await names(uploads) == ["x.csv"]
    uploads.forget(CAMPAIGN)
    assert await names(uploads) == ["x.csv", "y.csv"]


async def test_what_another_process_accepts_is_seen_at_once(spool: Spool) -> None:
    """A client with several connections may look for its upload through any of them; also the campaign's first one."""
    one, other = RecentUploads(spool, lambda: NOW), RecentUploads(spool, lambda: NOW)
    assert await names(other) == ["x.csv"]
    add_unseen(spool, "y.csv")
    one.forget(CAMPAIGN)
    assert await names(other) == ["x.csv", "y.csv"]
    campaign = new_id(IdKind.CAMPAIGN)
    assert await other.of(campaign) == {}
    one.forget(campaign)
    assert (spool.recent / campaign).is_dir()


async def test_a_list_is_not_kept_for_long(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's time is only so fine."""
    monkeypatch.setattr(recent, "KEEP", 0.0)
    uploads = RecentUploads(spool, lambda: NOW)
    assert await names(uploads) == ["x.csv"]
    add_unseen(spool, "y.csv")
    assert await names(uploads) == ["x.csv", "y.csv"]


async def test_a_reading_that_was_overtaken_is_not_kept(spool: Spool) -> None:
    """It may have looked before the upload was there."""
    uploads = RecentUploads(spool, lambda: NOW)
    reading = asyncio.create_task(uploads.of(CAMPAIGN))
    await asyncio.sleep(0)
    uploads.forget(CAMPAIGN)
    await reading
    add(spool, "y.csv")
    assert await names(uploads) == ["x.csv", "y.csv"]


async def test_lists_of_many_campaigns_are_not_kept(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(recent, "MAX_CAMPAIGNS", 2)
    uploads = RecentUploads(spool, lambda: NOW)
    for _ in range(10):
        assert await uploads.of(new_id(IdKind.CAMPAIGN)) == {}
    assert len(uploads._lists) <= 2
