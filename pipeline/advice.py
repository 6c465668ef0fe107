"""What a value should have been: the part of a sentence that depends on what stands there."""

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np
import polars as pl

from pipeline.rules import AVOIDABLE, CONTROL
from postern.model import Language
from postern.sms.characters import avoidable_in
from postern.sms.recipients import BARE_NUMBER, LOCAL_CODE

_LISTED = 10  # characters named one by one
_LONGEST = 40  # characters of a language that is worth a guess; difflib's time and memory grow with the length
_GUESSED = 200  # different unknown languages of a chunk for which the one that was meant is looked for
_DIGITS, _ENOUGH_DIGITS = r"\A[0-9]+\z", r"\A[0-9]{7,15}\z"
_SHORTENED = r"\A[0-9](\.[0-9]+)?[eE]\+?[0-9]+\z"
_SHORTENED_ADVICE = "was shortened by a spreadsheet: format the column as text and enter the number again"
_BARE = rf"\A{BARE_NUMBER}\z"


def recipient_advice(values: pl.Series, _offered: str) -> pl.Series:
    """What is wrong with recipients that no number can be; the first case that fits."""
    value = pl.col("value")
    frame = pl.DataFrame({"value": values})
    kinds = frame.select_seq(digits=value.str.contains(_DIGITS), shortened=value.str.contains(_SHORTENED))
    digits, shortened = kinds["digits"].to_numpy(), kinds["shortened"].to_numpy()
    advice = pl.Series([_SHORTENED_ADVICE], dtype=pl.String).new_from_index(0, len(values))
    for flags, advise in ((digits, _on_digits(value)), (~(digits | shortened), _on_others(value))):
        places = np.flatnonzero(flags)
        if places.size:
            advice = advice.scatter(places, frame[places].select_seq(advise).to_series())
    return advice


def _on_digits(value: pl.Expr) -> pl.Expr:
    length = (
        pl.when(value.str.len_bytes() > _LONGEST)
        .then(pl.lit("too many"))
        .otherwise(value.str.len_bytes().cast(pl.String))
    )
    return (
        pl.when(value.str.contains(_BARE))
        .then(f"lacks the country code: put {LOCAL_CODE} in front ({LOCAL_CODE}" + value + ")")
        .when(value.str.starts_with("0"))
        .then(pl.lit("starts with 0: start with the country code, such as 6591234567"))
        .when(value.str.starts_with(LOCAL_CODE))
        .then("has " + length + f" digits: a number of country code {LOCAL_CODE} has 8 more digits")
        .otherwise(pl.lit("is no possible phone number: check its country code and its length"))
    )


def _on_others(value: pl.Expr) -> pl.Expr:
    whole = value.str.replace(r"\.0+\z", "")  # as spreadsheets export what they take for a decimal number
    digits = whole.str.replace_all(r"[\s\-().]", "").str.strip_prefix("+")
    full = pl.when(digits.str.contains(_BARE)).then(LOCAL_CODE + digits).otherwise(digits)
    return (
        pl.when(digits.str.contains(_ENOUGH_DIGITS))
        .then("has more than digits: leave out +, spaces, dashes and dots (" + full + ")")
        .otherwise(pl.lit("is no phone number: use digits only, with the country code, such as 6591234567"))
    )


def language_advice(values: pl.Series, offered: str) -> pl.Series:
    """Which language was meant, where one is near; else which ones there are."""
    names = [language.value for language in Language]
    guessed = set(values.unique(maintain_order=True).head(_GUESSED))

    def tell(value: str) -> str:
        is_guessed = value in guessed and len(value) <= _LONGEST
        near = get_close_matches(value.strip().lower(), names, n=1) if is_guessed else []
        return f"{near[0]} was probably meant" if near else f"use {offered}"

    return _each(values, tell)


def avoidable_advice(values: pl.Series, _offered: str) -> pl.Series:
    """The avoidable characters of values, each with its replacement."""
    return _each(values.str.replace_all(f"[^{AVOIDABLE[1:]}+", ""), _characters_advice)


def control_names(values: pl.Series, _offered: str) -> pl.Series:
    """The first control character of values."""
    return _each(values.str.extract(f"({CONTROL})").str.head(1), _control_name)


def counts(values: pl.Series, _offered: str) -> pl.Series:
    """Numbers as people write them."""
    return _each(values, lambda count: f"{int(count):,}")


def _each(values: pl.Series, tell: Callable[[str], str]) -> pl.Series:
    """The text for each value, made once for equal ones."""
    listed = values.to_list()
    told = {value: tell(value) for value in set(listed)}
    return pl.Series([told[value] for value in listed], dtype=pl.String)


def _characters_advice(characters: str) -> str:
    found = avoidable_in(characters)
    named = [f"{entry.code_point} {entry.name} ({entry.advice})" for entry in found[:_LISTED]]
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return ", ".join(named + more)


def _control_name(character: str) -> str:
    names = {"\t": "a tab", "\r": "a carriage return without a line feed", "\x00": "a NUL"}
    return names.get(character, f"a control character (U+{ord(character):04X})")
