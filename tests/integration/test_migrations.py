"""Migrations, on both databases: they make the tables that the code knows, however often and by however many."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from support.domain import NOW, RECIPIENT, SECOND, SIMULATOR, add_campaign, count, message_id, open_ids
from support.postgresql import Cluster

import storage.migrate
import storage.migrations
from postern.errors import PosternError, TransientError
from postern.model import IdKind, new_id, uuid_of
from storage.database import Database
from storage.engine import Jobs, migrate_engine
from storage.jobs import SEND_NOTICE
from storage.ledger import audit
from storage.ledger.batches import get_batch
from storage.ledger.claiming import claim
from storage.ledger.message_ids import head_of
from storage.ledger.message_index import index_messages
from storage.ledger.messages import get_message, list_messages
from storage.migrate import HEAD, ensure_migrated, is_current, migrate
from storage.tables import audit as audit_table
from storage.tables import batches, campaigns, message_ids, metadata

pytest_plugins = ["support.databases"]

MIGRATE = """
import sys
from storage.database import Database
from storage.migrate import ensure_migrated, migrate
database = Database(sys.argv[1])
(ensure_migrated if database.is_sqlite else migrate)(database)
database.dispose()
"""


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database that nothing has touched yet."""
    database = Database(empty_url)
    yield database
    database.dispose()


def ours(_object: object, name: str | None, kind: str, reflected: bool, _compare_to: object) -> bool:
    """Whether alembic looks at it: on SQLite the engine's tables are in the same database."""
    return kind != "table" or not reflected or name in metadata.tables


def tables_of(database: Database) -> set[str]:
    with database.read() as connection:
        return set(sa.inspect(connection).get_table_names())


def test_the_migrated_schema_is_that_of_the_code(database: Database) -> None:
    """Alembic finds nothing to add, remove or change."""
    options: dict[str, Any] = {"include_object": ours, "compare_type": True, "compare_server_default": True}
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_comparison_would_find_a_difference(database: Database) -> None:
    """The test above is no test if it finds nothing ever."""
    with database.write() as connection:
        connection.execute(sa.text("DROP INDEX ix_uploads_status"))
        connection.execute(sa.text("ALTER TABLE batches ADD COLUMN extra INTEGER"))
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        found = compare_metadata(context, metadata)
    assert {difference[0] for difference in found} == {"add_index", "remove_column"}


def test_constraints_have_the_names_of_the_code(database: Database) -> None:
    """A later migration can only change what it can name."""
    with database.read() as connection:
        inspected = sa.inspect(connection)
        for name, table in metadata.tables.items():
            unique = {constraint["name"] for constraint in inspected.get_unique_constraints(name)}
            foreign = {key["name"] for key in inspected.get_foreign_keys(name)}
            wanted = [constraint for constraint in table.constraints if constraint.name]
            assert unique == {str(one.name) for one in wanted if isinstance(one, sa.UniqueConstraint)}
            assert foreign == {str(one.name) for one in wanted if isinstance(one, sa.ForeignKeyConstraint)}


def test_migrations_are_one_line_to_the_head_that_the_code_knows() -> None:
    """A migration that is added moves the constant, and no two have the same parent."""
    (folder,) = storage.migrations.__path__
    scripts = ScriptDirectory(folder)
    assert scripts.get_heads() == [HEAD]


def test_migrating_twice_is_harmless(empty: Database) -> None:
    """What is in the tables stays, and the engine's tables are there as well."""
    assert not is_current(empty)
    migrate(empty)
    campaign = add_campaign(empty)
    jobs = Jobs(empty.url)
    with empty.write() as connection:
        jobs.enqueue(connection, SEND_NOTICE, "job", "argument")
    jobs.close()
    migrate(empty)
    ensure_migrated(empty)
    assert is_current(empty)
    assert count(empty, campaigns) == 1
    assert audit.list_audit(empty)[0]["subject"] == campaign.id


def test_a_half_done_migration_is_finished(empty: Database) -> None:
    """A crash after the engine's tables and before ours leaves work for the next try."""
    migrate_engine(empty.url)
    assert not is_current(empty)
    migrate(empty)
    assert is_current(empty)
    assert set(metadata.tables) <= tables_of(empty)


def test_a_failed_migration_leaves_none_of_our_tables(empty: Database) -> None:
    """All of a migration or nothing of it; once the obstacle is gone it goes through."""
    with empty.write() as connection:
        connection.execute(sa.text("CREATE TABLE messages (id INTEGER)"))
    with pytest.raises((sa.exc.ProgrammingError, TransientError), match="messages"):
        migrate(empty)
    assert not is_current(empty)
    assert tables_of(empty) & set(metadata.tables) == {"messages"}
    with empty.write() as connection:
        connection.execute(sa.text("DROP TABLE messages"))
    migrate(empty)
    assert is_current(empty)


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    """Four roles on a fresh database: all of them go on, none sees half a schema."""
    roles = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, empty_url], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ends = [(role.communicate(timeout=60)[1], role.returncode) for role in roles]
    assert ends == [("", 0)] * 4
    database = Database(empty_url)
    assert is_current(database)
    database.dispose()


def test_threads_that_migrate_at_once_migrate_once(empty: Database) -> None:
    """The lock is given back, so nobody waits for ever."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: migrate(empty), range(4)))
    other = Database(empty.url)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(migrate, other).result(timeout=20)
    assert is_current(empty)
    other.dispose()


def test_postgresql_is_not_migrated_unasked(postgresql: Cluster) -> None:
    """Roles refuse to start, and name the command."""
    name = postgresql.create()
    database = Database(postgresql.url(name))
    with pytest.raises(PosternError, match="postern db migrate"):
        ensure_migrated(database)
    assert tables_of(database) == set()
    database.dispose()
    postgresql.drop(name)


def test_sqlite_is_migrated_by_whoever_starts_first(tmp_path: Path) -> None:
    """The embedded default needs no step of its own."""
    database = Database(f"sqlite:///{tmp_path / 'home' / 'postern.db'}")
    ensure_migrated(database)
    assert is_current(database)
    database.dispose()


def test_a_database_that_is_away_is_told_in_a_sentence() -> None:
    """A role that starts meanwhile says what is wrong."""
    database = Database("postgresql://postern@127.0.0.1:1/none")
    for start in (ensure_migrated, migrate):
        with pytest.raises(PosternError, match="The database did not answer"):
            start(database)
    database.dispose()


def test_messages_of_the_first_tables_are_kept(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches with messages and an attempt come through, in the shape that the ledger reads and sends."""
    monkeypatch.setattr(storage.migrate, "HEAD", "0001")
    migrate(empty)
    assert is_current(empty)
    campaign_id = add_campaign(empty).id
    batch_ids = [fill_first_tables(empty, campaign_id, made=made) for made in range(2)]
    monkeypatch.undo()
    assert not is_current(empty)
    migrate(empty)
    assert is_current(empty)
    assert "old_messages" not in tables_of(empty)
    for made, batch_id in enumerate(batch_ids):
        batch = get_batch(empty, batch_id)
        assert (batch.campaign_id, batch.created_at) == (campaign_id, NOW + made * SECOND)
        found = list_messages(empty, batch_id=batch_id)
        assert [(one.row, one.id) for one in found] == [(row, message_id(batch_id, row)) for row in (2, 3, 4)]
        assert [get_message(empty, one.id) for one in found] == found
        (attempt,) = found[0].attempts
        assert (found[0].recipient, found[0].values, attempt.number) == (RECIPIENT, {"name": "Emily"}, 1)
        assert open_ids(empty, batch_id) == [attempt.id]
        rest = claim(empty, batch_id=batch_id, rows=(2, 4), rate=10, most=9, account=SIMULATOR, now=NOW + made * SECOND)
        assert [one.message_id for one in rest.messages] == [found[1].id, found[2].id]


def fill_first_tables(database: Database, campaign_id: str, *, made: int) -> str:
    """A batch of three messages, one of them on its way, as the first version has written them."""
    batch_id, at = new_id(IdKind.BATCH), NOW + made * SECOND
    fields = {"batch": batch_id, "campaign": campaign_id, "at": at.replace(tzinfo=None) if database.is_sqlite else at}
    message = {**fields, "recipient": RECIPIENT, "values": '{"name": "Emily"}'}
    attempt = {"id": new_id(IdKind.ATTEMPT), "message": message_id(batch_id, 2), "at": fields["at"]}
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO batches (id, campaign_id, status, total, first_row, last_row, created_at, updated_at) "
                "VALUES (:batch, :campaign, 'messages_enqueued', 3, 2, 4, :at, :at)"
            ),
            fields,
        )
        for row, status, attempts in ((4, "enqueued", 0), (2, "sending", 1), (3, "enqueued", 0)):
            connection.execute(
                sa.text(
                    "INSERT INTO messages VALUES (:id, :batch, :row, :campaign, :recipient, 'english', :values, "
                    ":status, :attempts, 1, :at, :at)"
                ),
                {**message, "id": message_id(batch_id, row), "row": row, "status": status, "attempts": attempts},
            )
        connection.execute(
            sa.text(
                "INSERT INTO attempts (id, message_id, number, status, claim, provider, external_id, inferred, "
                "created_at, updated_at) VALUES (:id, :message, 1, 'sending', 'x', 'x', '', false, :at, :at)"
            ),
            attempt,
        )
    return batch_id


@pytest.mark.parametrize(
    ("status", "indexed", "is_indexed"),
    [
        ("messages_enqueued", 3, True),
        ("cancelled", 3, True),
        ("messages_enqueuing", 0, False),
        ("messages_enqueuing", 3, False),  # its worker may still add rows
        ("messages_enqueuing_failed", 1, False),
    ],
)
def test_messages_with_ids_of_their_own_are_kept(
    empty: Database, monkeypatch: pytest.MonkeyPatch, status: str, indexed: int, is_indexed: bool
) -> None:
    """A batch and an attempt come through, and each message is found, whatever there is of the index of ids."""
    monkeypatch.setattr(storage.migrate, "HEAD", "0002")
    migrate(empty)
    batch_id = new_id(IdKind.BATCH)
    fill_second_tables(empty, add_campaign(empty).id, batch_id, status=status, indexed=indexed)
    monkeypatch.undo()
    migrate(empty)
    assert is_current(empty)
    found = list_messages(empty, batch_id=batch_id)
    assert [get_message(empty, message_id(batch_id, row)) for row in (2, 3, 4)] == found
    assert [(one.latest_status, one.num_attempts) for one in found] == [
        ("sending", 1),
        ("enqueued", 0),
        ("enqueued", 0),
    ]
    assert {(one.recipient, one.created_at, one.updated_at) for one in found} == {
        (RECIPIENT, NOW + SECOND, NOW + SECOND)
    }
    assert [attempt.number for one in found for attempt in one.attempts] == [1]
    with empty.read() as connection:
        assert connection.execute(sa.select(batches.c.is_indexed)).scalar_one() is is_indexed
    index_messages(empty, batch_id)
    assert [get_message(empty, one.id) for one in found] == found
    assert count(empty, message_ids) == (indexed if status == "messages_enqueuing" else 3)


def fill_second_tables(database: Database, campaign_id: str, batch_id: str, *, status: str, indexed: int) -> None:
    """A batch of three messages, one of them on its way; the index has so many of them."""
    times = [at.replace(tzinfo=None) if database.is_sqlite else at for at in (NOW, NOW + SECOND)]
    fields = {"batch": batch_id, "campaign": campaign_id, "at": times[0], "later": times[1], "status": status}
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO batches (id, number, campaign_id, status, total, first_row, last_row, created_at, "
                "updated_at) VALUES (:batch, 1, :campaign, :status, 3, 2, 4, :at, :at)"
            ),
            fields,
        )
        for row, latest_status, attempts in ((4, "enqueued", 0), (2, "sending", 1), (3, "enqueued", 0)):
            uuid = uuid_of(message_id(batch_id, row))
            message = {
                "id": uuid.bytes if database.is_sqlite else uuid,
                "row": row,
                "recipient": RECIPIENT,
                "status": latest_status,
                "attempts": attempts,
                "at": times[1],
            }
            connection.execute(
                sa.text(
                    "INSERT INTO messages VALUES (1, :row, :id, :recipient, 'english', '{}', :status, :attempts, 1, "
                    ":at, :at)"
                ),
                message,
            )
            if row < 2 + indexed:
                head = head_of(message_id(batch_id, row))
                connection.execute(
                    sa.text("INSERT INTO message_ids VALUES (1, :head, :row)"), {"head": head, "row": row}
                )
        connection.execute(
            sa.text(
                "INSERT INTO attempts (id, message_id, batch, row, number, status, claim, provider, external_id, "
                "inferred, created_at, updated_at) "
                "VALUES (:id, :message, 1, 2, 1, 'sending', 'x', 'x', '', false, :at, :at)"
            ),
            {"id": new_id(IdKind.ATTEMPT), "message": message_id(batch_id, 2), "at": times[0]},
        )


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_audit_trail_is_append_only(database: Database, statement: str) -> None:
    """The database itself refuses to change or delete a row, and adds the next one."""
    add_campaign(database)
    before = audit.list_audit(database)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), database.engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert audit.list_audit(database) == before
    add_campaign(database)
    assert count(database, audit_table) == 2


def test_the_audit_trail_cannot_be_truncated(postgresql_url: str) -> None:
    """PostgreSQL's TRUNCATE is no DELETE; it is refused as well."""
    database = Database(postgresql_url)
    add_campaign(database)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), database.write() as connection:
        connection.execute(sa.text("TRUNCATE audit"))
    assert count(database, audit_table) == 1
    database.dispose()
