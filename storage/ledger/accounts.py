"""Accounts at providers: how fast all campaigns together may send there, and whether the account takes anything now.

A circuit is closed (messages flow), open until a time (nothing is claimed for the account, by any worker), or half
open after it: one message goes ahead, and what comes of it closes the circuit or opens it for longer. It stands in a
row, so that all workers see it, and outlives them.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from storage.database import Database
from storage.tables import circuits

_PROBE = timedelta(seconds=90)  # longer than any hand-over lasts; then its worker is dead
_CONCERN = timedelta(hours=1)
_WATCH = 1.0  # seconds until the next look while somebody else's message goes ahead


class CircuitState(StrEnum):
    """Whether an account takes messages."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingAccount:
    """What a claim has to know of the account that it is for."""

    id: str  # tells nobody whose it is; whose pace it is
    provider: str  # what attempts are marked with
    rate: float | None = None  # messages a second, over all campaigns; None: as fast as they may
    counts_segments: bool = False  # the rate is one of segments
    simulated: AbstractSet[str] = field(default_factory=frozenset)  # recipients that the simulator gets instead
    simulator: str = "simulator"
    circuit: str = ""  # whose circuit it is, where several have credentials of their own to the account

    @property
    def circuit_id(self) -> str:
        """What its circuit is called: bad credentials of one campaign do not stop the others of its account."""
        return self.circuit or self.id

    def provider_of(self, recipient: str) -> str:
        """Who gets a message to that recipient."""
        return self.simulator if recipient in self.simulated else self.provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """An account that takes nothing now, or did not lately."""

    account_id: str
    state: CircuitState
    failures: int  # in a row
    trouble: str
    detail: str
    opened_at: datetime
    open_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Whether messages may be claimed for an account now."""

    wait: float = 0.0  # seconds until it is worth asking again
    is_probe: bool = False  # one message only, which goes ahead of the others


def leave_to_send(connection: sa.Connection, account_id: str, now: datetime) -> Leave:
    """Ask an account's circuit, within the transaction that claims."""
    query = sa.select(circuits).where(circuits.c.id == account_id, circuits.c.failures > 0)
    if connection.execute(query).first() is None:  # the usual case takes no lock
        return Leave()
    row = connection.execute(query.with_for_update()).mappings().first()
    if row is None:
        return Leave()
    if row["open_until"] > now:
        return Leave(wait=(row["open_until"] - now).total_seconds())
    if row["probed_until"] is not None and row["probed_until"] > now:
        return Leave(wait=_WATCH)
    return Leave(is_probe=True)


def hold_circuit(connection: sa.Connection, account_id: str) -> None:
    """Lock an account's circuit, as every claim does before it locks paces."""
    connection.execute(sa.select(circuits.c.id).where(circuits.c.id == account_id).with_for_update()).all()


def begin_probe(connection: sa.Connection, account_id: str, now: datetime) -> None:
    """The one message that goes ahead is claimed in this transaction."""
    connection.execute(circuits.update().where(circuits.c.id == account_id).values(probed_until=now + _PROBE))


def end_probe(connection: sa.Connection, account_id: str) -> None:
    """The message that went ahead told nothing, or never left; another one may."""
    connection.execute(circuits.update().where(circuits.c.id == account_id).values(probed_until=None))


def open_circuit(
    database: Database,
    account_id: str,
    *,
    trouble: str,
    detail: str,
    pause: Callable[[int], float],
    now: datetime,
) -> Circuit:
    """Let an account rest.

    Args:
        database: the database.
        account_id: the account.
        trouble: why, in a word.
        detail: what the provider said, for operators.
        pause: seconds to rest, by how many failures there were in a row, this one included.
        now: the time.
    """
    with database.write() as connection:
        connection.execute(
            database.insert_ignore(circuits).values(
                id=account_id, failures=0, trouble=trouble, detail=detail, opened_at=now, open_until=now
            )
        )
        row = (
            connection.execute(sa.select(circuits).where(circuits.c.id == account_id).with_for_update())
            .mappings()
            .one()
        )
        # Slices that were on their way together are one failure, not many.
        open_until = row["open_until"] if row["failures"] else now  # one that was closed has no rest left
        failures = row["failures"] + (open_until <= now)
        until = max(now + timedelta(seconds=pause(failures)), open_until)
        opened_at = row["opened_at"] if row["failures"] else now
        connection.execute(
            circuits.update()
            .where(circuits.c.id == account_id)
            .values(
                failures=failures,
                trouble=trouble,
                detail=detail,
                opened_at=opened_at,
                open_until=until,
                probed_until=None,
            )
        )
    return Circuit(
        account_id=account_id,
        state=CircuitState.OPEN,
        failures=failures,
        trouble=trouble,
        detail=detail,
        opened_at=opened_at,
        open_until=until,
    )


def close_circuit(database: Database, account_id: str) -> None:
    """Messages flow again."""
    with database.write() as connection:
        connection.execute(circuits.update().where(circuits.c.id == account_id).values(failures=0, probed_until=None))


def list_circuits(database: Database, *, now: datetime) -> list[Circuit]:
    """The accounts that take nothing now, or have not taken anything since they did not; none where all is well.

    One that nobody has sent by since an hour after its rest is of no concern.
    """
    is_of_concern = sa.and_(circuits.c.failures > 0, circuits.c.open_until > now - _CONCERN)
    query = sa.select(circuits).where(is_of_concern).order_by(circuits.c.opened_at)
    with database.read() as connection:
        return [
            Circuit(
                account_id=row["id"],
                state=CircuitState.OPEN if row["open_until"] > now else CircuitState.HALF_OPEN,
                failures=row["failures"],
                trouble=row["trouble"],
                detail=row["detail"],
                opened_at=row["opened_at"],
                open_until=row["open_until"],
            )
            for row in connection.execute(query).mappings()
        ]
