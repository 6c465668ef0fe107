"""One file, start to end: bytes in, a verdict out, with the report or the rows of the messages beside it.

Runs in a process of its own (`pipeline.child`); knows no database, no blob store and no clock.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline import csvfile
from pipeline.csvfile import Fault, Record
from pipeline.header import check_header
from pipeline.report import write_report
from pipeline.rules import FINDINGS, LANGUAGE, RECIPIENT, ROW, SEGMENTS, UNICODE, judge
from pipeline.ruleset import Ruleset
from pipeline.sentences import sentence
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
class _Collected:
    """What the chunks of a file add up to."""

    errors: list[pl.DataFrame] = field(default_factory=lambda: [pl.DataFrame(schema=FINDINGS)])
    warnings: list[pl.DataFrame] = field(default_factory=lambda: [pl.DataFrame(schema=FINDINGS)])
    rows: list[pl.DataFrame] = field(default_factory=list)
    total: int = 0
    has_avoidable_character: bool = False


def validate(data: bytes, rules: Ruleset, *, report: Path, messages: Path) -> Outcome:
    """Judge a file.

    Args:
        data: the whole file.
        rules: what to judge it by.
        report: where the report goes when the file is not valid.
        messages: where the rows go when it is (Arrow IPC: row, recipient, language, values as JSON, segments).
    """
    text = None
    try:
        csvfile.check_bytes(data)
        csvfile.check_header_size(data)
        text = csvfile.readable(data)
        columns, collected = _read(csvfile.decode(data), rules)
    except Fault as fault:
        write_report(report, text, {}, fault.finding)
        return Outcome(verdict=_faulty(fault.finding))
    order = {name: place for place, name in enumerate(columns)}
    errors = _sorted(collected.errors, order)
    warnings = _sorted([*collected.warnings, *_duplicates(collected.rows)], order)
    offered = [language.value for language in rules.templates]
    verdict = _verdict(collected, errors, warnings, offered)
    if not verdict.is_valid:
        write_report(report, text, _reasons(errors, offered), None)
        return Outcome(verdict=verdict)
    first_row, last_row = _write_messages(messages, collected.rows, rules)
    return Outcome(verdict=verdict, first_row=first_row, last_row=last_row)


def _read(text: str, rules: Ruleset) -> tuple[list[str], _Collected]:
    source = csvfile.records(text)
    header = next(source, None)
    if header is None:
        raise Fault("file_empty", "The file has blank lines only. Export it again, with a header and at least one row.")
    columns = check_header(header, rules.parameters)
    collected = _Collected()
    for chunk in csvfile.chunks(source):
        collected.total += len(chunk)
        _check_count(collected.total, rules)
        _judge_chunk(collected, chunk, columns, len(header.fields), rules)
    if collected.total == 0:
        raise Fault("file_no_rows", "The file has a header and no rows. Add a row for each message.", row=header.row)
    return columns, collected


def _check_count(total: int, rules: Ruleset) -> None:
    if rules.most_rows is not None and total > rules.most_rows:
        raise Fault(
            "file_too_many_rows",
            f"The file has more than {rules.most_rows} rows, the limit in the test environment. Upload fewer.",
        )


def _judge_chunk(
    collected: _Collected, chunk: Sequence[Record], columns: list[str], width: int, rules: Ruleset
) -> None:
    whole = [record for record in chunk if len(record.fields) == width]
    collected.errors.append(_ragged([record for record in chunk if len(record.fields) != width], width))
    values = zip(*(record.fields for record in whole), strict=True) if whole else ([] for _ in range(width))
    frame = pl.DataFrame(
        {
            ROW: pl.Series([record.row for record in whole], dtype=pl.UInt32),
            **{name: pl.Series(column, dtype=pl.String) for name, column in zip(columns, values, strict=False)},
        }
    )
    judged = judge(frame, rules)
    collected.errors.append(judged.errors)
    collected.warnings.append(judged.warnings)
    collected.rows.append(judged.rows)
    collected.has_avoidable_character |= judged.has_avoidable_character


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


def _duplicates(chunks: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    rows = pl.concat(chunks)
    columns = [name for name in rows.columns if name not in {ROW, SEGMENTS, UNICODE}]
    rows = rows.select(ROW, RECIPIENT, whole=rows.select(columns).hash_rows())
    repeated = rows.filter((pl.col(RECIPIENT) != "") & ~pl.col(RECIPIENT).is_first_distinct())
    exact = rows.filter(~pl.col("whole").is_first_distinct())
    return [
        _as_findings(repeated, RECIPIENT, "duplicate_recipient", pl.col(RECIPIENT)),
        _as_findings(exact, None, "duplicate_row", pl.lit("")),
    ]


def _as_findings(rows: pl.DataFrame, column: str | None, code: str, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(
        row=pl.col(ROW), column=pl.lit(column, dtype=pl.String), code=pl.lit(code), detail=detail.cast(pl.String)
    )


def _sorted(found: Sequence[pl.DataFrame], order: dict[str, int]) -> pl.DataFrame:
    """By row, and in a row in the order of the columns; what concerns the whole row comes last."""
    place = pl.col("column").replace_strict(order, default=len(order), return_dtype=pl.UInt32)
    return pl.concat(found).sort("row", place, "code", maintain_order=True)


def _verdict(collected: _Collected, errors: pl.DataFrame, warnings: pl.DataFrame, offered: Sequence[str]) -> Verdict:
    rows = pl.concat([chunk.select(RECIPIENT, LANGUAGE, SEGMENTS, UNICODE) for chunk in collected.rows])
    local = rows.filter(pl.col(RECIPIENT).str.starts_with(LOCAL_CODE))
    segments, local_segments = int(rows[SEGMENTS].sum()), int(local[SEGMENTS].sum())
    return Verdict(
        is_valid=errors.is_empty(),
        total_rows=collected.total,
        num_rows=errors["row"].n_unique(),
        num_errors=errors.height,
        has_avoidable_character=collected.has_avoidable_character,
        has_unicode=bool(rows[UNICODE].any()),
        by_code=_counts(errors["code"]),
        first_errors=_told(errors, offered),
        warnings=_counts(warnings["code"]),
        first_warnings=_told(warnings, offered),
        rows_by_language={name: count for name, count in _counts(rows[LANGUAGE]).items() if name in offered},
        segments=segments,
        local_segments=local_segments,
        foreign_segments=segments - local_segments,
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


def _counts(values: pl.Series) -> dict[str, int]:
    return dict(Counter(values.to_list()).most_common())


def _told(findings: pl.DataFrame, offered: Sequence[str]) -> list[Finding]:
    return [
        Finding(
            code=code, sentence=sentence(code, column=column, detail=detail, offered=offered), row=row, column=column
        )
        for row, column, code, detail in findings.head(FIRST).iter_rows()
    ]


def _reasons(errors: pl.DataFrame, offered: Sequence[str]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for row, column, code, detail in errors.iter_rows():
        told = sentence(code, column=column, detail=detail, offered=offered)
        reasons[row] = f"{reasons[row]}; {told}" if row in reasons else told
    return reasons


def _write_messages(path: Path, chunks: Sequence[pl.DataFrame], rules: Ruleset) -> tuple[int, int]:
    rows = pl.concat(chunks)
    values = pl.struct(rules.parameters).struct.json_encode() if rules.parameters else pl.lit("{}")
    rows.select(row=ROW, recipient=RECIPIENT, language=LANGUAGE, values=values, segments=SEGMENTS).write_ipc(path)
    return int(rows[ROW][0]), int(rows[ROW][-1])
