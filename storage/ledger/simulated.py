"""Which batches the simulator took messages of, so that nobody takes its deliveries for real ones."""

from collections.abc import Collection

import sqlalchemy as sa

from postern.sms.simulation import SIMULATOR
from storage.database import Database
from storage.tables import attempts, batches

_ENDS = 200  # attempts that are looked at, from the first and from the last row of a batch on


def simulated_batches(database: Database, batch_ids: Collection[str]) -> set[str]:
    """Which of these batches the simulator took something of, for listings.

    A batch is sent in the order of its rows, and gets another provider only where the settings are changed meanwhile,
    or where its file is a small one of the test environment; so its first and its last attempts tell. A full file is
    not read for each line of a list; `count_simulated` counts all.
    """
    is_simulated = sa.or_(*(_end_has_any(order) for order in (attempts.c.row.asc(), attempts.c.row.desc())))
    query = sa.select(batches.c.id).where(batches.c.id.in_(batch_ids), is_simulated)
    with database.read() as connection:
        return set(connection.execute(query).scalars())


def count_simulated(database: Database, batch_id: str) -> int:
    """How many messages of a batch the simulator took, by any of their attempts."""
    query = (
        sa.select(sa.func.count(attempts.c.row.distinct()))
        .join(batches, batches.c.number == attempts.c.batch)
        .where(batches.c.id == batch_id, attempts.c.provider == SIMULATOR)
    )
    with database.read() as connection:
        return connection.execute(query).scalar_one()


def _end_has_any(order: sa.UnaryExpression[int]) -> sa.ColumnElement[bool]:
    of_batch = sa.select(attempts.c.provider).where(attempts.c.batch == batches.c.number)
    end = of_batch.order_by(order).limit(_ENDS).correlate(batches).subquery()
    return sa.exists(sa.select(end.c.provider).where(end.c.provider == SIMULATOR))
