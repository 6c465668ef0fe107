"""Rivals that look at whole columns.

Each function takes a path and returns how many rows it finds bad.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from bench.by_row import AVOIDABLE, CONTROL, LANGUAGES, LOCAL, NOT_GSM, PLAIN, is_number
from bench.files import FRAME, HEADER, PARAMETERS
from postern.model import Language
from postern.sms.characters import GSM
from postern.sms.template import MAX_BODY


def pandas(path: Path) -> int:
    """The rules vectorised with pandas."""
    pd: Any = import_module("pandas")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    language = frame["language"].str.lower()
    bad = ~_possible_numbers(frame["recipient"]) | ~language.isin(LANGUAGES)
    length, is_unicode = language.map({name: len(text) for name, text in PLAIN.items()}).fillna(0), False
    for name in PARAMETERS:
        value = frame[name]
        length = length + value.str.len()
        is_unicode = is_unicode | value.str.contains(NOT_GSM)
        bad |= (value == "") | (value.str.strip() != value) | value.str.contains(CONTROL)
        bad |= (language == "english") & value.str.contains(AVOIDABLE)
    bad |= length > MAX_BODY
    _segments(language, length, is_unicode)
    frame["recipient"].duplicated()
    frame.duplicated()
    return int(bad.sum())


def _possible_numbers(recipient: Any) -> Any:
    """Which recipients are possible; few have to be looked at one by one."""
    good = recipient.str.fullmatch(LOCAL)
    return good | recipient.where(~good, "").map(is_number)


def _segments(language: Any, length: Any, is_unicode: Any) -> Any:
    around = {name: len(FRAME.around("", Language(name))) for name in LANGUAGES}
    foreign = [name for name in LANGUAGES if not GSM.issuperset(FRAME.around(PLAIN[name], Language(name)))]
    units = length + language.map(around).fillna(0)
    is_unicode = is_unicode | language.isin(foreign)
    gsm = (-(-units // 153)).where(units > 160, 1)
    return (-(-units // 67)).where(units > 70, 1).where(is_unicode, gsm)


def dataframely(path: Path) -> int:
    """A dataframely schema; its rules are expressions of polars."""
    library: Any = import_module("dataframely")

    def rule(condition: pl.Expr) -> Any:
        return library.rule()(lambda _cls: condition)

    columns = {name: library.String(nullable=False) for name in HEADER}
    rules = {name: rule(condition) for name, condition in _polars_rules().items()}
    schema: Any = type("Row", (library.Schema,), columns | rules)
    _, failure = schema.filter(_polars_frame(path))
    failure.counts()
    return len(failure)


def pandera(path: Path) -> int:
    """A pandera schema over polars; its checks are the same expressions."""
    library: Any = import_module("pandera.polars")

    def check(condition: pl.Expr) -> Any:
        return library.Check(lambda data: data.lazyframe.select(condition))

    checks = [check(condition) for condition in _polars_rules().values()]
    schema = library.DataFrameSchema({name: library.Column(str) for name in HEADER}, checks=checks)
    try:
        schema.validate(_polars_frame(path), lazy=True)
    except library.errors.SchemaErrors as errors:
        return int(errors.failure_cases["index"].n_unique())
    return 0


def _number_rule() -> pl.Expr:
    value = pl.col("recipient")
    length = value.str.len_bytes()
    local = value.str.starts_with("65")
    return value.str.contains(r"\A[0-9]+\z") & pl.when(local).then(length == 10).otherwise(length.is_between(9, 15))


def _language_rule() -> pl.Expr:
    return pl.col("language").str.to_lowercase().is_in(LANGUAGES)


def _value_rule(name: str) -> pl.Expr:
    value = pl.col(name)
    english = pl.col("language").str.to_lowercase() == "english"
    clean = (value != "") & (value.str.strip_chars() == value) & ~value.str.contains(CONTROL)
    return clean & ~(english & value.str.contains(AVOIDABLE))


def _length_rule() -> pl.Expr:
    around = (
        pl.col("language")
        .str.to_lowercase()
        .replace_strict({name: len(text) for name, text in PLAIN.items()}, default=0, return_dtype=pl.Int64)
    )
    return around + pl.sum_horizontal(pl.col(name).str.len_chars() for name in PARAMETERS) <= MAX_BODY


def _polars_rules() -> dict[str, pl.Expr]:
    rules = {"number": _number_rule(), "offered": _language_rule(), "length": _length_rule()}
    return rules | {f"clean_{name}": _value_rule(name) for name in PARAMETERS}


def _polars_frame(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False, empty_string_is_null=False)
