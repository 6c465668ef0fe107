"""What a file's errors, warnings, counts and segments are, by the contract alone: slow, plain, one row at a time.

It shares no code with the pipeline: its own reader of RFC 4180, character by character, its own rules and its own
segment counter. A file error is told by its code; the codes of headers as `file_header`.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber, ValidationResult, is_possible_number_with_reason

GSM = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_DOUBLE = "\f^{}\\[~]|€"
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
LANGUAGES = ("english", "chinese", "malay", "tamil")
LONGEST_RECORD = 3 << 20  # bytes
FAKE = ("6590000000", "6599999999", "6588888888")

with files("postern.sms").joinpath("avoidable_characters.csv").open(encoding="utf-8") as table:
    AVOIDABLE = {chr(int(row["code_point"].replace("U+", "0x"), 0)) for row in csv.DictReader(table)}


class FileError(Exception):
    """The file has an error as a whole; the text is its code."""


@dataclass(frozen=True)
class Rules:
    """What the files of a campaign are judged by."""

    templates: Mapping[str, str]
    parameters: Sequence[str]
    header: str
    footers: Mapping[str, str]
    environment: str


@dataclass
class Judgement:
    """What is to be said of a file."""

    file_error: str | None = None
    total_rows: int = 0
    errors: set[tuple[int, str | None, str]] = field(default_factory=set)
    warnings: Counter[str] = field(default_factory=Counter)
    has_avoidable_character: bool = False
    has_unicode: bool = False
    segments: int = 0
    local_segments: int = 0
    messages: list[tuple[int, str, str, dict[str, str], int]] = field(default_factory=list)

    @property
    def bad_rows(self) -> set[int]:
        """The numbers of the rows with errors."""
        return {row for row, _column, _code in self.errors}


def judge(data: bytes, rules: Rules) -> Judgement:
    """Judge a file."""
    try:
        return _judged(_text(data), rules)
    except FileError as error:
        return Judgement(file_error=str(error))


def _text(data: bytes) -> str:
    plain = data[3:] if data[:3] == b"\xef\xbb\xbf" else data
    if not plain:
        raise FileError("file_empty")
    if b"\0" in data:
        raise FileError("file_encoding")
    try:
        return plain.decode("utf-8")
    except UnicodeDecodeError:
        raise FileError("file_encoding") from None


def read_records(text: str, longest: int | None = None) -> Iterator[list[str] | None]:
    """The records of a text, which may be so many bytes long with their line ends; None for a blank line."""
    place = 0
    while place < len(text):
        line_end = next((end for end in ("\r\n", "\n") if text.startswith(end, place)), None)
        if line_end:
            yield None
            place += len(line_end)
            continue
        fields, start = [], place
        while True:
            value, place = _field(text, place)
            fields.append(value)
            if not text.startswith(",", place):
                break
            place += 1
        place += 2 if text.startswith("\r\n", place) else 1
        if longest is not None and len(text[start:place].encode()) > longest:
            raise FileError("file_quoting")
        yield fields


def _field(text: str, place: int) -> tuple[str, int]:
    """The field that starts at a place, and the place of what ends it: a comma, a line end or the end."""
    if text.startswith('"', place):
        value, place = _quoted(text, place + 1)
        if place < len(text) and text[place] not in ",\r\n":
            raise FileError("file_quoting")
    else:
        start = place
        while place < len(text) and text[place] not in ",\r\n":
            if text[place] == '"':
                raise FileError("file_quoting")
            place += 1
        value = text[start:place]
    if text.startswith("\r", place) and not text.startswith("\r\n", place):
        raise FileError("file_encoding")
    return value, place


def _quoted(text: str, place: int) -> tuple[str, int]:
    value = ""
    while place < len(text):
        if text.startswith('""', place):
            value, place = value + '"', place + 2
        elif text[place] == '"':
            return value, place + 1
        else:
            value, place = value + text[place], place + 1
    raise FileError("file_quoting")


def _judged(text: str, rules: Rules) -> Judgement:
    records = enumerate(read_records(text, LONGEST_RECORD), start=1)
    header = next((fields for _row, fields in records if fields is not None), None)
    if header is None:
        raise FileError("file_empty")
    columns = header[:-1] if header[-1] == "Error Reason" else header
    if sorted(columns) != sorted(["recipient", "language", *rules.parameters]):
        raise FileError("file_header")
    rows = [(row, fields) for row, fields in records if fields is not None]
    if rules.environment == "test" and len(rows) > 20:
        raise FileError("file_too_many_rows")
    if not rows:
        raise FileError("file_no_rows")
    judgement = Judgement(total_rows=len(rows))
    earlier: set[tuple[str, ...]] = set()
    recipients: set[str] = set()
    for row, fields in rows:
        if len(fields) != len(header):
            few = len(fields) < len(header)
            judgement.errors.add((row, None, "row_too_few_fields" if few else "row_too_many_fields"))
            continue
        values = dict(zip(columns, fields, strict=False))
        _judge_row(judgement, row, values, rules)
        lower = values["language"].lower()
        values["language"] = lower if lower in LANGUAGES else values["language"]
        if values["recipient"]:
            judgement.warnings["duplicate_recipient"] += values["recipient"] in recipients
            recipients.add(values["recipient"])
        judgement.warnings["duplicate_row"] += tuple(values.values()) in earlier
        earlier.add(tuple(values.values()))
    judgement.warnings = +judgement.warnings
    return judgement


def _judge_row(judgement: Judgement, row: int, values: Mapping[str, str], rules: Rules) -> None:
    recipient, language = values["recipient"], values["language"].lower()
    judgement.errors |= {(row, column, code) for column, code in _cell_errors(values, rules)}
    judgement.has_avoidable_character |= any(
        found_row == row and code == "parameter_avoidable_character" for found_row, _, code in judgement.errors
    )
    judgement.warnings.update(_recipient_warnings(recipient, rules))
    if language not in rules.templates:
        return
    body = re.sub(r"{{(\w+)}}", lambda match: values[match[1]], rules.templates[language])
    full = f"{rules.header}\n\n---\n\n{body}\n\n---\n\n{rules.footers[language]}"
    unicode = not is_gsm(full)
    segments = count_segments(full)
    if len(body) > 1000:
        judgement.errors.add((row, None, "message_too_long"))
        segments = 0  # it cannot be sent
    judgement.warnings["body_over_320"] += len(body) > 320
    judgement.warnings["segments_over_6"] += segments > 6
    judgement.warnings["unexpected_unicode"] += unicode and language == "english"
    judgement.has_unicode |= unicode
    judgement.segments += segments
    judgement.local_segments += segments * recipient.startswith("65")
    parameters = {name: values[name] for name in rules.parameters}
    judgement.messages.append((row, recipient, language, parameters, segments))


def _cell_errors(values: Mapping[str, str], rules: Rules) -> Iterator[tuple[str, str]]:
    if not values["recipient"]:
        yield "recipient", "recipient_missing"
    elif not is_possible(values["recipient"]):
        yield "recipient", "recipient_invalid"
    language = values["language"].lower()
    if not language:
        yield "language", "language_missing"
    elif language not in LANGUAGES:
        yield "language", "language_unknown"
    elif language not in rules.templates:
        yield "language", "language_unavailable"
    for name in rules.parameters:
        for code in _value_errors(values[name], english=language == "english"):
            yield name, code


def _value_errors(value: str, *, english: bool) -> Iterator[str]:
    if not value:
        yield "parameter_missing"
        return
    if value[0] in WHITE_SPACE or value[-1] in WHITE_SPACE:
        yield "parameter_edge_space"
    rest = value.replace("\r\n", "").replace("\n", "")
    if any(ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in rest):
        yield "parameter_control_character"
    if english and any(character in AVOIDABLE for character in value):
        yield "parameter_avoidable_character"


def _recipient_warnings(recipient: str, rules: Rules) -> Iterator[str]:
    if rules.environment == "production" and recipient in FAKE:
        yield "fake_number"
    if re.fullmatch("65[0-9]{8}", recipient) and recipient[2] not in "89":
        yield "local_number_unusual"


def is_possible(recipient: str) -> bool:
    """Whether a recipient is a number that can exist, calling code first."""
    if not re.fullmatch("[1-9][0-9]{0,14}", recipient):
        return False
    if recipient.startswith("65"):
        return len(recipient) == 10
    if len(recipient) == 8 and recipient[0] in "89":
        return False
    for length in (1, 2, 3):
        code, national = int(recipient[:length]), recipient[length:]
        if code in COUNTRY_CODE_TO_REGION_CODE:
            return bool(national) and _is_possible_national(code, national)
    return False


def _is_possible_national(code: int, national: str) -> bool:
    significant = national.lstrip("0")
    number = PhoneNumber(
        country_code=code,
        national_number=int(significant or "0"),
        italian_leading_zero=len(significant) < len(national) or None,
        number_of_leading_zeros=(len(national) - len(significant or "0")) or None,
    )
    return is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE


def is_gsm(text: str) -> bool:
    """Whether a text can travel in GSM-7."""
    return all(character in GSM or character in GSM_DOUBLE for character in text)


def count_segments(text: str) -> int:
    """The segments of a text: one where all of it fits, else as many as it fills, cut before what does not fit."""
    if is_gsm(text):
        pieces, single, part = [["esc", c] if c in GSM_DOUBLE else [c] for c in text], 160, 153
    else:
        pieces, single, part = [["high", "low"] if ord(c) > 0xFFFF else [c] for c in text], 70, 67
    if len([unit for piece in pieces for unit in piece]) <= single:
        return 1
    segments: list[list[str]] = [[]]
    for piece in pieces:
        if len(segments[-1] + piece) > part:
            segments.append([])
        segments[-1].extend(piece)
    return len(segments)
