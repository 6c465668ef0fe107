"""Many values as one parameter, and many rows as one value, on both databases."""

import itertools
import json
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import NOW

from storage.database import Database
from storage.lists import among, as_one, each_of_these_rows, listed, pairs, rows_of
from storage.tables import circuits

pytest_plugins = ["support.databases"]

ODD = ["plain", 'quo"te', "back\\slash", "{brace, comma}", "line\nend", "வணக்கம் 😀", "NULL", " "]


@pytest.fixture
def filled(database: Database) -> Database:
    """A row for each odd text, numbered."""
    rows = [
        {"id": name, "failures": at, "trouble": "none", "detail": "", "opened_at": NOW, "open_until": NOW}
        for at, name in enumerate(ODD)
    ]
    with database.write() as connection:
        connection.execute(circuits.insert(), rows)
    return database


@pytest.mark.parametrize("asked", [ODD, ODD[:1], ["not there", ODD[2]], []])
def test_texts_among_others(filled: Database, asked: list[str]) -> None:
    """Those that are there, whatever stands in them, and no others."""
    with filled.read() as connection:
        query = sa.select(circuits.c.id).where(among(connection.dialect.name, circuits.c.id, "ids"))
        found = connection.execute(query, {"ids": listed(connection, asked)}).scalars().all()
    assert set(found) == set(asked) & set(ODD)


def test_numbers_among_others(filled: Database) -> None:
    """Negative, large and missing ones too; one statement serves any count of them."""
    with filled.read() as connection:
        query = sa.select(circuits.c.failures).where(among(connection.dialect.name, circuits.c.failures, "numbers"))
        for asked in ([-1, 3, 2_000_000_000], list(range(5_000)), [7]):
            found = connection.execute(query, {"numbers": listed(connection, asked)}).scalars().all()
            assert set(found) == set(asked) & set(range(len(ODD)))


def test_each_row_gets_its_own_text(filled: Database) -> None:
    """An update of many rows at once touches those that are named, with what is said of each."""
    told = {name: name[::-1] for name in ODD[:-1]} | {"not there": "x"}
    with filled.write() as connection:
        taken = pairs(connection.dialect.name, "taken")
        update = circuits.update().where(circuits.c.id == taken.c.key).values(detail=taken.c.value)
        assert connection.execute(update, {"taken": json.dumps(told)}).rowcount == len(ODD) - 1
        found = dict(connection.execute(sa.select(circuits.c.id, circuits.c.detail)).all())
    assert found == {**{name: name[::-1] for name in ODD[:-1]}, ODD[-1]: ""}


@pytest.mark.parametrize("rows", [[7], [9, 2, 5], [1, 500, 2, 10_000, 501], list(range(1, 3_000, 199))])
def test_rows_that_lie_far_apart(database: Database, rows: list[int]) -> None:
    """Each stands in one list, whose bounds hold little else; on SQLite, which looks up each, they are one list."""
    with database.read() as connection:
        lists = [listed_rows(these) for these in each_of_these_rows(connection, rows)]
    assert sorted(row for each in lists for row in each) == sorted(rows)
    assert all(b - a <= 200 for each in lists for a, b in itertools.pairwise(sorted(each))) or database.is_sqlite
    assert len(lists) == (1 if database.is_sqlite else {1: 1, 3: 1, 5: 3, 16: 1}[len(rows)])


def listed_rows(these: dict[str, Any]) -> list[int]:
    if isinstance(these["rows"], str):
        return list(json.loads(these["rows"]))
    assert (these["first_row"], these["last_row"]) == (min(these["rows"]), max(these["rows"]))
    return list(these["rows"])


def test_rows_are_the_same_as_one_value(filled: Database) -> None:
    """In their order, with their types; none where there is none."""
    query = sa.select(circuits.c.failures, circuits.c.id).where(circuits.c.failures >= sa.bindparam("least"))
    query = query.order_by(circuits.c.failures.desc()).with_for_update()
    with filled.write() as connection:
        whole = as_one(connection.dialect.name, query)
        found = [tuple(row) for row in rows_of(connection, whole, {"least": 2})]
        assert rows_of(connection, whole, {"least": len(ODD)}) == []
    assert found == [(at, ODD[at]) for at in range(len(ODD) - 1, 1, -1)]
