"""Batches in the ledger, on both databases: written bit by bit, enqueued at one point, chunk after chunk."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SECOND,
    add_campaign,
    change,
    change_message,
    count,
    enqueued_batch,
    jobs_of,
    message_id,
    message_rows,
    validating_upload,
    verdict,
    write_batch,
)

from postern.errors import NotFoundError
from postern.model import BatchStatus, IdKind, MessageStatus, Upload, UploadStatus, derived_id, is_id
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import INDEX_MESSAGES, SEND_CHUNK
from storage.ledger.batches import (
    count_messages,
    enqueue_batch,
    enqueue_chunk_after,
    get_batch,
    list_batches,
    start_batch,
)
from storage.ledger.messages import get_message, list_messages
from storage.ledger.new_messages import write_messages
from storage.ledger.uploads import get_upload
from storage.tables import batches, messages

pytest_plugins = ["support.databases"]

PEOPLE = [RECIPIENT, "6581234567", "85223456789"]


def chunks(database: Database) -> set[str]:
    return {name for name, kind in jobs_of(database).items() if kind == SEND_CHUNK.name}


def enqueue(database: Database, jobs: Jobs, batch_id: str, upload_id: str) -> bool:
    return enqueue_batch(
        database,
        jobs,
        batch_id=batch_id,
        upload_id=upload_id,
        rate=20,
        verdict=verdict(rows=3),
        context={},
        now=NOW + SECOND,
    )


def test_a_batch_is_written_under_ids_made_from_its_upload(database: Database, jobs: Jobs) -> None:
    """Batch and messages have UUIDv5 ids, and nothing is sent yet."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = write_batch(database, upload, PEOPLE)
    assert batch_id == derived_id(IdKind.BATCH, upload.id, "batch")
    batch = get_batch(database, batch_id)
    assert (batch.status, batch.upload_id) == (BatchStatus.MESSAGES_ENQUEUING, upload.id)
    assert (batch.total, batch.first_row, batch.last_row) == (3, 2, 4)
    found = list_messages(database, batch_id=batch_id)
    assert [(message.row, message.recipient) for message in found] == list(enumerate(PEOPLE, start=2))
    assert all(is_id(IdKind.MESSAGE, message.id) for message in found)
    assert get_message(database, message_id(batch_id, 3)) == found[1]
    assert (found[0].values, found[0].num_attempts, found[0].attempts) == ({"name": "Emily"}, 0, ())
    assert chunks(database) == set()


def test_a_batch_written_twice_is_one(database: Database, jobs: Jobs) -> None:
    """A worker that died among the rows leaves some; the next one adds the rest and leaves those alone."""
    upload = validating_upload(database, jobs, add_campaign(database))
    bounds = (3, 2, 4)
    batch_id = start_batch(database, upload_id=upload.id, campaign_id=upload.campaign_id, rows=bounds, now=NOW)
    write_messages(database, batch_id=batch_id, parts=[message_rows(PEOPLE[:2])])
    change_message(database, batch_id, 2, latest_status=MessageStatus.SENT.value)
    assert write_batch(database, upload, PEOPLE, now=NOW + SECOND) == batch_id
    assert (count(database, batches), count(database, messages)) == (1, 3)
    assert get_batch(database, batch_id).created_at == NOW
    assert get_message(database, message_id(batch_id, 2)).latest_status is MessageStatus.SENT
    assert get_message(database, message_id(batch_id, 4)).created_at == NOW


def test_rows_that_are_missing_anywhere_are_added(database: Database, jobs: Jobs) -> None:
    """Whichever rows a dead worker has left, the next try makes the batch whole."""
    upload = validating_upload(database, jobs, add_campaign(database))
    people = [RECIPIENT] * 120  # more than go into one statement
    batch_id = write_batch(database, upload, people)
    whole = list_messages(database, batch_id=batch_id, limit=200)
    with database.write() as connection:
        connection.execute(messages.delete().where(sa.or_(messages.c.row % 3 == 0, messages.c.row > 70)))
    for _ in range(2):
        assert write_batch(database, upload, people) == batch_id
    assert list_messages(database, batch_id=batch_id, limit=200) == whole
    assert count(database, messages) == 120


def test_workers_that_write_one_batch_at_once_write_it_once(database: Database, jobs: Jobs) -> None:
    """One that was taken for dead goes on beside the one that took over: neither fails, no row is there twice."""
    upload = validating_upload(database, jobs, add_campaign(database))
    extent = (2000, 2, 2001)

    def write(_worker: int) -> str:
        batch_id = start_batch(database, upload_id=upload.id, campaign_id=upload.campaign_id, rows=extent, now=NOW)
        parts = [message_rows([RECIPIENT] * 100, first_row=row) for row in range(2, 2002, 100)]
        write_messages(database, batch_id=batch_id, parts=parts)
        return batch_id

    with ThreadPoolExecutor(3) as threads:
        (batch_id,) = set(threads.map(write, range(3)))
    assert [message.row for message in list_messages(database, batch_id=batch_id, limit=9999)] == [*range(2, 2002)]


@pytest.mark.parametrize("status", [BatchStatus.MESSAGES_ENQUEUED, BatchStatus.MESSAGES_ENQUEUING_FAILED])
def test_a_batch_that_is_closed_gets_no_more_rows(database: Database, jobs: Jobs, status: BatchStatus) -> None:
    """A worker that was taken for dead wakes up too late."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = write_batch(database, upload, PEOPLE[:2])
    change(database, batches, batch_id, status=status.value)
    assert write_batch(database, upload, PEOPLE) == batch_id
    assert count(database, messages) == 2


def test_batches_that_start_at_once_have_numbers_of_their_own(database: Database, jobs: Jobs) -> None:
    """Messages know their batch by it."""
    campaign = add_campaign(database)
    uploads = [validating_upload(database, jobs, campaign) for _ in range(8)]

    def start(upload: Upload) -> str:
        return start_batch(database, upload_id=upload.id, campaign_id=campaign.id, rows=(1, 2, 2), now=NOW)

    with ThreadPoolExecutor(8) as threads:
        started = list(threads.map(start, uploads))
    with database.read() as connection:
        found = dict(connection.execute(sa.select(batches.c.id, batches.c.number)).all())
    assert sorted(found) == sorted(started)
    assert sorted(found.values()) == list(range(1, 9))


@pytest.mark.parametrize("text", ["plain", "陈 \N{WAVING HAND SIGN}", "a\tb\nc\rd", r"\n \\N \. \t", '"', ""])
def test_values_come_back_as_they_went(database: Database, jobs: Jobs, text: str) -> None:
    """Whatever means something to the way that rows are written."""
    upload = validating_upload(database, jobs, add_campaign(database))
    rows = (2, 2, 3)
    batch_id = start_batch(database, upload_id=upload.id, campaign_id=upload.campaign_id, rows=rows, now=NOW)
    values = [json.dumps({"name": text}, ensure_ascii=False), text]
    write_messages(database, batch_id=batch_id, parts=[message_rows(PEOPLE[:2])._replace(values=values)])
    with database.read() as connection:
        assert connection.execute(sa.select(messages.c["values"])).scalars().all() == values


def test_no_rows_are_no_commit(database: Database, jobs: Jobs) -> None:
    """Without parts nothing is written."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = start_batch(database, upload_id=upload.id, campaign_id=upload.campaign_id, rows=(0, 2, 2), now=NOW)
    assert write_messages(database, batch_id=batch_id, parts=[]).commits == 0
    assert count(database, messages) == 0


def test_a_batch_is_enqueued_with_upload_and_first_chunk(database: Database, jobs: Jobs) -> None:
    """One commit: status, acceptance and the first job."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = write_batch(database, upload, PEOPLE)
    assert enqueue(database, jobs, batch_id, upload.id)
    assert get_batch(database, batch_id).status is BatchStatus.MESSAGES_ENQUEUED
    assert get_upload(database, upload.id).status is UploadStatus.ACCEPTED
    assert chunks(database) == {f"chunk:{batch_id}:2"}
    assert jobs_of(database)[f"index:{batch_id}"] == INDEX_MESSAGES.name


def test_a_batch_is_enqueued_once(database: Database, jobs: Jobs) -> None:
    """The second time changes nothing, also after the batch was cancelled."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = write_batch(database, upload, PEOPLE)
    enqueue(database, jobs, batch_id, upload.id)
    change(database, batches, batch_id, status=BatchStatus.CANCELLED.value)
    before = jobs_of(database)
    assert not enqueue(database, jobs, batch_id, upload.id)
    assert get_batch(database, batch_id).status is BatchStatus.CANCELLED
    assert jobs_of(database) == before


@pytest.mark.parametrize("status", [BatchStatus.CANCELLED, BatchStatus.MESSAGES_ENQUEUING_FAILED])
def test_a_batch_that_cannot_be_enqueued_accepts_nothing(database: Database, jobs: Jobs, status: BatchStatus) -> None:
    """The upload is not accepted without its batch: all of it is rolled back."""
    upload = validating_upload(database, jobs, add_campaign(database))
    batch_id = write_batch(database, upload, PEOPLE)
    change(database, batches, batch_id, status=status.value)
    before = jobs_of(database)
    with pytest.raises(sa.exc.NoResultFound):
        enqueue(database, jobs, batch_id, upload.id)
    assert get_upload(database, upload.id).status is UploadStatus.VALIDATING
    assert jobs_of(database) == before


@pytest.mark.parametrize(
    ("rate", "rows", "size"),
    [(1.0, 100, 20), (20.0, 500, 200), (10_000.0, 1200, 500), (0.5, 20, 20), (20.0, 1, 200)],
)
def test_chunks_cover_every_row_once(database: Database, jobs: Jobs, rate: float, rows: int, size: int) -> None:
    """Chunk by chunk to the last row, each of about ten seconds of the rate, bounded on both sides."""
    campaign = add_campaign(database, rate=rate)
    batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * rows)
    first_rows = range(2, rows + 2, size)
    for first in first_rows:
        for _ in range(2):
            enqueue_chunk_after(database, jobs, batch_id, min(first + size - 1, rows + 1), rate)
    assert chunks(database) == {f"chunk:{batch_id}:{row}" for row in first_rows}


def test_batches_are_listed_and_counted(database: Database, jobs: Jobs) -> None:
    """By campaign, with what became of their messages; an unknown one is not found."""
    first, second = add_campaign(database), add_campaign(database)
    batch_id = enqueued_batch(database, jobs, first, PEOPLE)
    other = enqueued_batch(database, jobs, second, PEOPLE)
    change_message(database, batch_id, 3, latest_status=MessageStatus.SUCCESS.value)
    assert {batch.id for batch in list_batches(database)} == {batch_id, other}
    assert [batch.id for batch in list_batches(database, campaign_id=first.id)] == [batch_id]
    assert count_messages(database, batch_id) == {MessageStatus.ENQUEUED: 2, MessageStatus.SUCCESS: 1}
    with pytest.raises(NotFoundError, match="There is no batch"):
        get_batch(database, "batch_x")


def test_messages_are_listed_page_by_page(database: Database, jobs: Jobs) -> None:
    """In the order of their rows, of one status or all; an unknown one is not found."""
    batch_id = enqueued_batch(database, jobs, add_campaign(database), PEOPLE)
    change_message(database, batch_id, 3, latest_status=MessageStatus.SENT.value)
    assert [message.row for message in list_messages(database, batch_id=batch_id, limit=2)] == [2, 3]
    assert [message.row for message in list_messages(database, batch_id=batch_id, after_row=3)] == [4]
    sent = list_messages(database, batch_id=batch_id, status=MessageStatus.SENT)
    assert [message.row for message in sent] == [3]
    for unknown in ("message_x", message_id(batch_id, 5)):
        with pytest.raises(NotFoundError, match="There is no message"):
            get_message(database, unknown)
