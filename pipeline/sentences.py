"""What people are told: one plain sentence a finding, naming the column and what to do.

One table from code to sentence. Values are shown where that helps and where they are short; nothing that a
sentence starts with can be run as a formula by a spreadsheet.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from postern.model import Language
from postern.sms.characters import avoidable_in
from postern.sms.recipients import LOCAL_CODE, lacks_calling_code
from postern.sms.template import LONG_BODY, MAX_BODY

_SHOWN = 40  # characters of a value
_LISTED = 10  # characters named one by one
_PLAIN = {
    "recipient_missing": "recipient is empty: give a phone number with its country code, such as 6591234567",
    "language_missing": "language is empty: give one of {offered}",
    "language_unavailable": "language {shown} is not offered by this campaign: use {offered}",
    "parameter_missing": "{column} is empty: every row needs a value for it",
    "parameter_edge_space": "{column} starts or ends with a space: remove it",
    "message_too_long": f"message has {{number}} characters with its values; {MAX_BODY:,} is the limit: shorten them",
    "row_too_few_fields": "row has {detail}: add what is missing; put values that hold line breaks in quotation marks",
    "row_too_many_fields": "row has {detail}: put values that hold commas in quotation marks",
    "body_over_320": f"message has {{number}} characters; over {LONG_BODY} it is delivered more slowly",
    "segments_over_6": "message takes {detail} segments; over 6 delivery is not certain and costs more",
    "duplicate_recipient": "recipient {shown} stands in an earlier row, too, and gets more than one message",
    "duplicate_row": "row is the same as an earlier one",
    "fake_number": "recipient {detail} is a number for tests",
    "local_number_unusual": "recipient {detail} starts with neither 8 nor 9 after 65 and may be no mobile number",
    "unexpected_unicode": "message has characters outside the GSM alphabet, which makes it take more segments",
}
_COUNTED = {"message_too_long", "body_over_320"}  # their detail is a number of ours


def sentence(code: str, *, column: str | None, detail: str, offered: Sequence[str]) -> str:
    """The sentence for a finding.

    Args:
        code: of SPEC's table of errors and warnings.
        column: the column of the file, None for the row.
        detail: what the rule found: the value, or a number, depending on the code.
        offered: the languages of the campaign.
    """
    if code == "recipient_invalid":
        return f"recipient {_recipient_advice(detail)}"
    if code == "language_unknown":
        return f"language {_language_advice(detail, offered)}"
    if code == "parameter_avoidable_character":
        return f"{column} has characters to avoid: {_avoidable_advice(detail)}"
    if code == "parameter_control_character":
        return f"{column} has {_control_name(detail)}: remove it"
    number = f"{int(detail):,}" if code in _COUNTED else ""
    return _PLAIN[code].format(
        column=column, detail=detail, number=number, shown=shown(detail), offered=", ".join(offered)
    )


def shown(value: str) -> str:
    """A value as a sentence shows it: short, on one line, in quotation marks."""
    flat = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", value)
    return f'"{flat}"' if len(flat) <= _SHOWN else f'"{flat[:_SHOWN]}…" ({len(value):,} characters)'


def _recipient_advice(value: str) -> str:
    whole = re.sub(r"\.0+\Z", "", value)  # as spreadsheets export what they take for a decimal number
    digits = re.sub(r"[\s\-().]", "", whole).removeprefix("+")
    if re.fullmatch(r"[0-9](\.[0-9]+)?[eE]\+?[0-9]+", value):
        return f"{shown(value)} was shortened by a spreadsheet: format the column as text and enter the number again"
    if lacks_calling_code(value):
        return f"{shown(value)} lacks the country code: write {LOCAL_CODE}{value}"
    if digits != value and re.fullmatch("[0-9]+", digits):
        full = f"{LOCAL_CODE}{digits}" if lacks_calling_code(digits) else digits
        return f"{shown(value)} has more than digits: write {full}, without +, spaces and dashes"
    if not re.fullmatch("[0-9]+", value):
        return f"{shown(value)} is no phone number: use digits only, with the country code, such as 6591234567"
    return _number_advice(value)


def _number_advice(value: str) -> str:
    if value.startswith("0"):
        return f"{shown(value)} starts with 0: start with the country code, such as 6591234567"
    if value.startswith("65"):
        return f"{shown(value)} has {len(value)} digits: a number of country code 65 has 8 more digits"
    return f"{shown(value)} is no possible phone number: check its country code and its length"


def _language_advice(value: str, offered: Sequence[str]) -> str:
    names = [language.value for language in Language]
    near = get_close_matches(value.strip().lower(), names, n=1)
    if near:
        return f"{shown(value)} is unknown: {near[0]} was probably meant"
    return f"{shown(value)} is unknown: use {', '.join(offered)}"


def _avoidable_advice(value: str) -> str:
    found = avoidable_in(value)
    named = [f"{entry.code_point} {entry.name} ({entry.advice})" for entry in found[:_LISTED]]
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return ", ".join(named + more)


def _control_name(value: str) -> str:
    without_line_ends = value.replace("\r\n", "").replace("\n", "")
    character = next(found for found in without_line_ends if ord(found) < 0x20 or 0x7F <= ord(found) <= 0x9F)  # noqa: PLR2004
    names = {"\t": "a tab", "\r": "a carriage return without a line feed", "\x00": "a NUL"}
    return names.get(character, f"a control character (U+{ord(character):04X})")
