"""What people are told: one plain sentence a finding, naming the column and what to do.

One table from code to sentence, made for all findings of a code at once. Values are shown where that helps and where
they are short; nothing that a sentence starts with can be run as a formula by a spreadsheet.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import polars as pl

from pipeline.chunks import ROW
from pipeline.rules import AVOIDABLE, CONTROL, FINDINGS, MOST_SHOWN
from postern.model import Language
from postern.sms.characters import avoidable_in
from postern.sms.recipients import BARE_NUMBER, LOCAL_CODE
from postern.sms.template import LONG_BODY, MAX_BODY

_SHOWN = 40  # characters of a value
_LISTED = 10  # characters named one by one
_GUESSED = 200  # different unknown languages of a chunk for which the one that was meant is looked for

_COLUMN, _DETAIL = pl.col("column"), pl.col("detail")


def sentences(findings: pl.DataFrame, offered: Sequence[str]) -> pl.Series:
    """The sentence of each finding.

    Args:
        findings: row, column, code, detail; see `pipeline.rules`.
        offered: the languages of the campaign.
    """
    told = pl.Series("sentence", [""], dtype=pl.String).new_from_index(0, findings.height)
    codes = findings["code"]
    for code in codes.unique():
        places = (codes == code).arg_true()
        told = told.scatter(places, _of_code(code, findings[places], offered))
    return told


def reasons(findings: pl.DataFrame, offered: Sequence[str]) -> pl.DataFrame:
    """What is wrong with each row that has findings: ROW and `reason`. Findings and reasons are in order."""
    told = findings.select(pl.col("row").alias(ROW), sentences(findings, offered).alias("reason"))
    if told[ROW].n_unique() == told.height:
        return told
    return told.group_by(ROW, maintain_order=True).agg(pl.col("reason").str.join("; "))


def sentence(code: str, *, column: str | None, detail: str, offered: Sequence[str]) -> str:
    """The sentence of one finding."""
    finding = pl.DataFrame([(0, column, code, detail)], schema=FINDINGS, orient="row")
    return str(sentences(finding, offered)[0])


def _of_code(code: str, findings: pl.DataFrame, offered: Sequence[str]) -> pl.Series:
    parts = _parts(code, findings["detail"], ", ".join(offered))
    texts = [pl.lit(part) if isinstance(part, str | pl.Series) else part for part in parts]
    # The empty head of a column makes the result as high as the findings, also where all parts are constant.
    return findings.select(pl.concat_str(_DETAIL.str.head(0), *texts)).to_series()


def _parts(code: str, details: pl.Series, offered: str) -> Sequence[pl.Expr | pl.Series | str]:
    """What the sentence of a code is put together from."""
    if code == "language_unknown":
        return ("language ", _shown(_DETAIL), " is unknown: ", _meant(details, offered))
    if code == "parameter_avoidable_character":
        found = details.str.replace_all(f"[^{AVOIDABLE[1:]}+", "")
        return (_COLUMN, " has characters to avoid: ", _each(found, _avoidable_advice))
    if code == "parameter_control_character":
        found = details.str.replace_all("\r\n", "\n", literal=True).str.extract(f"({CONTROL})")
        return (_COLUMN, " has ", _each(found, _control_name), ": remove it")
    if code in {"message_too_long", "body_over_320"}:
        return ("message has ", _each(details, lambda count: f"{int(count):,}"), *_TABLE[code])
    if code in {"language_missing", "language_unavailable"}:
        return (*_TABLE[code], offered)
    return _TABLE[code]


def _each(values: pl.Series, tell: Callable[[str], str]) -> pl.Series:
    """The text for each value, made once for equal ones."""
    different = values.unique()
    return values.replace_strict(different, [tell(value) for value in different], return_dtype=pl.String)


def _shown(value: pl.Expr) -> pl.Expr:
    """A value as a sentence shows it: short, on one line, in quotation marks."""
    flat = value.str.replace_all(r"[\x00-\x1f\x7f-\x{9f}]+", " ")
    cut = pl.concat_str(
        pl.lit('"'),
        flat.str.head(_SHOWN),
        pl.lit('…" ('),
        value.str.len_chars().cast(pl.String),
        pl.when(value.str.len_chars() == MOST_SHOWN).then(pl.lit(" or more")).otherwise(pl.lit("")),
        pl.lit(" characters)"),
    )
    whole = pl.concat_str(pl.lit('"'), flat, pl.lit('"'))
    return pl.when(value.str.len_chars() <= _SHOWN).then(whole).otherwise(cut)


def _recipient_advice(value: pl.Expr) -> pl.Expr:
    """What is wrong with a recipient that no number can be; the first case that fits."""
    bare = rf"\A{BARE_NUMBER}\z"
    whole = value.str.replace(r"\.0+\z", "")  # as spreadsheets export what they take for a decimal number
    digits = whole.str.replace_all(r"[\s\-().]", "").str.strip_prefix("+")
    full = pl.when(digits.str.contains(bare)).then(LOCAL_CODE + digits).otherwise(digits)
    length = value.str.len_bytes().cast(pl.String)
    return (
        pl.when(value.str.contains(r"\A[0-9](\.[0-9]+)?[eE]\+?[0-9]+\z"))
        .then(pl.lit("was shortened by a spreadsheet: format the column as text and enter the number again"))
        .when(value.str.contains(bare))
        .then(f"lacks the country code: put {LOCAL_CODE} in front ({LOCAL_CODE}" + value + ")")
        .when((digits != value) & digits.str.contains(r"\A[0-9]+\z"))
        .then("has more than digits: leave out +, spaces and dashes (" + full + ")")
        .when(~value.str.contains(r"\A[0-9]+\z"))
        .then(pl.lit("is no phone number: use digits only, with the country code, such as 6591234567"))
        .when(value.str.starts_with("0"))
        .then(pl.lit("starts with 0: start with the country code, such as 6591234567"))
        .when(value.str.starts_with(LOCAL_CODE))
        .then("has " + length + f" digits: a number of country code {LOCAL_CODE} has 8 more digits")
        .otherwise(pl.lit("is no possible phone number: check its country code and its length"))
    )


def _meant(values: pl.Series, offered: str) -> pl.Series:
    names = [language.value for language in Language]
    guessed = set(values.unique(maintain_order=True).head(_GUESSED))

    def tell(value: str) -> str:
        is_guessed = value in guessed and len(value) <= _SHOWN  # difflib's time and memory grow with the length
        near = get_close_matches(value.strip().lower(), names, n=1) if is_guessed else []
        return f"{near[0]} was probably meant" if near else f"use {offered}"

    return _each(values, tell)


def _avoidable_advice(characters: str) -> str:
    found = avoidable_in(characters)
    named = [f"{entry.code_point} {entry.name} ({entry.advice})" for entry in found[:_LISTED]]
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return ", ".join(named + more)


def _control_name(character: str) -> str:
    names = {"\t": "a tab", "\r": "a carriage return without a line feed", "\x00": "a NUL"}
    return names.get(character, f"a control character (U+{ord(character):04X})")


_TABLE: dict[str, Sequence[pl.Expr | str]] = {
    "recipient_missing": ("recipient is empty: give a phone number with its country code, such as 6591234567",),
    "recipient_invalid": ("recipient ", _shown(_DETAIL), " ", _recipient_advice(_DETAIL)),
    "language_missing": ("language is empty: give one of ",),
    "language_unavailable": ("language ", _shown(_DETAIL), " is not offered by this campaign: use "),
    "parameter_missing": (_COLUMN, " is empty: every row needs a value for it"),
    "parameter_edge_space": (_COLUMN, " starts or ends with a space: remove it"),
    "message_too_long": (f" characters with its values; {MAX_BODY:,} is the limit: shorten them",),
    "row_too_few_fields": (
        "row has ", _DETAIL, ": add what is missing; put values that hold line breaks in quotation marks",
    ),
    "row_too_many_fields": ("row has ", _DETAIL, ": put values that hold commas in quotation marks"),
    "body_over_320": (f" characters; over {LONG_BODY} it is delivered more slowly",),
    "segments_over_6": ("message takes ", _DETAIL, " segments; over 6 delivery is not certain and costs more"),
    "duplicate_recipient": (
        "recipient ", _shown(_DETAIL), " stands in an earlier row, too, and gets more than one message",
    ),
    "duplicate_row": ("row is the same as an earlier one",),
    "fake_number": ("recipient ", _DETAIL, " is a number for tests"),
    "local_number_unusual": (
        "recipient ", _DETAIL, " starts with neither 8 nor 9 after 65 and may be no mobile number",
    ),
    "unexpected_unicode": ("message has characters outside the GSM alphabet, which makes it take more segments",),
}  # fmt: skip
