"""One file, start to end: bytes in, a verdict out, with the report or the rows of the messages beside it.

Runs in a process of its own (`pipeline.child`); knows no database, no blob store and no clock. A file goes through
in chunks, once: each is judged, counted and written, and nothing of it is kept but counts and hashes. While one is
judged, the next one is read and the one before it is written.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.chunks import ROW, SIZE, Chunk, chunks
from pipeline.csvfile import Record, read_header
from pipeline.fault import Fault
from pipeline.header import check_header
from pipeline.measure import LANGUAGE, RECIPIENT
from pipeline.report import Report, report_fault
from pipeline.rules import SEGMENTS, Judge, Judged
from pipeline.ruleset import Ruleset
from pipeline.source import Data
from pipeline.tally import Tally
from pipeline.text import check_bytes, check_utf8
from postern.model import Finding, Verdict
from postern.overlap import Behind, ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What validation has made of a file."""

    verdict: Verdict
    first_row: int = 0
    last_row: int = 0


def validate(
    data: Data, rules: Ruleset, *, report: Path | None, messages: Path | None, chunk_size: int = SIZE
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
        return _validated(data, rules, report, messages, chunk_size)
    except Fault as fault:
        if report is not None:
            report_fault(report, data, fault)
        return Outcome(verdict=_faulty(fault.finding))


def read(data: Data, rules: Ruleset, *, chunk_size: int = SIZE) -> Iterator[tuple[Chunk, Judged]]:
    """The chunks of a file, and what the rules find in each.

    Raises:
        Fault: the file, or the rest of it, cannot be read.
    """
    header, columns = _open(data, rules)
    source = chunks(data, header, header.fields, size=chunk_size)
    yield from _judged(source, Judge(rules, columns), rules, header)


def _validated(data: Data, rules: Ruleset, report: Path | None, messages: Path | None, chunk_size: int) -> Outcome:
    header, columns = _open(data, rules)
    offered = [language.value for language in rules.templates]
    tally = Tally(columns, offered)
    told = None if report is None else Report(report, data, header, offered, chunk_size=chunk_size)
    source = chunks(data, header, header.fields, size=chunk_size)
    with ThreadPoolExecutor(2) as pool:
        writing = Behind(pool)
        for chunk, judged in _judged(ahead(pool, source), Judge(rules, columns), rules, header):
            tally.add(judged)
            if told is not None and not tally.is_valid:
                writing.do(told.add, chunk, judged.errors)
            if messages is not None and tally.is_valid:
                writing.do(write_messages, messages, judged.rows, rules)
        writing.wait()
    if not tally.is_valid:
        return Outcome(verdict=tally.verdict())
    return Outcome(verdict=tally.verdict(), first_row=tally.first_row, last_row=tally.last_row)


def _open(data: Data, rules: Ruleset) -> tuple[Record, list[str]]:
    """The header, and the columns that it has without a last `Error Reason`."""
    check_bytes(data)
    check_utf8(data)
    header = read_header(data)
    return header, check_header(header.fields, rules.parameters, row=header.row)


def _judged(source: Iterable[Chunk], judge: Judge, rules: Ruleset, header: Record) -> Iterator[tuple[Chunk, Judged]]:
    total = 0
    for chunk in source:  # to its end also where there are too many: what cannot be read is told first
        total += chunk.height
        if rules.most_rows is None or total <= rules.most_rows:
            yield chunk, judge(chunk)
    if total == 0:
        raise Fault("file_no_rows", "The file has a header and no rows. Add a row for each message.", row=header.row)
    if rules.most_rows is not None and total > rules.most_rows:
        raise Fault(
            "file_too_many_rows",
            f"The file has more than {rules.most_rows} rows, the limit in the test environment. Upload fewer.",
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


def write_messages(folder: Path, rows: pl.DataFrame, rules: Ruleset) -> None:
    """Write the rows of a chunk to a file of their own in the folder."""
    if rows.is_empty():
        return
    values = pl.struct(rules.parameters).struct.json_encode() if rules.parameters else pl.lit("{}")
    folder.mkdir(exist_ok=True)
    path = folder / f"{rows[ROW][0]:010}.arrow"
    rows.select(row=ROW, recipient=RECIPIENT, language=LANGUAGE, values=values, segments=SEGMENTS).write_ipc(path)
