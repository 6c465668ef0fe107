"""The uploads of one session, from open to accepted, waiting or abandoned, on a real spool."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from postern.logs import get_logger
from postern.model import IdKind, new_id
from postern.settings import DEFAULT_TEMPORARY_SUFFIXES
from sftpd.metrics import Metrics
from sftpd.paths import NameRules, UploadName
from sftpd.recent import RecentUploads
from sftpd.records import Client
from sftpd.refusals import GateRefusal, RefusalCode, refuse
from sftpd.session_uploads import MAX_EVENTS, MAX_UNFINISHED, SessionUploads, Terms
from sftpd.uploads import Upload
from storage.spool import Spool
from storage.spool_records import EventKind, RecentUpload

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLIENT = Client(
    campaign_id=new_id(IdKind.CAMPAIGN), enrolment_id="enrolment_1", key_fingerprint="SHA256:x", peer="192.0.2.1"
)
RULES = NameRules(DEFAULT_TEMPORARY_SUFFIXES)


@pytest.fixture
def terms(tmp_path: Path) -> Terms:
    """An empty spool and a clock that stands."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return Terms(
        spool=spool,
        recent=RecentUploads(spool, lambda: NOW),
        names=RULES,
        max_file_size=1000,
        zone=ZoneInfo("Asia/Singapore"),
        clock=lambda: NOW,
        metrics=Metrics(),
    )


@pytest.fixture
def session(terms: Terms) -> SessionUploads:
    """A session that just began."""
    return SessionUploads(CLIENT, terms, get_logger(__name__))


def name(text: str) -> UploadName:
    return RULES.read(text.encode())


async def put(session: SessionUploads, text: str, content: bytes = b"abc") -> Upload:
    upload = await session.begin(name(text))
    upload.write(0, content)
    await session.finish(upload)
    return upload


def accepted(terms: Terms) -> list[str]:
    return [terms.spool.read(upload_id)[0].file_name for upload_id in terms.spool.waiting()]


def reasons(terms: Terms) -> list[tuple[str, str]]:
    events = [event for _path, event in terms.spool.pending_events() if event.kind is EventKind.REFUSED]
    return [(event.file_name, event.reason) for event in events]


def is_clear(terms: Terms) -> bool:
    return not list(terms.spool.incoming.iterdir())


async def test_a_closed_file_is_accepted_with_its_record(session: SessionUploads, terms: Terms) -> None:
    """The record says who sent what, and when by the service's clock."""
    upload = await put(session, "x.csv")
    sidecar, data = terms.spool.read(upload.id)
    assert data.read_bytes() == b"abc"
    assert (sidecar.campaign_id, sidecar.enrolment_id) == (CLIENT.campaign_id, "enrolment_1")
    assert (sidecar.file_name, sidecar.size, sidecar.sha256) == ("x.csv", 3, upload.sha256)
    assert (sidecar.key_fingerprint, sidecar.peer) == ("SHA256:x", "192.0.2.1")
    assert sidecar.received_at == "2026-01-01T20:00:00.000+08:00"
    assert not session.unfinished


async def test_the_same_name_twice_is_two_uploads(session: SessionUploads, terms: Terms) -> None:
    """Whether it is a repeat is not for the gate to say."""
    await put(session, "x.csv")
    await put(session, "x.csv")
    assert accepted(terms) == ["x.csv", "x.csv"]


async def test_a_temporary_name_waits_for_its_rename(session: SessionUploads, terms: Terms) -> None:
    """Nothing is accepted under a temporary name; the rename accepts it."""
    await put(session, "x.csv.filepart")
    assert session.unfinished
    assert accepted(terms) == []
    await session.rename(name("x.csv.filepart"), b"/upload/y.csv")
    assert accepted(terms) == ["y.csv"]
    assert not session.unfinished
    await session.leave()
    assert reasons(terms) == []


async def test_a_temporary_name_may_become_another_one(session: SessionUploads, terms: Terms) -> None:
    """It goes on waiting."""
    await put(session, "x.csv.filepart")
    await session.rename(name("x.csv.filepart"), b"x.csv.part")
    assert session.unfinished
    await session.rename(name("x.csv.part"), b"x.csv")
    assert accepted(terms) == ["x.csv"]


async def test_a_file_that_is_never_renamed_is_abandoned_and_told(session: SessionUploads, terms: Terms) -> None:
    """The end of the session leaves an event that says what to do, and nothing else."""
    await put(session, "x.csv.part")
    await session.leave()
    assert accepted(terms) == []
    assert is_clear(terms)
    ((file_name, reason),) = reasons(terms)
    assert file_name == "x.csv.part"
    assert 'never renamed to "x.csv"' in reason


async def test_a_rename_to_a_refused_name_accepts_nothing(session: SessionUploads, terms: Terms) -> None:
    """The file waits on for a better name."""
    await put(session, "x.csv.part")
    with pytest.raises(GateRefusal) as refused:
        await session.rename(name("x.csv.part"), b"x.txt")
    assert refused.value.kind is RefusalCode.NAME_NOT_CSV
    await session.rename(name("x.csv.part"), b"x.csv")
    assert accepted(terms) == ["x.csv"]


async def test_a_file_may_be_renamed_while_it_is_open(session: SessionUploads, terms: Terms) -> None:
    """Its close finds the new name."""
    upload = await session.begin(name("x.csv.part"))
    await session.rename(name("x.csv.part"), b"x.csv")
    assert accepted(terms) == []
    await session.finish(upload)
    assert accepted(terms) == ["x.csv"]


async def test_renaming_an_accepted_upload_makes_no_second_one(session: SessionUploads, terms: Terms) -> None:
    """It answers OK, and the client finds what it renamed."""
    await put(session, "x.csv")
    await session.rename(name("x.csv"), b"y.csv")
    await session.rename(name("y.csv"), b"done.txt")
    assert accepted(terms) == ["x.csv"]
    assert (await session.sight(name("y.csv"))).size == 3


async def test_what_is_not_there_cannot_be_renamed_or_removed(session: SessionUploads) -> None:
    """A client is not told that a file is gone which never was."""
    with pytest.raises(GateRefusal):
        await session.rename(name("x.csv"), b"y.csv")
    with pytest.raises(GateRefusal):
        await session.remove(name("x.csv"))


async def test_removing_an_accepted_upload_removes_nothing(session: SessionUploads, terms: Terms) -> None:
    """It answers OK: WinSCP removes the old file before it renames the new one."""
    await put(session, "x.csv")
    await session.remove(name("x.csv"))
    assert accepted(terms) == ["x.csv"]


async def test_removing_an_unfinished_file_drops_it(session: SessionUploads, terms: Terms) -> None:
    """A client that takes its temporary file back gets no mail about it."""
    await put(session, "x.csv.part")
    await session.remove(name("x.csv.part"))
    upload = await session.begin(name("y.csv"))
    await session.remove(name("y.csv"))
    with pytest.raises(GateRefusal):
        await session.finish(upload)
    await session.leave()
    assert (accepted(terms), reasons(terms), is_clear(terms)) == ([], [], True)


async def test_a_temporary_file_is_overwritten_by_the_next_of_its_name(session: SessionUploads, terms: Terms) -> None:
    """As in any folder: the last one counts."""
    await put(session, "x.csv.part", b"old")
    upload = await put(session, "x.csv.part", b"new")
    await session.rename(name("x.csv.part"), b"x.csv")
    assert terms.spool.waiting() == [upload.id]
    assert is_clear(terms)


async def test_a_dropped_file_leaves_nothing(session: SessionUploads, terms: Terms) -> None:
    """What a teardown closed was not closed by the client."""
    upload = await session.begin(name("x.csv"))
    upload.write(0, b"abc")
    await session.drop(upload)
    assert (accepted(terms), is_clear(terms), session.unfinished) == ([], True, 0)


async def test_leaving_clears_open_files(session: SessionUploads, terms: Terms) -> None:
    """Whatever is left is gone."""
    await session.begin(name("x.csv"))
    await session.leave()
    assert (accepted(terms), is_clear(terms), session.unfinished) == ([], True, 0)


async def test_a_session_sees_its_own_files_and_its_campaigns(session: SessionUploads, terms: Terms) -> None:
    """Names and sizes, of other sessions and through intake too, of no other campaign."""
    await put(session, "own.csv", b"12345")
    await put(SessionUploads(CLIENT, terms, get_logger(__name__)), "other-session.csv")
    stranger = Client(campaign_id=new_id(IdKind.CAMPAIGN), enrolment_id="e", key_fingerprint="f", peer="p")
    await put(SessionUploads(stranger, terms, get_logger(__name__)), "strange.csv")
    recent = RecentUpload(file_name="earlier.csv", size=7, received_at="2026-01-01T10:00:00.000+00:00")
    terms.spool.remember(CLIENT.campaign_id, new_id(IdKind.UPLOAD), recent)
    opened = await session.begin(name("open.csv"))
    opened.write(0, b"ab")
    sizes = {seen: sight.size for seen, sight in (await session.sights()).items()}
    assert sizes == {"own.csv": 5, "other-session.csv": 3, "earlier.csv": 7, "open.csv": 2}
    await session.leave()


async def test_an_upload_stays_visible_when_it_has_moved_on(session: SessionUploads, terms: Terms) -> None:
    """paramiko compares the size after the close, when intake may be done with the file."""
    upload = await put(session, "x.csv")
    terms.spool.finish(upload.id)
    assert (await session.sight(name("x.csv"))).size == 3


async def test_unfinished_files_are_limited(session: SessionUploads, terms: Terms) -> None:
    """One session cannot fill the disk with files that it never finishes."""
    for number in range(MAX_UNFINISHED):
        await session.begin(name(f"{number}.csv"))
    with pytest.raises(GateRefusal) as refused:
        await session.begin(name("one-more.csv"))
    assert refused.value.kind is RefusalCode.TOO_MANY_OPEN
    await session.leave()
    assert is_clear(terms)


async def test_only_refusals_that_matter_are_told_and_not_without_end(session: SessionUploads, terms: Terms) -> None:
    """The owner hears of refused files, not of clients that look around."""
    await session.tell(refuse(RefusalCode.READING))
    for number in range(MAX_EVENTS + 5):
        await session.tell(refuse(RefusalCode.NAME_NOT_CSV, name=f"{number}.txt"))
    told = reasons(terms)
    assert len(told) == MAX_EVENTS
    assert ("0.txt", '"0.txt" is not a .csv file; only files whose name ends in .csv are taken here.') in told


async def test_an_upload_counts_as_in_flight_until_its_close_is_answered(session: SessionUploads, terms: Terms) -> None:
    """A gate that stops waits for it: else the client is cut off although its file is accepted, and sends it again."""
    upload = await session.begin(name("x.csv"))
    upload.write(0, b"abc")
    closing = asyncio.create_task(session.finish(upload))
    seen = []
    while not closing.done():
        seen.append(session.unfinished)
        await asyncio.sleep(0)
    await closing
    assert all(seen[:-1])
    assert not session.unfinished
    assert accepted(terms) == ["x.csv"]


async def test_a_file_that_takes_anothers_temporary_name_replaces_it(session: SessionUploads, terms: Terms) -> None:
    """Two handles on one name, closed one after the other: one file waits, and nothing is left of the other."""
    first, second = await session.begin(name("x.csv.part")), await session.begin(name("x.csv.part"))
    first.write(0, b"first")
    second.write(0, b"second")
    await session.finish(first)
    await session.finish(second)
    await session.rename(name("x.csv.part"), b"x.csv")
    await session.leave()
    assert accepted(terms) == ["x.csv"]
    assert is_clear(terms)
