"""Months as a calendar in the service's time zone shows them, and the billing year."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from postern.errors import Refusal
from postern.months import Month, billing_year, billing_year_of, month_of, read_month, read_year

SINGAPORE = ZoneInfo("Asia/Singapore")
LONDON = ZoneInfo("Europe/London")


@pytest.mark.parametrize(
    ("zone", "month", "start"),
    [
        (SINGAPORE, Month(2026, 11), datetime(2026, 10, 31, 16, tzinfo=UTC)),
        (SINGAPORE, Month(2027, 1), datetime(2026, 12, 31, 16, tzinfo=UTC)),
        (LONDON, Month(2026, 4), datetime(2026, 3, 31, 23, tzinfo=UTC)),  # summer time
        (LONDON, Month(2026, 11), datetime(2026, 11, 1, tzinfo=UTC)),
        (ZoneInfo("America/New_York"), Month(2026, 11), datetime(2026, 11, 1, 4, tzinfo=UTC)),  # it ends that day
    ],
)
def test_a_month_begins_at_midnight_there(zone: ZoneInfo, month: Month, start: datetime) -> None:
    """The moment before belongs to the month before."""
    assert month.start(zone) == start
    assert month_of(start, zone) == month
    before = month_of(start - timedelta(microseconds=1), zone)
    assert before.next() == month


def test_a_billing_year_runs_from_february_to_january() -> None:
    """Twelve months in order, each of them of that year."""
    months = billing_year(2026)
    assert [str(month) for month in months] == [*(f"2026-{number:02}" for number in range(2, 13)), "2027-01"]
    assert {billing_year_of(month) for month in months} == {2026}
    assert billing_year_of(Month(2026, 1)) == 2025
    assert billing_year_of(months[-1].next()) == 2027


def test_months_are_read_as_they_are_written() -> None:
    """And have words for people."""
    month = read_month("2026-09")
    assert (str(month), month.words) == ("2026-09", "September 2026")
    assert read_year("2026") == 2026


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-1", "2026-00", "2026-13", "26-01", "2026-01-01", "2026/01", "0001-01", "9999-12", "２０２６-01"],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    """With how one is written; the ends of the calendar are none, because some zones have no time for them."""
    with pytest.raises(Refusal, match="is no month; write it as year and month, such as 2026-11"):
        read_month(text)


@pytest.mark.parametrize("text", ["", "26", "2026-27", "20266", "now", "0001", "9998", "9999"])
def test_what_is_no_year_is_refused(text: str) -> None:
    """With how one is written."""
    with pytest.raises(Refusal, match="is no year"):
        read_year(text)
