"""`postern segments`: what it counts, for people and for programs, from an argument and from standard input."""

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from postern.cli.app import app


def run(*arguments: str, text: str | bytes | None = None, status: int = 0) -> str:
    """What it prints."""
    result = CliRunner().invoke(app, ["segments", *arguments], input=text)
    assert result.exit_code == status, result.output
    return result.output


def found(*arguments: str, text: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(*arguments, "--json", text=text))
    return document


def test_a_document_for_programs() -> None:
    """Encoding, units, where each segment begins and ends, and what makes it dearer."""
    document = found("汉" * 66 + "😀’" + "汉" * 3)
    assert {name: document[name] for name in ("encoding", "characters", "units", "segments")} == {
        "encoding": "UCS-2",
        "characters": 71,
        "units": 72,
        "segments": 2,
    }
    assert [(part["start"], part["end"], part["units"]) for part in document["parts"]] == [(0, 66, 66), (66, 71, 6)]
    assert document["parts"][1]["text"] == "😀’汉汉汉"
    assert document["avoidableCharacters"] == [
        {
            "codePoint": "U+2019",
            "character": "’",
            "name": "RIGHT SINGLE QUOTATION MARK",
            "replacement": "'",
            "positions": [67],
        }
    ]
    assert [(one["codePoint"], len(one["positions"])) for one in document["otherUnicodeCharacters"]] == [
        ("U+6C49", 69),
        ("U+1F600", 1),
    ]


def test_a_plain_text() -> None:
    """One segment, nothing to be avoided."""
    document = found("Dear Emily")
    assert (document["encoding"], document["segments"], document["units"]) == ("GSM-7", 1, 10)
    assert document["avoidableCharacters"] == document["otherUnicodeCharacters"] == []


@pytest.mark.parametrize(("given", "units"), [("abc\n", 3), ("abc\r\n", 3), ("abc\n\n", 4), ("abc", 3), ("", 0)])
def test_standard_input_without_its_line_end(given: str, units: int) -> None:
    """The one that `echo` and editors add; others belong to the text."""
    assert found(text=given)["units"] == units


def test_a_page_for_people() -> None:
    """Boundaries counted from one, replacements, and no control character that a terminal would obey."""
    shown = run("a" * 153 + "[b]\x1b\n" + "c" * 10)
    assert "UCS-2" in shown  # for the escape
    shown = run("a" * 153 + "[b]\n" + "c" * 10)
    lines = [line.split() for line in shown.splitlines()]
    assert ["segments", "2"] in lines
    assert "1–153" in shown
    assert "154–167" in shown
    assert ["U+005B", "LEFT", "SQUARE", "BRACKET", "(", "154"] in lines
    assert "[b]\\n" in shown
    assert "\x1b" not in run("\x1b[31mred")


def test_what_is_no_text_is_refused() -> None:
    """With where it stops being one."""
    assert "not UTF-8 at byte 3" in run(text=b"ab\xff", status=1)
    command = [sys.executable, "-P", "-m", "postern", "segments", b"ab\xff"]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (ended.returncode, b"not UTF-8 at character 3" in ended.stderr) == (1, True)
