"""Which attempts were made when, counted by all that a charge depends on. The database counts; few rows come back.

An attempt belongs to the month of its hand-over; one that the provider refused on the spot has no time of that, and
belongs to the month in which it was made, a moment before. What nobody was handed is left out. A report reads the times
of all attempts, 0.2 s a million, rather than that each hand-over writes one more index.
"""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postern.model import Channel, ErrorCode, MessageStatus
from postern.months import Month
from postern.sms.charges import Kind
from postern.sms.recipients import LOCAL_CODE
from postern.sms.simulation import SIMULATOR
from postern.sms.usage import Usage
from storage.database import Database
from storage.ledger.cancelling import NOBODY
from storage.tables import attempts, batches, campaigns, messages

_HANDED_OVER = sa.func.coalesce(attempts.c.sent_at, attempts.c.created_at)
_SAME_MESSAGE = sa.and_(messages.c.batch == attempts.c.batch, messages.c.row == attempts.c.row)


def list_usage(
    database: Database, months: Sequence[Month], zone: ZoneInfo, *, campaign_id: str | None = None
) -> list[Usage]:
    """What was handed over in consecutive months, of all campaigns, deleted ones too, or of one.

    Args:
        database: the database.
        months: the months, in order.
        zone: the time zone in which they begin.
        campaign_id: of this campaign only.
    """
    each = _attempts_of(months, zone, campaign_id).subquery()
    keys = [each.c[name] for name in ("campaign_id", "channel", "month", "status", "error_code", "local", "simulated")]
    counted = (
        sa.func.sum(each.c.is_first).label("messages"),
        sa.func.count().label("attempts"),
        sa.func.sum(each.c.segments).label("segments"),
    )
    query = sa.select(*keys, *counted).group_by(*keys).order_by(*keys)
    with database.read() as connection:
        return [_usage(row, months) for row in connection.execute(query).mappings()]


def _attempts_of(months: Sequence[Month], zone: ZoneInfo, campaign_id: str | None) -> sa.Select[*tuple[Any, ...]]:
    start, end = months[0].start(zone), months[-1].next().start(zone)
    month = sa.case(
        *((later.start(zone) > _HANDED_OVER, place) for place, later in enumerate(months[1:])), else_=len(months) - 1
    )
    query = (
        sa.select(
            batches.c.campaign_id,
            campaigns.c.channel,
            (month if len(months) > 1 else sa.literal(0)).label("month"),
            attempts.c.status,
            attempts.c.error_code,
            _as_number(sa.func.substr(messages.c.recipient, 1, len(LOCAL_CODE)) == LOCAL_CODE).label("local"),
            _as_number(attempts.c.provider == SIMULATOR).label("simulated"),
            _as_number(sa.or_(attempts.c.number == 1, ~_was_handed_over_before())).label("is_first"),
            messages.c.segments,
        )
        .join(messages, _SAME_MESSAGE)
        .join(batches, batches.c.number == attempts.c.batch)
        .join(campaigns, campaigns.c.id == batches.c.campaign_id)
        .where(start <= _HANDED_OVER, end > _HANDED_OVER, attempts.c.provider != NOBODY)
    )
    return query if campaign_id is None else query.where(batches.c.campaign_id == campaign_id)


def _was_handed_over_before() -> sa.Exists:
    """Whether a message has an earlier attempt; asked for retries only, which are few."""
    earlier = attempts.alias("earlier")
    return sa.exists().where(
        earlier.c.batch == attempts.c.batch,
        earlier.c.row == attempts.c.row,
        earlier.c.number < attempts.c.number,
        earlier.c.provider != NOBODY,
    )


def _as_number(condition: sa.ColumnElement[bool]) -> sa.Case[int]:
    return sa.case((condition, 1), else_=0)


def _usage(row: sa.RowMapping, months: Sequence[Month]) -> Usage:
    kind = Kind(
        status=MessageStatus(row["status"]),
        error_code=ErrorCode(row["error_code"]) if row["error_code"] else None,
        channel=Channel(row["channel"]),
        is_local=bool(row["local"]),
        is_simulated=bool(row["simulated"]),
    )
    return Usage(
        campaign_id=row["campaign_id"],
        month=months[row["month"]],
        kind=kind,
        messages=int(row["messages"]),
        attempts=row["attempts"],
        segments=int(row["segments"]),
    )
