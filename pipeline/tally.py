"""What the chunks of a file add up to: counts, the first findings, and which values came before.

Small whatever the file is: findings are counted and dropped, and of the rows only hashes are kept.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from pipeline.chunks import ROW
from pipeline.findings import FINDINGS
from pipeline.measure import LANGUAGE, RECIPIENT
from pipeline.rules import SEGMENTS, UNICODE, Judged
from pipeline.seen import Seen
from pipeline.sentences import sentences
from postern.model import Finding, Verdict
from postern.sms.recipients import LOCAL_CODE

FIRST = 10  # findings that are told one by one


class Tally:
    """Counts chunk after chunk, in order."""

    def __init__(self, columns: Sequence[str], offered: Sequence[str]) -> None:
        """Take the columns in the order of the file, and the languages of the campaign."""
        self.first_row = self.last_row = 0
        self._columns, self._offered = columns, offered
        self._total = self._bad_rows = self._segments = self._local_segments = 0
        self._has_avoidable_character = self._has_unicode = self._has_missing_recipient = False
        self._by_language: Counter[str] = Counter()
        self._errors, self._warnings = _Findings(columns, offered), _Findings(columns, offered)
        self._recipients, self._rows = Seen(), Seen()

    @property
    def is_valid(self) -> bool:
        """Whether no error was found so far."""
        return self._bad_rows == 0

    def add(self, judged: Judged) -> None:
        """Count the next chunk."""
        self._total += judged.total
        self._bad_rows += judged.errors["row"].n_unique()
        self._has_avoidable_character |= judged.has_avoidable_character
        self._errors.add(judged.errors)
        self._warnings.add(judged.warnings)
        if judged.rows.height:
            self._add_rows(judged.rows)

    def verdict(self) -> Verdict:
        """What has been counted; to be asked once, behind the last chunk."""
        for findings, count in self._duplicates():
            self._warnings.add(findings, count)
        return Verdict(
            is_valid=self.is_valid,
            total_rows=self._total,
            num_rows=self._bad_rows,
            num_errors=self._errors.counts.total(),
            has_avoidable_character=self._has_avoidable_character,
            has_unicode=self._has_unicode,
            by_code=self._errors.by_code(),
            first_errors=self._errors.first(),
            warnings=self._warnings.by_code(),
            first_warnings=self._warnings.first(),
            rows_by_language={name: self._by_language[name] for name in self._offered if self._by_language[name]},
            segments=self._segments,
            local_segments=self._local_segments,
            foreign_segments=self._segments - self._local_segments,
        )

    def _add_rows(self, rows: pl.DataFrame) -> None:
        self.first_row = self.first_row or int(rows[ROW][0])
        self.last_row = int(rows[ROW][-1])
        local = pl.col(RECIPIENT).str.starts_with(LOCAL_CODE)
        sums = rows.select_seq(
            *((pl.col(LANGUAGE) == name).sum().alias(f"in {name}") for name in self._offered),
            all=pl.col(SEGMENTS).sum(),
            local=pl.col(SEGMENTS).filter(local).sum(),
            unicode=pl.col(UNICODE).any(),
            has_missing=(pl.col(RECIPIENT) == "").any(),
        ).row(0, named=True)
        self._segments += sums["all"]
        self._local_segments += sums["local"]
        self._has_unicode |= sums["unicode"]
        self._by_language.update({name: sums[f"in {name}"] for name in self._offered})
        self._rows.add(rows[ROW], rows.select_seq(self._columns).hash_rows())
        self._has_missing_recipient |= sums["has_missing"]
        named = rows.filter(pl.col(RECIPIENT) != "") if sums["has_missing"] else rows
        self._recipients.add(named[ROW], named[RECIPIENT].hash())
        if self._recipients.tidy() or self._has_missing_recipient:  # else all rows are different anyway
            self._rows.tidy()

    def _duplicates(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """The first rows that have a recipient, or are as a whole, as an earlier one, and how many there are."""
        count, first = self._recipients.again()
        yield _told(RECIPIENT, "duplicate_recipient", first), count
        if count or self._has_missing_recipient:
            count, first = self._rows.again()
            yield _told(None, "duplicate_row", first), count


def _told(column: str | None, code: str, first: pl.DataFrame) -> pl.DataFrame:
    kind = {"column": pl.lit(column, dtype=pl.String), "code": pl.lit(code)}
    return first.select_seq("row", **kind, detail=pl.col("earlier").cast(pl.String))


class _Findings:
    """How often each code was found, and the first findings of all."""

    def __init__(self, columns: Sequence[str], offered: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()
        self._order = {name: place for place, name in enumerate(columns)}
        self._offered = offered
        self._first = pl.DataFrame(schema=FINDINGS)

    def add(self, findings: pl.DataFrame, count: int | None = None) -> None:
        """Count findings that are in order; where `count` is given, they are the first of so many of one code."""
        if findings.is_empty():
            return
        if count is None:
            self.counts.update(dict(findings["code"].value_counts().iter_rows()))
        else:
            self.counts[findings["code"][0]] += count
        if self._first.height < FIRST or findings["row"][0] <= self._first["row"][-1]:
            place = pl.col("column").replace_strict(self._order, default=len(self._order), return_dtype=pl.UInt32)
            self._first = pl.concat([self._first, findings.head(FIRST)]).sort("row", place, "code").head(FIRST)

    def first(self) -> list[Finding]:
        """The first ones, told."""
        told = self._first.with_columns_seq(sentence=sentences(self._first, self._offered))
        return [
            Finding(code=code, sentence=text, row=row, column=column)
            for row, column, code, text in told.select_seq("row", "column", "code", "sentence").iter_rows()
        ]

    def by_code(self) -> dict[str, int]:
        """The counts, the largest first."""
        return dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0])))
