"""One file, start to end: bytes in, a verdict out, with the report or the rows of the messages beside it.

Runs in a process of its own (`pipeline.child`); knows no database, no blob store and no clock. A file goes through
in chunks, and what is kept of them is small: findings, and of each row its recipient and a hash.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline import csvfile
from pipeline.chunks import ROW, SIZE, chunks
from pipeline.csvfile import Fault, Record
from pipeline.header import check_header
from pipeline.report import report_fault, report_rows
from pipeline.rules import FINDINGS, LANGUAGE, RECIPIENT, SEGMENTS, UNICODE, Judged, judge
from pipeline.ruleset import Ruleset
from pipeline.sentences import sentences
from postern.model import Finding, Verdict
from postern.sms.recipients import LOCAL_CODE

FIRST = 10  # findings that are told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What validation has made of a file."""

    verdict: Verdict
    first_row: int = 0
    last_row: int = 0


@dataclass(slots=True, kw_only=True)
class Collected:
    """What the chunks of a file add up to."""

    errors: list[pl.DataFrame] = field(default_factory=lambda: [pl.DataFrame(schema=FINDINGS)])
    warnings: list[pl.DataFrame] = field(default_factory=lambda: [pl.DataFrame(schema=FINDINGS)])
    rows: list[pl.DataFrame] = field(default_factory=list)  # ROW, RECIPIENT, and hashes of recipient and row
    total: int = 0
    has_avoidable_character: bool = False
    has_unicode: bool = False
    by_language: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    local_segments: int = 0

    @property
    def is_valid(self) -> bool:
        return all(found.is_empty() for found in self.errors)


def validate(
    data: bytes, rules: Ruleset, *, report: Path | None, messages: Path | None, chunk_size: int = SIZE
) -> Outcome:
    """Judge a file.

    Args:
        data: the whole file.
        rules: what to judge it by.
        report: where the report goes when the file is not valid; None for no report.
        messages: a folder for the rows when it is valid (Arrow IPC files in order: row, recipient, language, values
            as JSON, segments); None where nobody wants them.
        chunk_size: bytes that go through at once.
    """
    try:
        columns, collected = read(data, rules, messages=messages, chunk_size=chunk_size)
    except Fault as fault:
        if report is not None:
            report_fault(report, data, fault)
        return Outcome(verdict=_faulty(fault.finding))
    order = {name: place for place, name in enumerate(columns)}
    errors = _sorted(collected.errors, order)
    warnings = _sorted([*collected.warnings, *_duplicates(collected.rows)], order)
    offered = [language.value for language in rules.templates]
    verdict = _verdict(collected, errors, warnings, offered)
    if not verdict.is_valid:
        if report is not None:
            report_rows(report, data, _reasons(errors, offered), chunk_size=chunk_size)
        return Outcome(verdict=verdict)
    rows = pl.concat(chunk[ROW] for chunk in collected.rows)
    return Outcome(verdict=verdict, first_row=int(rows[0]), last_row=int(rows[-1]))


def _open(data: bytes, rules: Ruleset) -> tuple[Record, list[str]]:
    csvfile.check_bytes(data)
    csvfile.check_header_size(data)
    csvfile.check_utf8(data)
    header = next(csvfile.records(data), None)
    if header is None:
        raise Fault("file_empty", "The file has blank lines only. Export it again, with a header and at least one row.")
    return header, check_header(header, rules.parameters)


def read(data: bytes, rules: Ruleset, *, messages: Path | None, chunk_size: int) -> tuple[list[str], Collected]:
    """Judge a file's rows, and write those of the messages as long as there is no error.

    Returns:
        the columns in the order of the file, and what was found.

    Raises:
        Fault: the file cannot be read as a whole.
    """
    header, columns = _open(data, rules)
    collected = Collected()
    start = csvfile.offset_of_line(data, header.line + 1)
    for chunk in chunks(data, header.fields, start=start, row=header.row, line=header.line, size=chunk_size):
        collected.total += chunk.frame.height + len(chunk.ragged)
        _check_count(collected.total, rules)
        collected.errors.append(_ragged(chunk.ragged, len(header.fields)))
        judged = judge(chunk.frame, rules, is_plain=chunk.is_plain)
        _collect(collected, judged, columns)
        if messages is not None and collected.is_valid:
            _write_messages(messages, judged.rows, rules)
    if collected.total == 0:
        raise Fault("file_no_rows", "The file has a header and no rows. Add a row for each message.", row=header.row)
    return columns, collected


def _check_count(total: int, rules: Ruleset) -> None:
    if rules.most_rows is not None and total > rules.most_rows:
        raise Fault(
            "file_too_many_rows",
            f"The file has more than {rules.most_rows} rows, the limit in the test environment. Upload fewer.",
        )


def _collect(collected: Collected, judged: Judged, columns: list[str]) -> None:
    rows = judged.rows
    collected.errors.append(judged.errors)
    collected.warnings.append(judged.warnings)
    collected.has_avoidable_character |= judged.has_avoidable_character
    collected.has_unicode |= bool(rows[UNICODE].any())
    for language, count in rows[LANGUAGE].value_counts().iter_rows():
        collected.by_language[language] += count
    local = pl.col(RECIPIENT).str.starts_with(LOCAL_CODE)
    sums = rows.select(pl.col(SEGMENTS).sum().alias("all"), pl.col(SEGMENTS).filter(local).sum().alias("local"))
    collected.segments += int(sums["all"][0])
    collected.local_segments += int(sums["local"][0])
    recipient_hash, row_hash = rows[RECIPIENT].hash(), rows.select(columns).hash_rows()
    collected.rows.append(
        rows.select(ROW, RECIPIENT).with_columns(recipient_hash.alias("recipient_hash"), row_hash.alias("row_hash"))
    )


def _ragged(ragged: Sequence[Record], width: int) -> pl.DataFrame:
    found = [
        (
            record.row,
            None,
            "row_too_few_fields" if len(record.fields) < width else "row_too_many_fields",
            f"{len(record.fields)} field{'s' * (len(record.fields) != 1)} where the header has {width}",
        )
        for record in ragged
    ]
    return pl.DataFrame(found, schema=FINDINGS, orient="row")


def _duplicates(chunks_rows: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Rows with a recipient, or as a whole, that an earlier row has. Looked for among equal hashes only."""
    rows = pl.concat(chunks_rows)
    hashes = rows["recipient_hash"].sort()
    repeated = hashes.filter(hashes == hashes.shift(1)).unique()
    if repeated.is_empty():
        return []
    again = rows.filter(pl.col("recipient_hash").is_in(repeated.implode()))
    recipients = again.filter(~pl.col(RECIPIENT).is_first_distinct() & (pl.col(RECIPIENT) != ""))
    exact = again.filter(~pl.col("row_hash").is_first_distinct())
    return [
        _as_findings(recipients, RECIPIENT, "duplicate_recipient", pl.col(RECIPIENT)),
        _as_findings(exact, None, "duplicate_row", pl.lit("")),
    ]


def _as_findings(rows: pl.DataFrame, column: str | None, code: str, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(
        row=pl.col(ROW), column=pl.lit(column, dtype=pl.String), code=pl.lit(code), detail=detail.cast(pl.String)
    )


def _sorted(found: Sequence[pl.DataFrame], order: dict[str, int]) -> pl.DataFrame:
    """By row, and in a row in the order of the columns; what concerns the whole row comes last."""
    together = pl.concat(found)
    if together.is_empty():
        return together
    place = pl.col("column").replace_strict(order, default=len(order), return_dtype=pl.UInt32)
    return together.sort("row", place, "code", maintain_order=True)


def _verdict(collected: Collected, errors: pl.DataFrame, warnings: pl.DataFrame, offered: Sequence[str]) -> Verdict:
    return Verdict(
        is_valid=errors.is_empty(),
        total_rows=collected.total,
        num_rows=errors["row"].n_unique(),
        num_errors=errors.height,
        has_avoidable_character=collected.has_avoidable_character,
        has_unicode=collected.has_unicode,
        by_code=_counts(errors),
        first_errors=_told(errors, offered),
        warnings=_counts(warnings),
        first_warnings=_told(warnings, offered),
        rows_by_language={name: collected.by_language[name] for name in offered if name in collected.by_language},
        segments=collected.segments,
        local_segments=collected.local_segments,
        foreign_segments=collected.segments - collected.local_segments,
    )


def _faulty(finding: Finding) -> Verdict:
    """A file that cannot be read as a whole: no rows with errors, and one error."""
    return Verdict(
        is_valid=False,
        total_rows=0,
        num_rows=0,
        num_errors=1,
        has_avoidable_character=False,
        has_unicode=False,
        by_code={finding.code: 1},
        first_errors=(finding,),
        warnings={},
        first_warnings=(),
        rows_by_language={},
    )


def _counts(findings: pl.DataFrame) -> dict[str, int]:
    counted = findings["code"].value_counts()
    return dict(counted.sort("count", "code", descending=[True, False]).iter_rows())


def _told(findings: pl.DataFrame, offered: Sequence[str]) -> list[Finding]:
    first = findings.head(FIRST)
    told = first.with_columns(sentences(first, offered).alias("sentence"))
    return [
        Finding(code=code, sentence=text, row=row, column=column)
        for row, column, code, text in told.select("row", "column", "code", "sentence").iter_rows()
    ]


def _reasons(errors: pl.DataFrame, offered: Sequence[str]) -> pl.DataFrame:
    """What is wrong with each bad row: ROW and `reason`, in order."""
    told = errors.select(pl.col("row").alias(ROW), sentences(errors, offered).alias("reason"))
    if told[ROW].n_unique() == told.height:
        return told
    return told.group_by(ROW, maintain_order=True).agg(pl.col("reason").str.join("; "))


def _write_messages(folder: Path, rows: pl.DataFrame, rules: Ruleset) -> None:
    if rows.is_empty():
        return
    values = pl.struct(rules.parameters).struct.json_encode() if rules.parameters else pl.lit("{}")
    folder.mkdir(exist_ok=True)
    path = folder / f"{rows[ROW][0]:010}.arrow"
    rows.select(row=ROW, recipient=RECIPIENT, language=LANGUAGE, values=values, segments=SEGMENTS).write_ipc(path)
