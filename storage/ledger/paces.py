"""Paces: how fast a campaign, and an account at a provider, may send, shared by all workers through a row each.

A pace is GCRA (ITU-T I.371): its theoretical arrival time (TAT) moves on by cost / rate with all that is taken. What
may be taken now is what the clock is ahead of it, and a tenth of a second more. Something urgent borrows: it goes
before its time, and whoever is not urgent waits for that.
"""

from collections.abc import Sequence
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
        paces: campaigns before accounts, so that all lock in one order.
        segments: of the messages that wait, in their order; at least one.
        moment: seconds since the epoch.
        borrow: seconds that something urgent may be ahead of its time.
    """
    tats = {pace: _tat(database, connection, pace, moment, len(segments)) for pace in paces}
    last = max(paces, key=lambda pace: tats[pace])
    if tats[last] > moment + borrow:
        return Grant(wait=tats[last] - moment - borrow, held_by=last.id)
    count = min(_allowed(pace, segments, (moment - tats[pace] + SLICE + borrow) * pace.rate) for pace in paces)
    for pace in paces:
        tats[pace] += (sum(segments[:count]) if pace.counts_segments else count) / pace.rate
        connection.execute(rates.update().where(rates.c.id == pace.id).values(tat=tats[pace]))
    return Grant(count=count, wait=max(0.0, max(tats.values()) - moment - borrow))


def _tat(database: Database, connection: sa.Connection, pace: Pace, moment: float, most: int) -> float:
    """From when on a pace allows something, with no more credit than it keeps; locks its row."""
    connection.execute(database.insert_ignore(rates).values(id=pace.id, tat=0.0))
    tat: float = connection.execute(sa.select(rates.c.tat).where(rates.c.id == pace.id).with_for_update()).scalar_one()
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
