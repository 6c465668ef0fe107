"""The index of messages by their ids, on both databases: a message is found before, while and after it is written."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import (
    RECIPIENT,
    add_campaign,
    change,
    count,
    enqueued_batch,
    message_id,
    validating_upload,
    write_batch,
)

from postern.errors import NotFoundError
from postern.model import BatchStatus, IdKind, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.message_index import index_messages
from storage.ledger.messages import Message, get_message
from storage.tables import batches, message_ids, messages

pytest_plugins = ["support.databases"]

ROWS = 120


@pytest.fixture
def batch_id(database: Database, jobs: Jobs) -> str:
    """A batch that was just enqueued."""
    return enqueued_batch(database, jobs, add_campaign(database), [RECIPIENT] * ROWS)


def is_indexed(database: Database, batch_id: str) -> bool:
    with database.read() as connection:
        return connection.execute(sa.select(batches.c.is_indexed).where(batches.c.id == batch_id)).scalar_one()


def found(database: Database, batch_id: str) -> list[Message]:
    return [get_message(database, message_id(batch_id, row)) for row in range(2, ROWS + 2)]


def test_a_message_is_found_with_and_without_the_index(database: Database, jobs: Jobs, batch_id: str) -> None:
    """A caller sees no difference; ids of other rows and batches are not found."""
    other = enqueued_batch(database, jobs, add_campaign(database), [RECIPIENT])
    before = found(database, batch_id)
    assert [message.row for message in before] == list(range(2, ROWS + 2))
    assert (count(database, message_ids), is_indexed(database, batch_id)) == (0, False)
    assert index_messages(database, batch_id) == ROWS
    assert (count(database, message_ids), is_indexed(database, batch_id)) == (ROWS, True)
    assert found(database, batch_id) == before
    assert get_message(database, message_id(other, 2)).batch_id == other
    for unknown in (message_id(batch_id, 1), message_id(batch_id, ROWS + 2), message_id(other, 3)):
        with pytest.raises(NotFoundError):
            get_message(database, unknown)


def test_the_index_is_searched_not_read_through(sqlite_url: str) -> None:
    """SQLite knows no statistics, and would rather go through all of it."""
    database = Database(sqlite_url)
    seen = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        seen.append((statement, parameters))

    with pytest.raises(NotFoundError):
        get_message(database, new_id(IdKind.MESSAGE))
    ((statement, parameters),) = [one for one in seen if "FROM batches JOIN message_ids" in one[0].replace("\n", "")]
    with database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[-1] for row in plan if "message_ids" in row[-1]] == [
        "SEARCH message_ids USING PRIMARY KEY (batch=? AND head=?)"
    ]
    database.dispose()


def test_a_row_that_is_not_there_is_not_found_without_the_index(database: Database, jobs: Jobs) -> None:
    """Between the first and the last row of a batch may be empty lines, or rows that are still to be written."""
    batch_id = write_batch(database, validating_upload(database, jobs, add_campaign(database)), [RECIPIENT] * 3)
    with database.write() as connection:
        connection.execute(messages.delete().where(messages.c.row == 3))
    assert get_message(database, message_id(batch_id, 4)).row == 4
    with pytest.raises(NotFoundError):
        get_message(database, message_id(batch_id, 3))


def test_what_is_missing_of_an_index_is_added(database: Database, batch_id: str) -> None:
    """Whichever rows of it a dead worker has left; doing it again changes nothing."""
    before = found(database, batch_id)
    index_messages(database, batch_id)
    with database.write() as connection:
        connection.execute(message_ids.delete().where(sa.or_(message_ids.c.row % 3 == 0, message_ids.c.row > 70)))
    change(database, batches, batch_id, is_indexed=False)
    assert found(database, batch_id) == before
    assert [index_messages(database, batch_id) for _ in range(2)] == [ROWS, 0]
    assert count(database, message_ids) == ROWS
    assert found(database, batch_id) == before


def test_workers_that_write_one_index_at_once_write_it_once(database: Database, batch_id: str) -> None:
    """One that was taken for dead goes on beside the one that took over; neither fails."""
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: index_messages(database, batch_id), range(3)))
    assert set(done) <= {0, ROWS}
    assert (count(database, message_ids), is_indexed(database, batch_id)) == (ROWS, True)


def test_a_batch_that_may_get_more_messages_is_not_indexed(database: Database, jobs: Jobs) -> None:
    """One that is closed without being enqueued is."""
    batch_id = write_batch(database, validating_upload(database, jobs, add_campaign(database)), [RECIPIENT] * 3)
    assert index_messages(database, batch_id) == 0
    assert (count(database, message_ids), is_indexed(database, batch_id)) == (0, False)
    change(database, batches, batch_id, status=BatchStatus.MESSAGES_ENQUEUING_FAILED.value)
    assert index_messages(database, batch_id) == 3
    assert is_indexed(database, batch_id)
