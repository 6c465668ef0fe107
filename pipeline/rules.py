"""The rules over columns: every error and every warning of a chunk of rows, in one pass.

Takes and returns polars frames and does no I/O. Findings are a frame of (row, column, code, detail); their
sentences are made elsewhere, for the rows that need one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.ruleset import Ruleset
from postern.model import Environment, Language
from postern.sms.characters import GSM_BASIC, GSM_EXTENSION, avoidable_characters
from postern.sms.recipients import FAKE_NUMBERS, LOCAL_CODE, MOBILE_STARTS, is_possible
from postern.sms.segments import GSM_PART, GSM_SINGLE, UCS2_PART, UCS2_SINGLE, count_segments
from postern.sms.template import LONG_BODY, MAX_BODY, PLACEHOLDER

RECIPIENT, LANGUAGE = "recipient", "language"
ROW, SEGMENTS, UNICODE = "__row", "__segments", "__unicode"  # no parameter can be called so
FINDINGS = {"row": pl.UInt32, "column": pl.String, "code": pl.String, "detail": pl.String}
MANY_SEGMENTS = 6
_LONGEST_NUMBER = 15  # digits (ITU-T E.164)


def _class(characters: Sequence[str] | frozenset[str]) -> str:
    return "[" + "".join(f"\\x{{{ord(character):X}}}" for character in sorted(characters)) + "]"


_AVOIDABLE = _class(tuple(avoidable_characters()))
_GSM_ONLY = rf"\A{_class(GSM_BASIC | GSM_EXTENSION)}*\z"
_EXTENDED = _class(GSM_EXTENSION)
_CONTROL = r"[\x00-\x09\x0B-\x1F\x7F-\x{9F}]"  # after CRLF has become LF
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"
_EDGE_SPACE = r"\A\s|\s\z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the rules found in a chunk."""

    errors: pl.DataFrame  # FINDINGS
    warnings: pl.DataFrame  # FINDINGS
    rows: pl.DataFrame  # ROW, RECIPIENT, LANGUAGE (lower case), SEGMENTS, UNICODE, the parameters
    has_avoidable_character: bool


def judge(frame: pl.DataFrame, rules: Ruleset) -> Judged:
    """Judge rows that have as many fields as the header.

    Args:
        frame: ROW and the columns of the file, all text.
        rules: what to judge by.
    """
    frame = frame.with_columns(pl.col(LANGUAGE).str.to_lowercase().alias("__language"))
    frame = _with_texts(frame, rules)
    avoidable = [_avoidable_error(frame, name) for name in rules.parameters]
    errors = [
        *_recipient_errors(frame),
        *_language_errors(frame, rules),
        *(found for name in rules.parameters for found in _parameter_errors(frame, name)),
        *avoidable,
        _found(frame, pl.col("__body_length") > MAX_BODY, None, "message_too_long", pl.col("__body_length")),
    ]
    return Judged(
        errors=pl.concat(errors),
        warnings=pl.concat(_warnings(frame, rules)),
        rows=frame.select(
            ROW,
            RECIPIENT,
            pl.col("__language").alias(LANGUAGE),
            SEGMENTS,
            UNICODE,
            *rules.parameters,
        ),
        has_avoidable_character=any(found.height for found in avoidable),
    )


def _found(
    frame: pl.DataFrame, condition: pl.Expr, column: str | None, code: str, detail: pl.Expr | None = None
) -> pl.DataFrame:
    return frame.filter(condition).select(
        pl.col(ROW).alias("row"),
        pl.lit(column, dtype=pl.String).alias("column"),
        pl.lit(code).alias("code"),
        (pl.lit("") if detail is None else detail.cast(pl.String)).alias("detail"),
    )


def _recipient_errors(frame: pl.DataFrame) -> list[pl.DataFrame]:
    value = pl.col(RECIPIENT)
    frame = frame.select(ROW, RECIPIENT).with_columns(
        value.str.contains(r"\A[0-9]+\z").alias("digits"),
        value.str.slice(0, 3).alias("prefix"),
        value.str.len_bytes().alias("length"),
    )
    shapes = frame.filter("digits").select("prefix", "length").unique()
    possible = [length <= _LONGEST_NUMBER and is_possible(prefix, length) for prefix, length in shapes.iter_rows()]
    frame = frame.join(
        shapes.with_columns(pl.Series("possible", possible, dtype=pl.Boolean)), on=["prefix", "length"], how="left"
    )
    return [
        _found(frame, value == "", RECIPIENT, "recipient_missing"),
        _found(
            frame,
            (value != "") & ~(pl.col("digits") & pl.col("possible").fill_null(value=False)),
            RECIPIENT,
            "recipient_invalid",
            value,
        ),
    ]


def _language_errors(frame: pl.DataFrame, rules: Ruleset) -> list[pl.DataFrame]:
    raw, lower = pl.col(LANGUAGE), pl.col("__language")
    known = lower.is_in([language.value for language in Language])
    offered = lower.is_in([language.value for language in rules.templates])
    return [
        _found(frame, raw == "", LANGUAGE, "language_missing"),
        _found(frame, (raw != "") & ~known, LANGUAGE, "language_unknown", raw),
        _found(frame, known & ~offered, LANGUAGE, "language_unavailable", lower),
    ]


def _parameter_errors(frame: pl.DataFrame, name: str) -> list[pl.DataFrame]:
    value = pl.col(name)
    controlled = value.str.replace_all("\r\n", "\n", literal=True)
    return [
        _found(frame, value == "", name, "parameter_missing"),
        _found(frame, value.str.contains(_EDGE_SPACE), name, "parameter_edge_space", value),
        _found(frame, controlled.str.contains(_CONTROL), name, "parameter_control_character", value),
    ]


def _avoidable_error(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    english = pl.col("__language") == Language.ENGLISH.value
    found = english & pl.col(name).str.contains(_AVOIDABLE)
    return _found(frame, found, name, "parameter_avoidable_character", pl.col(name))


def _with_texts(frame: pl.DataFrame, rules: Ruleset) -> pl.DataFrame:
    """Render every row whose language is offered, and count its body, encoding and segments."""
    body, full = pl.lit(None, dtype=pl.String), pl.lit(None, dtype=pl.String)
    for language, template in rules.templates.items():
        this = pl.col("__language") == language.value
        rendered = _rendered(template)
        before, after = rules.frame.around("\0", language).split("\0")
        body = pl.when(this).then(rendered).otherwise(body)
        full = pl.when(this).then(pl.concat_str(pl.lit(before), rendered, pl.lit(after))).otherwise(full)
    frame = frame.with_columns(body.str.len_chars().alias("__body_length"), full.alias("__full"))
    frame = frame.with_columns((~pl.col("__full").str.contains(_GSM_ONLY)).alias(UNICODE))
    return frame.with_columns(_segments(frame).alias(SEGMENTS)).drop("__full")


def _rendered(template: str) -> pl.Expr:
    # PLACEHOLDER has one group, so split gives plain text and parameter names in turn.
    parts = PLACEHOLDER.split(template)
    return pl.concat_str([pl.col(part) if place % 2 else pl.lit(part) for place, part in enumerate(parts)])


def _segments(frame: pl.DataFrame) -> pl.Series:
    """Segments by arithmetic where nothing can straddle a boundary, one by one where something could."""
    text = pl.col("__full")
    doubles = pl.when(UNICODE).then(text.str.count_matches(_ASTRAL)).otherwise(text.str.count_matches(_EXTENDED))
    counted = frame.select(text, UNICODE, doubles=doubles, units=text.str.len_chars() + doubles)
    single = pl.when(UNICODE).then(UCS2_SINGLE).otherwise(GSM_SINGLE)
    part = pl.when(UNICODE).then(UCS2_PART).otherwise(GSM_PART)
    plain = pl.when(pl.col("units") <= single).then(1).otherwise((pl.col("units") + part - 1) // part)
    counted = counted.with_columns(
        segments=plain.cast(pl.UInt32), hard=(pl.col("units") > single) & (pl.col("doubles") > 0)
    )
    segments = counted["segments"].clone()
    hard = counted.with_row_index("place").filter("hard")
    if hard.height:
        segments = segments.scatter(hard["place"], [count_segments(text) for text in hard["__full"]])
    return segments


def _warnings(frame: pl.DataFrame, rules: Ruleset) -> list[pl.DataFrame]:
    recipient = pl.col(RECIPIENT)
    local = recipient.str.contains(rf"\A{LOCAL_CODE}[0-9]{{8}}\z")
    mobile = pl.any_horizontal(recipient.str.starts_with(LOCAL_CODE + start) for start in MOBILE_STARTS)
    english = pl.col("__language") == Language.ENGLISH.value
    found = [
        _found(frame, pl.col("__body_length") > LONG_BODY, None, "body_over_320", pl.col("__body_length")),
        _found(frame, pl.col(SEGMENTS) > MANY_SEGMENTS, None, "segments_over_6", pl.col(SEGMENTS)),
        _found(frame, local & ~mobile, RECIPIENT, "local_number_unusual", recipient),
        _found(frame, english & pl.col(UNICODE), None, "unexpected_unicode"),
    ]
    if rules.environment is Environment.PRODUCTION:
        found.append(_found(frame, recipient.is_in(list(FAKE_NUMBERS)), RECIPIENT, "fake_number", recipient))
    return found
