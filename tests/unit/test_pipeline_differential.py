"""The pipeline and the plain reference agree on any file, sound or corrupted.

`POSTERN_FUZZ_EXAMPLES` sets how many files are tried.
"""

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit import reference_validator
from unit.csv_files import corrupted_files, large_files, written_files
from unit.reference_validator import Judgement

from pipeline import chunks, csvfile
from pipeline.ruleset import Ruleset
from pipeline.validate import Outcome, read, validate
from postern.model import Environment, Language
from postern.sms.template import Frame

EXAMPLES = int(os.environ.get("POSTERN_FUZZ_EXAMPLES", "80"))
LARGE_EXAMPLES = max(3, EXAMPLES // 35)  # 200 of them in `make soak`
TEMPLATES = {
    Language.ENGLISH: "Dear {{name}}, about {{topic}}: {{name}}",
    Language.CHINESE: "{{topic}}，{{name}}",
    Language.TAMIL: "{{name}} {{topic}} €",
}
SIZES = (64, 100, 257, 1 << 20)
PARAMETERS = ("name", "topic")
FRAME = Frame(header="Ministry", footers={language: f"Footer in {language}." for language in Language})


def compare(data: bytes, environment: Environment, chunk_size: int) -> None:
    """Hold what the pipeline says against what the reference says."""
    rules = Ruleset(parameters=PARAMETERS, templates=TEMPLATES, frame=FRAME, environment=environment)
    expected = reference_validator.judge(
        data,
        reference_validator.Rules(
            templates={language.value: body for language, body in TEMPLATES.items()},
            parameters=PARAMETERS,
            header=FRAME.header,
            footers={language.value: footer for language, footer in FRAME.footers.items()},
            environment=environment.value,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        report, messages = Path(folder, "report.csv"), Path(folder)
        outcome = validate(data, rules, report=report, messages=messages, chunk_size=chunk_size)
        if expected.file_error:
            assert next(iter(outcome.verdict.by_code)).startswith(expected.file_error)
            assert (outcome.verdict.num_rows, outcome.verdict.num_errors) == (0, 1)
            return
        compare_verdicts(outcome, expected)
        compare_errors(data, rules, expected, chunk_size)
        if outcome.verdict.is_valid:
            assert messages_in(messages) == expected.messages
        else:
            assert rows_with_reasons(report) == expected.bad_rows
            compare_cells(data, report)


def compare_cells(data: bytes, report: Path) -> None:
    """Every row of the report has the upload's own values, filled up to the header, before its reason."""
    upload, told = (
        list(reference_validator.read_records(text.decode("utf-8-sig"))) for text in (data, report.read_bytes())
    )
    header = next(fields for fields in upload if fields)
    had_reasons = header[-1] == "Error Reason"
    width = len(header) - had_reasons
    assert len(told) == len(upload)
    for own, row in zip(upload, told, strict=True):
        if own is None or row is None:
            assert own == row
            continue
        values = own[:-1] if had_reasons and len(own) > width else own
        assert row[:-1] == values + [""] * (width - len(values))


def compare_verdicts(outcome: Outcome, expected: Judgement) -> None:
    verdict = outcome.verdict
    assert verdict.is_valid == (not expected.errors)
    assert verdict.total_rows == expected.total_rows
    assert (verdict.num_rows, verdict.num_errors) == (len(expected.bad_rows), len(expected.errors))
    assert verdict.by_code == Counter(code for _row, _column, code in expected.errors)
    assert verdict.warnings == expected.warnings
    assert verdict.has_avoidable_character == expected.has_avoidable_character
    assert verdict.has_unicode == expected.has_unicode
    assert verdict.segments == verdict.local_segments + verdict.foreign_segments == expected.segments
    assert verdict.local_segments == expected.local_segments


def compare_errors(data: bytes, rules: Ruleset, expected: Judgement, chunk_size: int) -> None:
    found = pl.concat(judged.errors for _chunk, judged in read(data, rules, chunk_size=chunk_size))
    triples = [(row, column, code) for row, column, code, _detail in found.iter_rows()]
    assert len(triples) == len(set(triples))
    assert set(triples) == expected.errors


def messages_in(path: Path) -> list[tuple[Any, ...]]:
    frame = pl.concat(pl.read_ipc(part.read_bytes()) for part in sorted(path.glob("*.arrow")))
    return [
        (row, recipient, language, json.loads(values), segments)
        for row, recipient, language, values, segments in frame.iter_rows()
    ]


def rows_with_reasons(path: Path) -> set[int]:
    """The rows of a report whose last field says something, counted as a spreadsheet does."""
    records = reference_validator.read_records(path.read_bytes().decode("utf-8-sig"))
    return {row for row, fields in enumerate(records, start=1) if fields and fields[-1] not in {"", "Error Reason"}}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=written_files(), environment=st.sampled_from(Environment), chunk_size=st.sampled_from(SIZES))
@example(
    data=b"recipient,language,name,topic\n6591234567,english,a,b\n659abcdefg,english,a,b\n",
    environment="test",
    chunk_size=64,
)
@example(
    data="recipient,language,name,topic\n²,english,a,b\n²,english,a,b\n".encode(), environment="test", chunk_size=64
)
def test_a_written_file_is_judged_as_the_contract_says(data: bytes, environment: str, chunk_size: int) -> None:
    """Errors, counts, flags, segments and messages are those of the reference, whatever the cells hold."""
    compare(data, Environment(environment), chunk_size)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(written_files(), corrupted_files()),
    longest=st.integers(60, 200),
    chunk_size=st.sampled_from((64, 100, 1 << 20)),
)
def test_a_record_that_is_too_long_is_found_wherever_the_file_is_cut(
    data: bytes, longest: int, chunk_size: int
) -> None:
    """The limit holds to the byte, so that no chunk has to be larger."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (csvfile, chunks, reference_validator):
            patch.setattr(module, "LONGEST_RECORD", longest)
        compare(data, Environment.PRODUCTION, chunk_size)


@settings(max_examples=LARGE_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=large_files(200_000), chunk_size=st.sampled_from((7_001, 65_536, 3 << 20)))
def test_a_large_file_is_judged_as_the_contract_says(data: bytes, chunk_size: int) -> None:
    """Thousands of rows, few of them different, cut into many chunks or none."""
    compare(data, Environment.PRODUCTION, chunk_size)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=corrupted_files(), environment=st.sampled_from(Environment), chunk_size=st.sampled_from(SIZES))
@example(
    data=b"recipient,language,name,topic\n6591234567,english,a,b\n6591234567,english,a\n6591234567,english,a,b,",
    environment="production",
    chunk_size=1 << 20,
)
@example(
    data=b"recipient,language,name,topic,Error Reason\n6591234567,english,a,b,\n6591234568,english,a,b\n"
    b"6591234569,english,a,b,,",
    environment="production",
    chunk_size=1 << 20,
)
@example(
    data=b"recipient,language,name,topic\n" + b"6591234567,english,a,b\n" * 25 + b'x,"y\n',
    environment="test",
    chunk_size=64,
)
@example(
    data="recipient,language,name,topic\n6591234567,É,a,b\n6591234567,é,a,b\n".encode(),
    environment="production",
    chunk_size=64,
)
@example(
    data=b'recipient,language,name,topic\n6591234567,english,a,b\nx,english,"a\rb",c\n\n\n6591234567,english,a,b\n\n\n',
    environment="production",
    chunk_size=64,
)
@example(data=b"recipient,language,name,topic\n6591234567,english,a,b\r\r\n", environment="test", chunk_size=64)
@example(data=b'recipient,language,name,topic\n6591234567,english,a"b\rc,d\n', environment="test", chunk_size=64)
@example(data=b'recipient,language,name,topic\n"6591234567",english,a,b\r\r\n', environment="test", chunk_size=64)
@example(data=b"\n\nrecipient,language,name,topic\n\n123,english,a,b\n", environment="test", chunk_size=64)
def test_a_corrupted_file_is_judged_as_the_contract_says(data: bytes, environment: str, chunk_size: int) -> None:
    """Bytes flipped, cut or moved never pass for something else than they are."""
    compare(data, Environment(environment), chunk_size)
