"""What the chunks of a file add up to: counts, the first findings, and which values came before.

Small whatever the file is: findings are counted and dropped, and of the rows only hashes of 64 bits are kept, equal
ones once, so that duplicates are found over the whole file.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from pipeline.chunks import ROW
from pipeline.rules import LANGUAGE, MOST_SHOWN, RECIPIENT, SEGMENTS, UNICODE, Judged
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
        self._has_avoidable_character = self._has_unicode = False
        self._by_language: Counter[str] = Counter()
        self._errors, self._warnings = _Findings(columns, offered), _Findings(columns, offered)
        self._recipients, self._rows = _Seen(), _Seen()

    @property
    def is_valid(self) -> bool:
        """Whether no error was found so far."""
        return self._bad_rows == 0

    def add(self, judged: Judged) -> None:
        """Count the next chunk."""
        self._total += judged.total
        self._bad_rows += judged.errors["row"].n_unique()
        self._has_avoidable_character |= judged.has_avoidable_character
        self._errors.add([judged.errors])
        self._warnings.add([judged.warnings, *self._duplicates(judged.rows)])
        if judged.rows.height:
            self._add_rows(judged.rows)

    def verdict(self) -> Verdict:
        """What has been counted."""
        return Verdict(
            is_valid=self.is_valid,
            total_rows=self._total,
            num_rows=self._bad_rows,
            num_errors=self._errors.counts.total(),
            has_avoidable_character=self._has_avoidable_character,
            has_unicode=self._has_unicode,
            by_code=self._errors.by_code(),
            first_errors=self._errors.first,
            warnings=self._warnings.by_code(),
            first_warnings=self._warnings.first,
            rows_by_language={name: self._by_language[name] for name in self._offered if name in self._by_language},
            segments=self._segments,
            local_segments=self._local_segments,
            foreign_segments=self._segments - self._local_segments,
        )

    def _add_rows(self, rows: pl.DataFrame) -> None:
        self.first_row = self.first_row or int(rows[ROW][0])
        self.last_row = int(rows[ROW][-1])
        self._has_unicode |= bool(rows[UNICODE].any())
        offered = rows.filter(pl.col(LANGUAGE).is_in(self._offered))  # the others may be millions
        self._by_language.update(dict(offered[LANGUAGE].value_counts().iter_rows()))
        local = pl.col(RECIPIENT).str.starts_with(LOCAL_CODE)
        sums = rows.select(pl.col(SEGMENTS).sum().alias("all"), pl.col(SEGMENTS).filter(local).sum().alias("local"))
        self._segments += int(sums["all"][0])
        self._local_segments += int(sums["local"][0])

    def _duplicates(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        """Rows with a recipient, or as a whole, that an earlier row has."""
        named = rows.filter(pl.col(RECIPIENT) != "")
        recipients = named.filter(self._recipients.again(named[RECIPIENT].hash()))
        exact = rows.filter(self._rows.again(rows.select(self._columns).hash_rows()))
        return [
            _as_findings(recipients, RECIPIENT, "duplicate_recipient", pl.col(RECIPIENT).str.head(MOST_SHOWN)),
            _as_findings(exact, None, "duplicate_row", pl.lit("")),
        ]


class _Findings:
    """How often each code was found, and the first findings of all."""

    def __init__(self, columns: Sequence[str], offered: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.first: list[Finding] = []
        self._order = {name: place for place, name in enumerate(columns)}
        self._offered = offered

    def add(self, found: Sequence[pl.DataFrame]) -> None:
        """Count findings; those of each frame are in order."""
        for findings in found:
            self.counts.update(dict(findings["code"].value_counts().iter_rows()))
        missing = FIRST - len(self.first)
        if missing:
            place = pl.col("column").replace_strict(self._order, default=len(self._order), return_dtype=pl.UInt32)
            first = pl.concat(findings.head(missing) for findings in found).sort("row", place, "code")
            self.first += _told(first.head(missing), self._offered)

    def by_code(self) -> dict[str, int]:
        """The counts, the largest first."""
        return dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0])))


class _Seen:
    """The hashes of all values so far, each once and sorted."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)

    def again(self, hashes: pl.Series) -> pl.Series:
        """Which of some values came before, and remember them."""
        known, merged = self._hashes, np.sort(np.concatenate((self._hashes, hashes.to_numpy())))
        is_new = np.ones(merged.size, bool)
        np.not_equal(merged[1:], merged[:-1], out=is_new[1:])
        if is_new.all():
            self._hashes = merged
            return pl.repeat(value=False, n=len(hashes), eager=True, dtype=pl.Boolean)
        self._hashes = merged[is_new]
        if known.size == 0:
            return ~hashes.is_first_distinct()
        places = np.minimum(np.searchsorted(known, hashes), known.size - 1)
        return ~hashes.is_first_distinct() | pl.Series(known[places] == hashes.to_numpy())


def _as_findings(rows: pl.DataFrame, column: str | None, code: str, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(row=pl.col(ROW), column=pl.lit(column, dtype=pl.String), code=pl.lit(code), detail=detail)


def _told(findings: pl.DataFrame, offered: Sequence[str]) -> list[Finding]:
    told = findings.with_columns(sentences(findings, offered).alias("sentence"))
    return [
        Finding(code=code, sentence=text, row=row, column=column)
        for row, column, code, text in told.select("row", "column", "code", "sentence").iter_rows()
    ]
