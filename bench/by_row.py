"""Rivals that look at one row at a time, and the patterns that all rivals share.

Each function takes a path and returns how many rows it finds bad.
"""

import csv
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from bench.files import FRAME, HEADER, PARAMETERS, TEMPLATES
from postern.model import Language
from postern.sms.characters import GSM, avoidable_characters
from postern.sms.recipients import is_possible
from postern.sms.template import MAX_BODY, PLACEHOLDER, render

LOCAL = r"65[0-9]{8}"
CONTROL = r"[\x00-\x09\x0B-\x1F\x7F-\x9F]"
AVOIDABLE = "[" + "".join(map(re.escape, avoidable_characters())) + "]"
NOT_GSM = "[^" + "".join(map(re.escape, sorted(GSM))) + "]"
LANGUAGES = [language.value for language in TEMPLATES]
PLAIN = {language.value: PLACEHOLDER.sub("", body) for language, body in TEMPLATES.items()}
SAMPLE = 20_000  # rows for what is too slow for a whole file


def plain(path: Path) -> int:
    """The csv module and plain Python."""
    bad, numbers, whole, segments = 0, set[str](), set[tuple[str, ...]](), 0
    repeated = 0
    for fields in _records(path):
        row = dict(zip(HEADER, fields, strict=True))
        bad += bool(_problems(row))
        segments += _segments(row)
        repeated += row["recipient"] in numbers or tuple(fields) in whole
        numbers.add(row["recipient"])
        whole.add(tuple(fields))
    return bad


def _records(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        next(reader)
        yield from reader


_LOCAL = re.compile(LOCAL)
_CONTROL = re.compile(CONTROL)
_AVOIDABLE = re.compile(AVOIDABLE)
_possible = cache(is_possible)


def _problems(row: dict[str, str]) -> list[str]:
    language = row["language"].lower()
    problems = [] if is_number(row["recipient"]) else ["recipient"]
    if language not in PLAIN:
        problems.append("language")
    for name in PARAMETERS:
        problems += _problems_of_value(row[name], language)
    if language in PLAIN and len(PLAIN[language]) + sum(len(row[name]) for name in PARAMETERS) > MAX_BODY:
        problems.append("message")
    return problems


def is_number(value: str) -> bool:
    """Whether it is a possible phone number."""
    if _LOCAL.fullmatch(value):
        return True
    return value.isascii() and value.isdigit() and len(value) <= 15 and _possible(value[:3], len(value))


def _problems_of_value(value: str, language: str) -> list[str]:
    problems = []
    if not value:
        problems.append("missing")
    if value.strip() != value:
        problems.append("edge space")
    if _CONTROL.search(value):
        problems.append("control character")
    if language == "english" and _AVOIDABLE.search(value):
        problems.append("avoidable character")
    return problems


def _segments(row: dict[str, str]) -> int:
    """Segments by division, from the rendered text."""
    if row["language"].lower() not in PLAIN:
        return 0
    language = Language(row["language"].lower())
    text = FRAME.around(render(TEMPLATES[language], row), language)
    if GSM.issuperset(text):
        return 1 if len(text) <= 160 else -(-len(text) // 153)
    units = len(text.encode("utf-16-le")) // 2
    return 1 if units <= 70 else -(-units // 67)


def pydantic(path: Path) -> int:
    """A pydantic model for each row."""
    library: Any = import_module("pydantic")
    model = _model(library)
    bad, numbers = 0, set[str]()
    repeated = 0
    for fields in _records(path):
        try:
            model.model_validate(dict(zip(HEADER, fields, strict=True)))
        except library.ValidationError:
            bad += 1
        repeated += fields[0] in numbers
        numbers.add(fields[0])
    return bad


def _model(library: Any) -> Any:
    text = Annotated[str, library.Field(min_length=1), library.AfterValidator(_trimmed)]
    return library.create_model(
        "Row",
        recipient=(Annotated[str, library.AfterValidator(_possible_number)], ...),
        language=(Annotated[str, library.AfterValidator(_offered)], ...),
        **dict.fromkeys(PARAMETERS, (text, ...)),
        __validators__={"whole": library.model_validator(mode="after")(_whole)},
    )


def _possible_number(value: str) -> str:
    if not is_number(value):
        raise ValueError("no possible number")
    return value


def _trimmed(value: str) -> str:
    if value.strip() != value or _CONTROL.search(value):
        raise ValueError("edge space or control character")
    return value


def _offered(value: str) -> str:
    if value.lower() not in PLAIN:
        raise ValueError("unknown language")
    return value


def _whole(row: Any) -> Any:
    language, values = row.language.lower(), [getattr(row, name) for name in PARAMETERS]
    if len(PLAIN[language]) + sum(map(len, values)) > MAX_BODY:
        raise ValueError("message too long")
    if language == "english" and any(map(_AVOIDABLE.search, values)):
        raise ValueError("avoidable character")
    return row


def frictionless(path: Path) -> int:
    """Patterns of a frictionless schema, on the first rows only."""
    library: Any = import_module("frictionless")
    constraints: dict[str, dict[str, Any]] = {
        "recipient": {"required": True, "pattern": r"(65[0-9]{8}|(?!65)[0-9]{9,15})"},
        "language": {"required": True, "enum": LANGUAGES},
        **{name: {"required": True, "pattern": r"[^\s\x00-\x1F]([^\x00-\x1F]*[^\s\x00-\x1F])?"} for name in PARAMETERS},
    }
    fields = [{"name": name, "type": "string", "constraints": found} for name, found in constraints.items()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*islice(csv.reader(file), SAMPLE + 1)]
    resource = library.Resource(data=rows, schema=library.Schema.from_descriptor({"fields": fields}))
    report = resource.validate(limit_errors=1_000_000)
    return len({error[0] for error in report.flatten(["rowNumber"])})
