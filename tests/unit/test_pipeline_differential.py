"""The pipeline and the plain reference agree on any file, sound or corrupted.

`POSTERN_FUZZ_EXAMPLES` sets how many files are tried.
"""

import csv
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import csvfile
from pipeline.ruleset import Ruleset
from pipeline.validate import Outcome, _read, validate
from postern.model import Environment, Language
from postern.sms.template import Frame
from unit import reference_validator
from unit.reference_validator import Judgement

EXAMPLES = int(os.environ.get("POSTERN_FUZZ_EXAMPLES", "150"))
TEMPLATES = {
    Language.ENGLISH: "Dear {{name}}, about {{topic}}: {{name}}",
    Language.CHINESE: "{{topic}}，{{name}}",
    Language.TAMIL: "{{name}} {{topic}} €",
}
PARAMETERS = ("name", "topic")
COLUMNS = ("recipient", "language", "name", "topic")
FRAME = Frame(header="Ministry", footers={language: f"Footer in {language}." for language in Language})

RECIPIENTS = st.one_of(
    st.sampled_from(
        ["6591234567", "6591234568", "6599999999", "6561234567", "6511111111", "14155552671", "861065291234"]
    ),
    st.sampled_from(
        ["", "91234567", "61234567", "+6591234567", "65 9123 4567", "659123456", "65912345678", "٦٥٩١٢٣٤٥٦٧", "²"]
    ),
    st.text(alphabet="0123456789", min_size=1, max_size=17),
    st.text(alphabet="0123456789+-ab \n\"'", max_size=12),
)
LANGUAGES = st.one_of(
    st.sampled_from(["english", "English", "chinese", "TAMIL", "malay", "tamil"]),
    st.sampled_from(["", "klingon", " english", "english ", "englısh", "ENGLİSH"]),
)
VALUES = st.one_of(
    st.text(alphabet="abcdefghij xyz.", min_size=1, max_size=12),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.text(alphabet='a,"\r\n\t =+-@', max_size=6),
    st.text(alphabet="a€[]~^|\\{}汉😀é’“ \u00a0\u200b\u2028\x1c\x85", max_size=8),
    st.sampled_from(["{{topic}}", "{{name}}", "=1+1", "\ufeffx", "a\r\nb", "a\nb", "Error Reason"]),
    st.tuples(st.sampled_from("a€汉😀"), st.sampled_from([60, 66, 67, 150, 153, 320, 480, 1000])).map(
        lambda repeated: repeated[0] * repeated[1]
    ),
)


@st.composite
def written_files(draw: st.DrawFn) -> bytes:
    """A file as programs write them, with good and bad rows."""
    columns = draw(st.permutations(COLUMNS))
    strategies = {"recipient": RECIPIENTS, "language": LANGUAGES, "name": VALUES, "topic": VALUES}
    rows = draw(st.lists(st.tuples(*(strategies[name] for name in columns)), max_size=draw(st.sampled_from([3, 6, 25]))))
    reasons = draw(st.booleans())
    text = io.StringIO()
    writer = csv.writer(
        text,
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow([*columns, "Error Reason"] if reasons else columns)
    for row in rows:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            writer.writerow([*row, draw(st.sampled_from(["", "why"]))] if reasons else row)
    written = text.getvalue()
    return (written if draw(st.booleans()) else written.rstrip("\r\n")).encode()


def place_in(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    place = place_in(draw, data)
    return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]


def cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: place_in(draw, data)]


def holed(draw: st.DrawFn, data: bytes) -> bytes:
    first, last = sorted((place_in(draw, data), place_in(draw, data)))
    return data[:first] + data[min(last, first + 5) :]


def spliced(draw: st.DrawFn, data: bytes) -> bytes:
    """Something that means something to a reader of CSV, put where it does not belong."""
    place = place_in(draw, data)
    piece = draw(
        st.sampled_from(
            [b'"', b'""', b",", b",,", b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\n", b"\xef\xbb\xbf", b"\0", b" ", b'",']
        )
    )
    return data[:place] + piece + data[place:]


def requoted(draw: st.DrawFn, data: bytes) -> bytes:
    quotes = [place for place, byte in enumerate(data) if byte == ord('"')]
    if not quotes:
        return data
    place = draw(st.sampled_from(quotes))
    rest = data[:place] + data[place + 1 :]
    target = max(0, place + draw(st.integers(-3, 3)))
    return rest[:target] + draw(st.sampled_from([b'"', b""])) + rest[target:]


def with_other_line_ends(draw: st.DrawFn, data: bytes) -> bytes:
    ends = st.sampled_from([b"\n", b"\r\n", b"\n", b"\r\n", b"\r", b"\n\r\n", b"\r\r\n"])
    return b"".join(line + draw(ends) for line in data.replace(b"\r\n", b"\n").split(b"\n"))


def with_mark(_draw: st.DrawFn, data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def ragged(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = draw(st.sampled_from([lines[place] + b",x", b"x," + lines[place], lines[place].partition(b",")[2]]))
    return b"\n".join(lines)


def recoded(draw: st.DrawFn, data: bytes) -> bytes:
    encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "latin-1", "cp1252", "gb18030", "utf-32", "utf-7"]))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


CORRUPTIONS: list[Callable[[st.DrawFn, bytes], bytes]] = [
    flipped,
    cut,
    holed,
    spliced,
    requoted,
    with_other_line_ends,
    with_mark,
    ragged,
    recoded,
]


@st.composite
def corrupted_files(draw: st.DrawFn) -> bytes:
    """A file to which one to three things happened on its way."""
    data = draw(written_files())
    for _ in range(draw(st.integers(1, 3))):
        data = draw(st.sampled_from(CORRUPTIONS))(draw, data)
    return data


def compare(data: bytes, environment: Environment) -> None:
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
        report, messages = Path(folder, "report.csv"), Path(folder, "messages.arrow")
        outcome = validate(data, rules, report=report, messages=messages)
        if expected.file_error:
            assert list(outcome.verdict.by_code)[0].startswith(expected.file_error)
            assert (outcome.verdict.num_rows, outcome.verdict.num_errors) == (0, 1)
            return
        compare_verdicts(outcome, expected)
        compare_errors(data, rules, expected)
        if outcome.verdict.is_valid:
            assert messages_in(messages) == expected.messages
        else:
            assert rows_with_reasons(report) == expected.bad_rows


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


def compare_errors(data: bytes, rules: Ruleset, expected: Judgement) -> None:
    found = pl.concat(_read(csvfile.decode(data), rules)[1].errors)
    triples = [(row, column, code) for row, column, code, _detail in found.iter_rows()]
    assert len(triples) == len(set(triples))
    assert set(triples) == expected.errors


def messages_in(path: Path) -> list[tuple[Any, ...]]:
    frame = pl.read_ipc(path.read_bytes())
    return [
        (row, recipient, language, json.loads(values), segments)
        for row, recipient, language, values, segments in frame.iter_rows()
    ]


def rows_with_reasons(path: Path) -> set[int]:
    """The rows of a report whose last field says something, counted as a spreadsheet does."""
    records = reference_validator.read_records(path.read_text(encoding="utf-8-sig").replace("\0", ""))
    return {row for row, fields in enumerate(records, start=1) if fields and fields[-1] and fields[-1] != "Error Reason"}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=written_files(), environment=st.sampled_from(Environment))
@example(data=b"recipient,language,name,topic\n6591234567,english,a,b\n659abcdefg,english,a,b\n", environment="test")
@example(data="recipient,language,name,topic\n²,english,a,b\n²,english,a,b\n".encode(), environment="test")
def test_a_written_file_is_judged_as_the_contract_says(data: bytes, environment: str) -> None:
    """Errors, counts, flags, segments and messages are those of the reference, whatever the cells hold."""
    compare(data, Environment(environment))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=corrupted_files(), environment=st.sampled_from(Environment))
@example(data=b"recipient,language,name,topic\n6591234567,english,a,b\r\r\n", environment="test")
@example(data=b'recipient,language,name,topic\n6591234567,english,a"b\rc,d\n', environment="test")
@example(data=b'recipient,language,name,topic\n"6591234567",english,a,b\r\r\n', environment="test")
@example(data=b"\n\nrecipient,language,name,topic\n\n123,english,a,b\n", environment="test")
def test_a_corrupted_file_is_judged_as_the_contract_says(data: bytes, environment: str) -> None:
    """Bytes flipped, cut or moved never pass for something else than they are."""
    compare(data, Environment(environment))
