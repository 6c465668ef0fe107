"""Paces: how fast a campaign, and an account at a provider, may send, shared by all workers through a row each.

A pace is GCRA (ITU-T I.371): its theoretical arrival time (TAT) moves on by cost / rate with all that is taken. What
may be taken now is what the clock is ahead of it, and a tenth of a second more. Something urgent borrows: it goes
before its time, and whoever is not urgent waits for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.database import Database
from storage.tables import rates

# Seconds. What a sender that woke up late may catch up with, a change of workers among them, and what is taken ahead:
# together they let a campaign send 1.35 times its rate in any one second, and the whole rate in the long run.
CREDIT = 0.25
SLICE = 0.1
_MOST_SEGMENTS = 20  # of a message
_FARTHEST = 60.0  # seconds that a pace may be ahead of the clock; nothing that is taken moves it so far
# All who move several lock them in the order of their ids.
_LOCK = (
    sa.select(rates.c.id, rates.c.tat)
    .where(rates.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(rates.c.id)
    .with_for_update()
)
_MOVE = rates.update().where(rates.c.id == sa.bindparam("of")).values(tat=sa.bindparam("to"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Whose pace, and how fast."""

    id: str
    rate: float  # a second
    counts_segments: bool = False  # messages otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """How many of the messages that were asked for may go now."""

    count: int = 0
    wait: float = 0.0  # seconds until more may go
    held_by: str = ""  # the pace that says so, where none may go now


def keep_pace(
    database: Database,
    connection: sa.Connection,
    paces: Sequence[Pace],
    segments: Sequence[int],
    moment: float,
    *,
    borrow: float = 0.0,
) -> Grant:
    """Move several paces on by as many of the messages as all of them allow, or by none.

    Args:
        database: the database.
        connection: the transaction that claims; several workers share a pace by the row that it locks.
        paces: whose; a campaign's and its account's.
        segments: of the messages that wait, in their order; at least one.
        moment: seconds since the epoch.
        borrow: seconds that something urgent may be ahead of its time.
    """
    tats = _tats(database, connection, paces, moment, len(segments))
    last = max(paces, key=lambda pace: tats[pace])
    if tats[last] > moment + borrow:
        return Grant(wait=tats[last] - moment - borrow, held_by=last.id)
    count = min(_allowed(pace, segments, (moment - tats[pace] + SLICE + borrow) * pace.rate) for pace in paces)
    for pace in paces:
        tats[pace] += (sum(segments[:count]) if pace.counts_segments else count) / pace.rate
    connection.execute(_MOVE, [{"of": pace.id, "to": tats[pace]} for pace in paces])
    return Grant(count=count, wait=max(0.0, max(tats.values()) - moment - borrow))


def hold_paces(database: Database, connection: sa.Connection, paces: Sequence[Pace]) -> Mapping[str, float]:
    """Lock paces: what another transaction moved them for is committed, or undone, thereafter.

    Returns:
        their theoretical arrival times, in seconds since the epoch, by id.
    """
    ids = {"ids": [pace.id for pace in paces]}
    found = {row.id: row.tat for row in connection.execute(_LOCK, ids)}
    if len(found) < len(paces):
        connection.execute(database.insert_ignore(rates), [{"id": one, "tat": 0.0} for one in sorted(ids["ids"])])
        found = {row.id: row.tat for row in connection.execute(_LOCK, ids)}
    return found


def _tats(
    database: Database, connection: sa.Connection, paces: Sequence[Pace], moment: float, most: int
) -> dict[Pace, float]:
    """From when on paces allow something, with no more credit than they keep; locks their rows."""
    found = hold_paces(database, connection, paces)
    return {pace: _tat(found[pace.id], pace, moment, most) for pace in paces}


def _tat(tat: float, pace: Pace, moment: float, most: int) -> float:
    longest = most * (_MOST_SEGMENTS if pace.counts_segments else 1) / pace.rate
    is_of_another_time = tat > moment + _FARTHEST + longest  # the clock was set back since
    return moment if is_of_another_time else max(tat, moment - CREDIT)


def _allowed(pace: Pace, segments: Sequence[int], leave: float) -> int:
    """How many messages a pace lets go: one at least, or a message of many segments would wait for ever."""
    if not pace.counts_segments:
        return max(1, min(len(segments), int(leave + 1e-6)))
    count, cost = 0, 0
    while count < len(segments) and cost + segments[count] <= leave + 1e-6:
        cost += segments[count]
        count += 1
    return max(1, count)
