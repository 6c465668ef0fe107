"""Calendar months in the service's time zone, and the billing year, which runs from February to January."""

import re
from calendar import month_name
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from zoneinfo import ZoneInfo

from typing_extensions import override

from postern.errors import Refusal

_FIRST_OF_YEAR = 2  # the billing year's first month
_MONTHS = 12
_WRITTEN = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_YEAR = re.compile(r"[0-9]{4}")


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A month of the calendar."""

    year: int
    number: int  # 1 to 12

    @override
    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

    @property
    def words(self) -> str:
        """`November 2026`, for people."""
        return f"{month_name[self.number]} {self.year}"

    def next(self) -> "Month":
        """The month after it."""
        return Month(self.year + self.number // _MONTHS, self.number % _MONTHS + 1)

    def start(self, zone: ZoneInfo) -> datetime:
        """Its first moment in that zone, in UTC; it ends where the next one starts."""
        return datetime(self.year, self.number, 1, tzinfo=zone).astimezone(UTC)


def month_of(moment: datetime, zone: ZoneInfo) -> Month:
    """The month that a moment belongs to, as a calendar in that zone shows it."""
    local = moment.astimezone(zone)
    return Month(local.year, local.month)


def read_month(text: str) -> Month:
    """Read `2026-11`.

    Raises:
        Refusal: it is no month.
    """
    found = _WRITTEN.fullmatch(text)
    if not found or not MINYEAR < int(found[1]) < MAXYEAR:
        raise Refusal("month_invalid", f"{text!r} is no month; write it as year and month, such as 2026-11.")
    return Month(int(found[1]), int(found[2]))


def read_year(text: str) -> int:
    """Read the year in which a billing year begins, `2026`.

    Raises:
        Refusal: it is no year.
    """
    if not _YEAR.fullmatch(text) or not MINYEAR < int(text) < MAXYEAR - 1:
        raise Refusal("year_invalid", f"{text!r} is no year; write the one in which the billing year begins, as 2026.")
    return int(text)


def billing_year_of(month: Month) -> int:
    """The year in which the billing year of a month begins: that of January 2027 is 2026."""
    return month.year if month.number >= _FIRST_OF_YEAR else month.year - 1


def billing_year(year: int) -> Sequence[Month]:
    """The twelve months of a billing year, from February of `year` to January of the next."""
    months = [Month(year, _FIRST_OF_YEAR)]
    while len(months) < _MONTHS:
        months.append(months[-1].next())
    return tuple(months)
