"""How Postern writes times: UTC inside, ISO 8601 with milliseconds and the service's offset outside."""

from datetime import MAXYEAR, MINYEAR, UTC, datetime
from zoneinfo import ZoneInfo


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime | None, zone: ZoneInfo) -> str | None:
    """`2024-05-16T16:34:06.582+08:00`, or None for None."""
    return None if moment is None else moment.astimezone(zone).isoformat(timespec="milliseconds")


def from_iso(text: str) -> datetime:
    """Read what `iso` wrote.

    Raises:
        ValueError: the text is no ISO 8601 time, has no offset, or lies in the first or last year of the calendar,
            where some zones have no time for it.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    if not MINYEAR < moment.year < MAXYEAR:
        raise ValueError(f"{text!r} is at the end of the calendar")
    return moment.astimezone(UTC)


def in_words(instant: datetime, zone: ZoneInfo) -> str:
    """`16 May 2024, 16:34:06 (UTC+08:00)`, for people."""
    local = instant.astimezone(zone)
    offset = f"{local:%z}"
    return f"{local.day} {local:%B %Y, %H:%M:%S} (UTC{offset[:3]}:{offset[3:5]})"
