"""Every code of the contract, with its exact row and column, and what is right beside it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest
from unit.pipeline_fixtures import FRAME, GOOD, HEADER, TEMPLATES, Judge, a_campaign, csv_text, ruleset

from pipeline.ruleset import Ruleset, from_json, ruleset_for, to_json
from postern.model import Environment, Language
from postern.settings import WorkerSettings
from postern.sms.template import Frame


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judges a file."""
    return Judge(tmp_path)


def row(
    recipient: str = "6591234567", language: str = "english", name: str = "Emily", topic: str = "tea"
) -> tuple[str, str, str, str]:
    return recipient, language, name, topic


def a_file(*rows: tuple[str, ...]) -> str:
    """A good row 2, these rows, and a good row after them."""
    columns = ("recipient", "language", "name", "topic")
    return csv_text([columns, row("6581234567"), *rows, row("6587654321")])


def a_text(text: str) -> str:
    """A file of one row for a template that is nothing but `{{text}}`."""
    return csv_text([("recipient", "language", "text"), ("6591234567", "english", text)])


def test_a_good_file_is_valid(judge: Judge) -> None:
    """No findings, and no report."""
    judged = judge(a_file(row(), row(language="Chinese"), row("14155552671", "ENGLISH")))
    verdict = judged.outcome.verdict
    assert verdict.is_valid
    assert (verdict.total_rows, verdict.num_rows, verdict.num_errors) == (5, 0, 0)
    assert verdict.rows_by_language == {"english": 4, "chinese": 1}
    assert (judged.codes, judged.report) == ([], None)
    assert (judged.outcome.first_row, judged.outcome.last_row) == (2, 6)


@pytest.mark.parametrize(
    ("bad", "column", "code"),
    [
        (row("", "english"), "recipient", "recipient_missing"),
        (row("+6591234567"), "recipient", "recipient_invalid"),
        (row("65 91234567"), "recipient", "recipient_invalid"),
        (row("6591-234567"), "recipient", "recipient_invalid"),
        (row(" 6591234567"), "recipient", "recipient_invalid"),
        (row("6591234567 "), "recipient", "recipient_invalid"),
        (row("6591234567\n"), "recipient", "recipient_invalid"),
        (row("659abcdefg"), "recipient", "recipient_invalid"),
        (row("91234567"), "recipient", "recipient_invalid"),
        (row("81234567"), "recipient", "recipient_invalid"),
        (row("659123456"), "recipient", "recipient_invalid"),
        (row("65912345678"), "recipient", "recipient_invalid"),
        (row("0591234567"), "recipient", "recipient_invalid"),
        (row("2101234567"), "recipient", "recipient_invalid"),
        (row("6591234567.0"), "recipient", "recipient_invalid"),
        (row("6.59E+09"), "recipient", "recipient_invalid"),
        (row("٦٥٩١٢٣٤٥٦٧"), "recipient", "recipient_invalid"),
        (row("６５９１２３４５６７"), "recipient", "recipient_invalid"),
        (row("="), "recipient", "recipient_invalid"),
        (row(" "), "recipient", "recipient_invalid"),
        (row(language=""), "language", "language_missing"),
        (row(language="klingon"), "language", "language_unknown"),
        (row(language=" english"), "language", "language_unknown"),
        (row(language="en"), "language", "language_unknown"),
        (row(language="ENGLİSH"), "language", "language_unknown"),
        (row(language="malay"), "language", "language_unavailable"),
        (row(language="Tamil"), "language", "language_unavailable"),
        (row(name=""), "name", "parameter_missing"),
        (row(topic=""), "topic", "parameter_missing"),
        (row(name=" Emily"), "name", "parameter_edge_space"),
        (row(name="Emily "), "name", "parameter_edge_space"),
        (row(name="Emily\n"), "name", "parameter_edge_space"),
        (row(name="\r\nEmily"), "name", "parameter_edge_space"),
        (row(name="Emily\u3000", language="chinese"), "name", "parameter_edge_space"),
        (row(name="Emily\u2028", language="chinese"), "name", "parameter_edge_space"),
        (row(name=" "), "name", "parameter_edge_space"),
        (row(name="It’s"), "name", "parameter_avoidable_character"),
        (row(topic="a|b"), "topic", "parameter_avoidable_character"),
        (row(topic="5 €"), "topic", "parameter_avoidable_character"),
        (row(topic="a\u200bb"), "topic", "parameter_avoidable_character"),
        (row(topic="{{name}}"), "topic", "parameter_avoidable_character"),
        (row(name="a\tb"), "name", "parameter_control_character"),
        (row(name="a\rb"), "name", "parameter_control_character"),
        (row(name="a\r\r\nb"), "name", "parameter_control_character"),
        (row(name="a\x07b"), "name", "parameter_control_character"),
        (row(name="a\x7fb"), "name", "parameter_control_character"),
        (row(name="a\x9fb", language="chinese"), "name", "parameter_control_character"),
        (row(name="a" * 984), None, "message_too_long"),
        (row()[:3], None, "row_too_few_fields"),
        (("6591234567",), None, "row_too_few_fields"),
        ((*row(), ""), None, "row_too_many_fields"),
        ((*row(), "x", "y", "z"), None, "row_too_many_fields"),
    ],
)
def test_a_bad_row_is_told_by_row_and_column(judge: Judge, bad: tuple[str, ...], column: str | None, code: str) -> None:
    """It fails the file, and the rows around it are not concerned."""
    judged = judge(a_file(bad))
    assert judged.codes == [(3, column, code)]
    verdict = judged.outcome.verdict
    assert (verdict.is_valid, verdict.total_rows, verdict.num_rows, verdict.num_errors) == (False, 3, 1, 1)
    assert verdict.by_code == {code: 1}
    assert not judged.messages.exists()


@pytest.mark.parametrize(
    "good",
    [
        row("6561234567"),
        row("61234567"),
        row("6511111111"),
        row("447911123456"),
        row(language="eNgLiSh"),
        row(name="a\nb\r\nc"),
        row(name="Müller & Söhne, Åse"),
        row(name="陈大文"),
        row(name="😀"),
        row(name="{{topic}}", language="chinese"),
        row(name="It’s “a|b”", language="chinese"),
        row(name="=1+1"),
        row(name="-1"),
        row(name="@me"),
        row(name="x" * 983),
        row(name="a\u200b", language="chinese"),
    ],
)
def test_a_row_at_the_edge_of_a_rule_is_good(judge: Judge, good: tuple[str, ...]) -> None:
    """What is allowed is allowed."""
    assert judge(a_file(good)).codes == []


def test_a_bad_number_is_found_among_good_ones_of_its_shape(judge: Judge) -> None:
    """Judging a column by its distinct shapes must not let letters in."""
    assert judge(a_file(row("6591234567"), row("65912x4567"))).codes == [(4, "recipient", "recipient_invalid")]


@pytest.mark.parametrize(
    "name",
    ["self", "row", "detail", "count", "raw", "line", "value", "values", "all", "unicode", "reason", "hash", "size"],
)
def test_a_parameter_may_have_any_name(judge: Judge, name: str) -> None:
    """Also those that the code has for other things."""
    rules = ruleset({Language.ENGLISH: f"Hello {{{{{name}}}}}"})
    header = f"recipient,language,{name}\n"
    assert judge(header + "6591234567,english,x\n", rules).codes == []
    judged = judge(header + "6591234567,english,\n91234567,english,x’\n", rules)
    assert judged.codes == [
        (2, name, "parameter_missing"),
        (3, "recipient", "recipient_invalid"),
        (3, name, "parameter_avoidable_character"),
    ]


def test_a_row_of_missing_values_is_a_row(judge: Judge) -> None:
    """A blank line is none; both are counted."""
    judged = judge(HEADER + GOOD + "\n,,,\n\r\n" + GOOD.replace("6591", "6592") + "x,english,a,b\n")
    assert judged.codes == [
        (4, "recipient", "recipient_missing"),
        (4, "language", "language_missing"),
        (4, "name", "parameter_missing"),
        (4, "topic", "parameter_missing"),
        (7, "recipient", "recipient_invalid"),
    ]
    assert judged.outcome.verdict.total_rows == 4


def test_rows_are_counted_as_a_spreadsheet_shows_them(judge: Judge) -> None:
    """Line breaks inside values are in one row."""
    assert judge(a_file(row(name="a\nb\nc"), row("x"))).codes == [(4, "recipient", "recipient_invalid")]


def test_all_errors_of_all_rows_are_found_in_one_pass(judge: Judge) -> None:
    """In the order of rows, and in a row in that of the file's columns, what concerns the message last."""
    columns = ("topic", "language", "recipient", "name")
    long = "x" * 1000
    judged = judge(csv_text([columns, (f" {long}", "klingon", "1", ""), ("a\tb’ ", "english", "", long), ("a",)]))
    assert judged.codes == [
        (2, "topic", "parameter_edge_space"),
        (2, "language", "language_unknown"),
        (2, "recipient", "recipient_invalid"),
        (2, "name", "parameter_missing"),
        (3, "topic", "parameter_avoidable_character"),
        (3, "topic", "parameter_control_character"),
        (3, "topic", "parameter_edge_space"),
        (3, "recipient", "recipient_missing"),
        (3, None, "message_too_long"),
        (4, None, "row_too_few_fields"),
    ]
    assert (judged.outcome.verdict.num_rows, judged.outcome.verdict.num_errors) == (3, 10)


def test_one_error_for_each_row_column_and_code(judge: Judge) -> None:
    """However many characters are wrong; the sentence names each kind once."""
    judged = judge(a_file(row(name="’’’“\t\x07", topic="’")))
    assert judged.codes == [
        (3, "name", "parameter_avoidable_character"),
        (3, "name", "parameter_control_character"),
        (3, "topic", "parameter_avoidable_character"),
    ]
    assert judged.sentences[0].count("U+2019") == 1


def test_a_ragged_row_has_that_error_only(judge: Judge) -> None:
    """Its cells may be shifted: nothing else is said of them, and no flag is set by them."""
    judged = judge(a_file(("", "klingon", "It’s", " a ", "b")))
    assert judged.codes == [(3, None, "row_too_many_fields")]
    assert not judged.outcome.verdict.has_avoidable_character
    assert judged.warnings == []


def test_a_file_of_ragged_rows_only_is_judged(judge: Judge) -> None:
    """There is nothing else to look at."""
    judged = judge(HEADER + "a\na,b,c,d,e\n")
    assert judged.codes == [(2, None, "row_too_few_fields"), (3, None, "row_too_many_fields")]


@pytest.mark.parametrize(
    ("content", "code", "row_number"),
    [
        ("", "file_empty", None),
        ("\ufeff", "file_empty", None),
        ("\n\r\n\n", "file_empty", None),
        (HEADER, "file_no_rows", 1),
        (HEADER.strip(), "file_no_rows", 1),
        ("\n" + HEADER + "\n\n", "file_no_rows", 2),
        (HEADER + 'a,b,"c', "file_quoting", None),
        (HEADER + 'a,b,c "d",e\n', "file_quoting", None),
        (HEADER + GOOD.replace("\n", "\r"), "file_encoding", None),
        ((HEADER + GOOD).encode("utf-16"), "file_encoding", None),
        (HEADER.encode() + b"\xff\n", "file_encoding", None),
        (HEADER + "\0", "file_encoding", None),
        (HEADER.replace("topic", "name"), "file_header_duplicate", 1),
        (HEADER.replace("topic", "Topic") + GOOD, "file_header_misspelled", 1),
        (HEADER.replace(",topic", "") + GOOD, "file_header_missing", 1),
        (HEADER.replace("topic", "topic,x") + GOOD, "file_header_unknown", 1),
        (HEADER.replace(",", ";") + GOOD, "file_header_separator", 1),
        ("x" * 70_000, "file_header_too_long", None),
        (GOOD, "file_header_unknown", 1),
    ],
)
def test_a_file_error_is_one_error_of_no_row(
    judge: Judge, content: str | bytes, code: str, row_number: int | None
) -> None:
    """numRows is 0 and numErrors is 1, whatever else is wrong."""
    judged = judge(content)
    verdict = judged.outcome.verdict
    assert judged.codes == [(row_number, None, code)]
    assert (verdict.is_valid, verdict.total_rows, verdict.num_rows, verdict.num_errors) == (False, 0, 0, 1)
    assert verdict.by_code == {code: 1}
    assert not judged.messages.exists()


@pytest.mark.parametrize(("environment", "limited"), [("test", True), ("production", False), ("loadtest", False)])
def test_a_test_file_has_at_most_twenty_rows(judge: Judge, environment: str, limited: bool) -> None:
    """Blank lines do not count; other environments have no limit."""
    rules = ruleset(environment=Environment(environment))
    rows = "".join(f"65{number},english,a,b\n\n" for number in range(91234567, 91234587))
    assert judge(HEADER + rows, rules).codes == []
    codes = judge(HEADER + rows + GOOD, rules).codes
    assert codes == ([(None, None, "file_too_many_rows")] if limited else [])


@pytest.mark.parametrize(
    ("bad", "column", "code"),
    [
        (row(topic="x" * 321), None, "body_over_320"),
        (row(topic="汉" * 440, language="chinese"), None, "segments_over_6"),
        (row("6581234567", topic="again"), "recipient", "duplicate_recipient"),
        (row("6581234567"), None, "duplicate_row"),
        (row("6590000000"), "recipient", "fake_number"),
        (row("6599999999"), "recipient", "fake_number"),
        (row("6588888888"), "recipient", "fake_number"),
        (row("6561234567"), "recipient", "local_number_unusual"),
        (row(name="陈"), None, "unexpected_unicode"),
    ],
)
def test_a_warning_does_not_fail_a_file(judge: Judge, bad: tuple[str, ...], column: str | None, code: str) -> None:
    """It is told with its row and column all the same."""
    judged = judge(a_file(bad))
    assert judged.outcome.verdict.is_valid
    assert (3, column, code) in judged.warnings
    assert judged.outcome.verdict.warnings[code] == 1
    assert not {found_code for _row, _column, found_code in judged.codes}


@pytest.mark.parametrize("environment", [Environment.TEST, Environment.LOADTEST])
def test_fake_numbers_are_for_tests(judge: Judge, environment: Environment) -> None:
    """Only production wonders about them."""
    assert judge(a_file(row("6599999999")), ruleset(environment=environment)).warnings == []


def test_good_rows_draw_no_warnings(judge: Judge) -> None:
    """A foreign number, a Chinese message, a body at the limit."""
    body = "x" * (320 - len("Dear Emily, about ."))
    rows = [row("14155552671"), row("6591111111", "chinese", "陈"), row("6592222222", topic=body)]
    assert judge(a_file(*rows)).outcome.verdict.warnings == {}


def test_every_repetition_is_told_but_the_first(judge: Judge) -> None:
    """Also across different writings of the language."""
    columns = ("recipient", "language", "name", "topic")
    judged = judge(csv_text([columns, row(), row(language="English"), row(), row(name="B")]))
    assert judged.warnings == [
        (3, "recipient", "duplicate_recipient"),
        (3, None, "duplicate_row"),
        (4, "recipient", "duplicate_recipient"),
        (4, None, "duplicate_row"),
        (5, "recipient", "duplicate_recipient"),
    ]


@pytest.mark.parametrize("recipient", ["²", "6" * 5000, "x\ny"])
def test_a_repeated_recipient_that_is_no_number_is_told(judge: Judge, recipient: str) -> None:
    """The file is rejected, not failed."""
    judged = judge(a_file(row(recipient), row(recipient)))
    assert judged.outcome.verdict.by_code == {"recipient_invalid": 2}
    assert judged.outcome.verdict.warnings["duplicate_recipient"] == 1


@pytest.mark.parametrize(
    ("bad", "avoidable", "unicode"),
    [
        (row(), False, False),
        (row(topic="a|b"), True, False),
        (row(topic="It’s"), True, True),
        (row(topic="陈"), False, True),
        (row(topic="It’s", language="chinese"), False, True),
        (row(topic="It’s", language="malay"), False, False),
        (row("1", topic="It’s"), True, True),
    ],
)
def test_the_flags_of_a_file(judge: Judge, bad: tuple[str, ...], avoidable: bool, unicode: bool) -> None:
    """Avoidable: any English row; Unicode: any message that can be rendered."""
    rules = ruleset({Language.ENGLISH: TEMPLATES[Language.ENGLISH], Language.CHINESE: "{{name}} {{topic}}"})
    verdict = judge(a_file(bad), rules).outcome.verdict
    assert (verdict.has_avoidable_character, verdict.has_unicode) == (avoidable, unicode)


@pytest.mark.parametrize(
    ("overhead", "text", "segments"),
    [
        (0, "x" * 160, 1),
        (0, "x" * 161, 2),
        (0, "x" * 306, 2),
        (0, "x" * 307, 3),
        (20, "x" * 141, 2),
        (0, "x" * 152 + "€" + "x" * 152, 3),
        (0, "汉" * 70, 1),
        (0, "汉" * 71, 2),
        (0, "汉" * 66 + "😀" + "汉" * 66, 3),
    ],
)
def test_segments_are_counted_over_the_full_message(judge: Judge, overhead: int, text: str, segments: int) -> None:
    """Header, footer and separators included; exact at every boundary."""
    frame = Frame(header="h" * overhead, footers={Language.CHINESE: ""})
    rules = ruleset({Language.CHINESE: "{{text}}"}, frame=frame)
    content = a_text(text[len("\n\n---\n\n") : -len("\n\n---\n\n")]).replace("english", "chinese")
    assert judge(content, rules).outcome.verdict.segments == segments


def test_local_and_foreign_segments_are_told_apart(judge: Judge) -> None:
    """They cost differently."""
    verdict = judge(a_file(row("14155552671", topic="x" * 200), row("6599123456", topic="x" * 200))).outcome.verdict
    assert (verdict.segments, verdict.local_segments, verdict.foreign_segments) == (6, 4, 2)


@pytest.mark.parametrize("name", ["segments", "unicode", "row", "values", "digits", "prefix", "possible", "whole"])
def test_a_parameter_may_be_called_anything(judge: Judge, name: str) -> None:
    """Also as the pipeline calls columns of its own."""
    rules = ruleset({Language.ENGLISH: f"{{{{{name}}}}}"})
    judged = judge(csv_text([("recipient", "language", name), ("6591234567", "english", "x")]), rules)
    assert judged.codes == []
    assert messages_of(judged.messages) == [(2, "6591234567", "english", {name: "x"}, 1)]


def messages_of(path: Path) -> list[tuple[int, str, str, Mapping[str, str], int]]:
    frame = pl.concat(pl.read_ipc(part) for part in sorted(path.glob("*.arrow")))
    return [
        (number, recipient, language, json.loads(values), segments)
        for number, recipient, language, values, segments in frame.select(
            "row", "recipient", "language", "values", "segments"
        ).iter_rows()
    ]


@pytest.mark.parametrize("value", ['"', "\\", "a\nb\r\nc", "\u2028é汉😀", "{{name}}", "</script>", "\u200b", "null"])
def test_values_come_through_as_they_are(judge: Judge, value: str) -> None:
    """From the file to what becomes a message."""
    columns = ("topic", "recipient", "language", "name")
    judged = judge(csv_text([columns, ("tea", "6591234567", "Chinese", f"a{value}b")]))
    assert messages_of(judged.messages) == [(2, "6591234567", "chinese", {"name": f"a{value}b", "topic": "tea"}, 1)]


def test_a_campaign_without_parameters_has_messages(judge: Judge) -> None:
    """All with the same text."""
    judged = judge("language,recipient\nenglish,6591234567\n", ruleset({Language.ENGLISH: "Closed."}))
    assert messages_of(judged.messages) == [(2, "6591234567", "english", {}, 1)]


def test_only_the_first_ten_findings_are_told(judge: Judge) -> None:
    """All of them are counted."""
    verdict = judge(HEADER + "x,english,a,b\n" * 25).outcome.verdict
    assert [found.row for found in verdict.first_errors] == list(range(2, 12))
    assert (verdict.num_rows, verdict.num_errors, verdict.by_code) == (25, 25, {"recipient_invalid": 25})
    assert len(verdict.first_warnings) == 10
    assert verdict.warnings == {"duplicate_recipient": 24, "duplicate_row": 24}


def test_a_file_of_many_chunks_is_judged_as_one(judge: Judge) -> None:
    """Row numbers go on, repetitions are found across chunks."""
    rows = "".join(f"65{80_000_000 + number},english,a,b\n" for number in range(25_000))
    judged = judge(HEADER + rows + "6580000000,english,a,b\nx,english,a,b\n")
    assert judged.codes == [(25_003, "recipient", "recipient_invalid")]
    assert judged.warnings == [
        (25_002, "recipient", "duplicate_recipient"),
        (25_002, None, "duplicate_row"),
    ]
    assert judged.outcome.verdict.total_rows == 25_002


@pytest.mark.parametrize("environment", Environment)
def test_rules_reach_the_validating_process_whole(environment: Environment) -> None:
    """Through JSON and back."""
    rules = ruleset_for(a_campaign(), WorkerSettings(environment=environment))
    assert from_json(json.loads(json.dumps(to_json(rules)))) == rules
    assert rules.environment is environment
    assert rules.most_rows == (20 if environment is Environment.TEST else None)


def test_rules_are_those_of_the_campaign() -> None:
    """Its templates, its parameters, and its agency in the frame."""
    rules = ruleset_for(a_campaign(), WorkerSettings())
    assert (rules.templates, list(rules.parameters), rules.frame.header) == (TEMPLATES, ["name", "topic"], FRAME.header)


def test_the_same_file_is_judged_the_same(judge: Callable[..., object]) -> None:
    """A second worker comes to the same verdict."""
    rules: Ruleset = ruleset()
    content = a_file(row("x"), row(name="’"), row("6581234567"))
    first, second = judge(content, rules), judge(content, rules)
    assert first == second
