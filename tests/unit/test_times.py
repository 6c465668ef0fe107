"""How times are written and read."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern.times import from_iso, iso, utc_now

SINGAPORE = ZoneInfo("Asia/Singapore")


def test_a_time_is_written_with_milliseconds_and_offset() -> None:
    """As the contract shows it."""
    moment = datetime(2024, 5, 16, 8, 34, 6, 582_999, tzinfo=UTC)
    assert iso(moment, SINGAPORE) == "2024-05-16T16:34:06.582+08:00"
    assert iso(moment, ZoneInfo("UTC")) == "2024-05-16T08:34:06.582+00:00"


def test_milliseconds_are_written_where_there_are_none() -> None:
    """So that all times have the same length."""
    assert iso(datetime(2024, 5, 16, tzinfo=UTC), SINGAPORE) == "2024-05-16T08:00:00.000+08:00"


def test_no_time_is_no_text() -> None:
    """None stays None."""
    assert iso(None, SINGAPORE) is None


def test_now_is_aware_and_in_utc() -> None:
    """Naive times do not exist here."""
    assert utc_now().utcoffset() == timedelta(0)


@given(st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9998, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_what_was_written_can_be_read(moment: datetime) -> None:
    """To the millisecond, in UTC, whatever the zone."""
    read = from_iso(moment.isoformat(timespec="milliseconds"))
    assert read.utcoffset() == timedelta(0)
    assert timedelta(0) <= moment - read < timedelta(milliseconds=1)


@pytest.mark.parametrize("time", ["16:34:06.582+08:00", "08:34:06.582Z", "08:34:06.582+00:00", "03:04:06.582-05:30"])
def test_any_offset_is_read(time: str) -> None:
    """What is read is in UTC."""
    assert from_iso(f"2024-05-16T{time}") == datetime(2024, 5, 16, 8, 34, 6, 582_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2024-05-16T16:34:06.582",
        "2024-02-30T00:00:00+00:00",
        "0001-01-01T00:00:00+08:00",
        "9999-12-31T23:59:59+00:00",
        "9999-12-31T23:59:59-08:00",
    ],
)
def test_other_text_is_no_time(text: str) -> None:
    """Nor are times without an offset, or so early or late that a zone has none for them."""
    with pytest.raises(ValueError, match=r".+"):
        from_iso(text)


@pytest.mark.parametrize(
    ("text", "zone", "shown"),
    [
        ("0002-01-01T00:00:00+14:00", "Etc/GMT+12", "0001-12-30T22:00:00.000-12:00"),
        ("9998-12-31T23:59:59.999-12:00", "Pacific/Kiritimati", "9999-01-02T01:59:59.999+14:00"),
    ],
)
def test_every_time_that_is_read_can_be_shown(text: str, zone: str, shown: str) -> None:
    """Also in the zones furthest from each other."""
    assert iso(from_iso(text), ZoneInfo(zone)) == shown
