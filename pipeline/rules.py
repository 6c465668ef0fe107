"""The rules over columns: every error and every warning of a chunk of rows, in one pass.

Takes and returns polars frames and does no I/O. Findings are a frame of (row, column, code, detail); their
sentences are made elsewhere, for the rows that need one. What is dear (alphabets, control characters, segments
of texts that could straddle a boundary) is asked only of odd rows: those with a character that is not a plain one
of the GSM alphabet. Texts are not rendered to be counted: lengths add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.chunks import ROW, Chunk
from pipeline.ruleset import Ruleset
from postern.model import Environment, Language
from postern.sms.characters import GSM_BASIC, GSM_EXTENSION, avoidable_characters, is_gsm
from postern.sms.recipients import FAKE_NUMBERS, LOCAL_CODE, MOBILE_STARTS, is_possible
from postern.sms.segments import GSM_PART, GSM_SINGLE, UCS2_PART, UCS2_SINGLE, count_segments
from postern.sms.template import LONG_BODY, MAX_BODY, PLACEHOLDER

RECIPIENT, LANGUAGE = "recipient", "language"
SEGMENTS, UNICODE = "__segments", "__unicode"  # no parameter can be called so
FINDINGS = {"row": pl.UInt32, "column": pl.String, "code": pl.String, "detail": pl.String}
MANY_SEGMENTS = 6
MOST_SHOWN = 2_000  # characters of a recipient or language that a sentence is made from
_LONGEST_NUMBER = 15  # digits (ITU-T E.164)
_LOWER, _LOCAL, _BODY, _ODD = "__language", "__local", "__body", "__odd"
_UNITS, _DOUBLES, _STRADDLES = "__units", "__doubles", "__straddles"


def _class(characters: Sequence[str] | frozenset[str]) -> str:
    return "[" + "".join(f"\\x{{{ord(character):X}}}" for character in sorted(characters)) + "]"


AVOIDABLE = _class(tuple(avoidable_characters()))
CONTROL = r"[\x00-\x09\x0B-\x1F\x7F-\x{9F}]"  # after CRLF has become LF
_NOT_GSM = f"[^{_class(GSM_BASIC | GSM_EXTENSION)[1:]}"
_EXTENDED = _class(GSM_EXTENSION)
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"
_ODD_ASCII = r"[\x00-\x09\x0B-\x1F\x7F\[\\\]\^`{|}~]"
_LOCAL_NUMBER = rf"\A{LOCAL_CODE}[0-9]{{8}}\z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the rules found in a chunk."""

    errors: pl.DataFrame  # FINDINGS by row; in a row in the order of the columns, what concerns all of it comes last
    warnings: pl.DataFrame  # FINDINGS, likewise
    rows: pl.DataFrame  # ROW, RECIPIENT, LANGUAGE (lower case), SEGMENTS, UNICODE, the parameters
    total: int  # rows, the ragged ones too
    has_avoidable_character: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A condition of one column, or of the row, and the code of those rows where it holds."""

    column: str | None
    code: str
    holds: pl.Expr
    detail: pl.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What a language's messages hold besides the values."""

    body: int  # characters of the template without its placeholders
    full: str  # header, template without its placeholders, footer
    occurrences: Mapping[str, int]  # of each parameter


def judge(chunk: Chunk, rules: Ruleset) -> Judged:
    """Judge the rows of a chunk."""
    columns = chunk.frame.columns
    texts = {language: _text(rules, language) for language in rules.templates}
    frame = _prepared(chunk.frame, rules, texts, is_plain=chunk.is_plain)
    errors = [
        *_ragged(chunk.ragged, len(columns) - 1),
        *_impossible_recipients(frame),
        *_apply(frame, _rules_of_all_rows(rules)),
        *_apply(frame.filter(_ODD), _rules_of_odd_rows(rules)),
    ]
    return Judged(
        errors=_in_order(errors, columns),
        warnings=_in_order(_apply(frame, _warnings(rules)), columns),
        rows=frame.select(ROW, RECIPIENT, pl.col(_LOWER).alias(LANGUAGE), SEGMENTS, UNICODE, *rules.parameters),
        total=frame.height + chunk.ragged.height,
        has_avoidable_character=any(found["code"][0] == "parameter_avoidable_character" for found in errors),
    )


def _text(rules: Ruleset, language: Language) -> _Text:
    parts = PLACEHOLDER.split(rules.templates[language])  # plain text and parameter names in turn
    plain = "".join(parts[0::2])
    return _Text(
        body=len(plain),
        full=rules.frame.around(plain, language),
        occurrences={name: parts[1::2].count(name) for name in rules.parameters},
    )


def _prepared(frame: pl.DataFrame, rules: Ruleset, texts: Mapping[Language, _Text], *, is_plain: bool) -> pl.DataFrame:
    """Add what the rules ask for: the language in lower case, body length, oddness, encoding, segments."""
    lengths = {name: pl.col(name).str.len_chars() for name in rules.parameters}
    odd = pl.lit(value=False) if is_plain else pl.any_horizontal(False, *map(_is_odd, rules.parameters))  # noqa: FBT003
    frame = frame.with_columns(
        pl.col(LANGUAGE).str.to_lowercase().alias(_LOWER),
        pl.col(RECIPIENT).str.contains(_LOCAL_NUMBER).alias(_LOCAL),
        odd.alias(_ODD),
    )
    body = _by_language(texts, lambda text: _added(text.body, lengths, text)).alias(_BODY)
    is_unicode = _by_language(texts, lambda text: pl.lit(not is_gsm(text.full))).alias(UNICODE)
    frame = frame.with_columns(body, is_unicode)
    return _with_segments(_with_units(frame, rules, texts), rules)


def _is_odd(name: str) -> pl.Expr:
    text = pl.col(name).str
    return (text.len_bytes() != text.len_chars()) | text.contains(_ODD_ASCII)


def _by_language(texts: Mapping[Language, _Text], value: Callable[[_Text], pl.Expr]) -> pl.Expr:
    """The value of each row's language; null where the campaign does not offer it."""
    chosen = pl.lit(None)
    for language, text in texts.items():
        chosen = pl.when(pl.col(_LOWER) == language.value).then(value(text)).otherwise(chosen)
    return chosen


def _added(start: int, sizes: Mapping[str, pl.Expr], text: _Text) -> pl.Expr:
    total = pl.lit(start, dtype=pl.Int32)
    for name, count in text.occurrences.items():
        total = total + sizes[name].cast(pl.Int32) * count
    return total


def _with_units(frame: pl.DataFrame, rules: Ruleset, texts: Mapping[Language, _Text]) -> pl.DataFrame:
    """Add the units that each full message takes, and how many of its characters take two of them."""
    places = frame[_ODD].arg_true()
    doubles = _by_language(texts, lambda text: pl.lit(_doubles_in(text.full), dtype=pl.Int32))
    frame = frame.with_columns(doubles.alias(_DOUBLES))
    if places.len():
        odd = _with_odd_doubles(frame[places], rules, texts)
        frame = frame.with_columns(frame[name].scatter(places, odd[name]) for name in (UNICODE, _DOUBLES))
    around = _by_language(texts, lambda text: pl.lit(len(text.full) - text.body, dtype=pl.Int32))
    return frame.with_columns((pl.col(_BODY) + around + pl.col(_DOUBLES)).alias(_UNITS))


def _with_odd_doubles(odd: pl.DataFrame, rules: Ruleset, texts: Mapping[Language, _Text]) -> pl.DataFrame:
    columns = {name: pl.col(name).str for name in rules.parameters}
    foreign = pl.any_horizontal(False, *(column.contains(_NOT_GSM) for column in columns.values()))  # noqa: FBT003
    is_offered = pl.col(UNICODE).is_not_null()
    odd = odd.with_columns(pl.when(is_offered).then(pl.col(UNICODE) | foreign).alias(UNICODE))
    extended = {name: column.count_matches(_EXTENDED) for name, column in columns.items()}
    astral = {name: column.count_matches(_ASTRAL) for name, column in columns.items()}
    return odd.with_columns(
        pl.when(UNICODE)
        .then(_by_language(texts, lambda text: _added(_astral_in(text.full), astral, text)))
        .otherwise(_by_language(texts, lambda text: _added(_extended_in(text.full), extended, text)))
        .alias(_DOUBLES)
    )


def _with_segments(frame: pl.DataFrame, rules: Ruleset) -> pl.DataFrame:
    """Count segments: by arithmetic where nothing can straddle a boundary, one by one where something could."""
    single = pl.when(UNICODE).then(UCS2_SINGLE).otherwise(GSM_SINGLE)
    part = pl.when(UNICODE).then(UCS2_PART).otherwise(GSM_PART)
    units = pl.col(_UNITS)
    segments = pl.when(units <= single).then(1).otherwise((units + part - 1) // part).cast(pl.UInt32)
    frame = frame.with_columns(segments.alias(SEGMENTS), ((units > single) & (pl.col(_DOUBLES) > 0)).alias(_STRADDLES))
    places = frame[_STRADDLES].fill_null(value=False).arg_true()
    if places.is_empty():
        return frame
    texts = frame[places].select(_full_text(rules)).to_series()
    counted = pl.Series([count_segments(text) for text in texts], dtype=pl.UInt32)
    return frame.with_columns(frame[SEGMENTS].scatter(places, counted))


def _doubles_in(text: str) -> int:
    return _extended_in(text) if is_gsm(text) else _astral_in(text)


def _extended_in(text: str) -> int:
    return sum(character in GSM_EXTENSION for character in text)


def _astral_in(text: str) -> int:
    return sum(ord(character) > 0xFFFF for character in text)  # noqa: PLR2004 - the last character of the BMP


def _full_text(rules: Ruleset) -> pl.Expr:
    text = pl.lit(None, dtype=pl.String)
    for language, template in rules.templates.items():
        before, after = rules.frame.around("\0", language).split("\0")
        parts = PLACEHOLDER.split(template)
        body = [pl.col(part) if place % 2 else pl.lit(part) for place, part in enumerate(parts)]
        full = pl.concat_str(pl.lit(before), *body, pl.lit(after))
        text = pl.when(pl.col(_LOWER) == language.value).then(full).otherwise(text)
    return text.alias("text")


def _apply(frame: pl.DataFrame, rules: Sequence[_Rule]) -> list[pl.DataFrame]:
    """The findings of each rule that holds anywhere. All conditions are evaluated side by side."""
    flags = frame.select(rule.holds.fill_null(value=False).alias(str(place)) for place, rule in enumerate(rules))
    pairs = zip(rules, flags.iter_columns(), strict=True)
    return [_found(frame.filter(flag), rule) for rule, flag in pairs if flag.any()]


def _ragged(ragged: pl.DataFrame, width: int) -> list[pl.DataFrame]:
    """Records that have not as many fields as the header."""
    count = pl.col("count")
    plural = pl.when(count == 1).then(pl.lit("")).otherwise(pl.lit("s"))
    detail = pl.format("{} field{} where the header has {}", count, plural, width)
    few = _rule(None, "row_too_few_fields", count < width, detail)
    many = _rule(None, "row_too_many_fields", count > width, detail)
    return _apply(ragged, [few, many])


def _impossible_recipients(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Recipients that no number can be. Those of the service's own country are judged by their shape alone."""
    value, shown = pl.col(RECIPIENT), pl.col(RECIPIENT).str.head(MOST_SHOWN)
    others = frame.filter(~pl.col(_LOCAL) & (value != "")).select(ROW, RECIPIENT)
    others = others.with_columns(
        value.str.contains(r"\A[0-9]+\z").alias("digits"),
        value.str.slice(0, 3).alias("prefix"),
        value.str.len_bytes().alias("length"),
    )
    shapes = others.filter("digits").select("prefix", "length").unique()
    possible = [length <= _LONGEST_NUMBER and is_possible(prefix, length) for prefix, length in shapes.iter_rows()]
    shapes = shapes.with_columns(pl.Series("possible", possible, dtype=pl.Boolean))
    others = others.join(shapes, on=["prefix", "length"], how="left", maintain_order="left")
    impossible = ~(pl.col("digits") & pl.col("possible").fill_null(value=False))
    return _apply(others, [_rule(RECIPIENT, "recipient_invalid", impossible, shown)])


def _rules_of_all_rows(rules: Ruleset) -> list[_Rule]:
    recipient, raw, lower = pl.col(RECIPIENT), pl.col(LANGUAGE), pl.col(_LOWER)
    known = lower.is_in([language.value for language in Language])
    offered = lower.is_in([language.value for language in rules.templates])
    found = [
        _rule(RECIPIENT, "recipient_missing", recipient == ""),
        _rule(LANGUAGE, "language_missing", raw == ""),
        _rule(LANGUAGE, "language_unknown", (raw != "") & ~known, raw.str.head(MOST_SHOWN)),
        _rule(LANGUAGE, "language_unavailable", known & ~offered, lower),
        _rule(None, "message_too_long", pl.col(_BODY) > MAX_BODY, pl.col(_BODY)),
    ]
    for name in rules.parameters:
        value = pl.col(name)
        edge = value.str.strip_chars().str.len_bytes() != value.str.len_bytes()  # strips what Unicode calls white space
        found += [_rule(name, "parameter_missing", value == ""), _rule(name, "parameter_edge_space", edge)]
    return found


def _rules_of_odd_rows(rules: Ruleset) -> list[_Rule]:
    english = pl.col(_LOWER) == Language.ENGLISH.value
    found = []
    for name in rules.parameters:
        value = pl.col(name)
        controlled = value.str.replace_all("\r\n", "\n", literal=True).str.contains(CONTROL)
        avoidable = english & value.str.contains(AVOIDABLE)
        found += [
            _rule(name, "parameter_control_character", controlled, value),
            _rule(name, "parameter_avoidable_character", avoidable, value),
        ]
    return found


def _warnings(rules: Ruleset) -> list[_Rule]:
    recipient, english = pl.col(RECIPIENT), pl.col(_LOWER) == Language.ENGLISH.value
    mobile = recipient.str.starts_with(LOCAL_CODE + MOBILE_STARTS[0]) | recipient.str.starts_with(
        LOCAL_CODE + MOBILE_STARTS[1]
    )
    unusual = pl.col(_LOCAL) & ~mobile
    found = [
        _rule(None, "body_over_320", pl.col(_BODY) > LONG_BODY, pl.col(_BODY)),
        _rule(None, "segments_over_6", pl.col(SEGMENTS) > MANY_SEGMENTS, pl.col(SEGMENTS)),
        _rule(RECIPIENT, "local_number_unusual", unusual, recipient),
        _rule(None, "unexpected_unicode", english & pl.col(UNICODE)),
    ]
    if rules.environment is Environment.PRODUCTION:
        found.append(_rule(RECIPIENT, "fake_number", recipient.is_in(list(FAKE_NUMBERS)), recipient))
    return found


def _rule(column: str | None, code: str, holds: pl.Expr, detail: pl.Expr | None = None) -> _Rule:
    return _Rule(column=column, code=code, holds=holds, detail=pl.lit("") if detail is None else detail)


def _found(frame: pl.DataFrame, rule: _Rule) -> pl.DataFrame:
    return frame.select(
        pl.col(ROW).alias("row"),
        pl.lit(rule.column, dtype=pl.String).alias("column"),
        pl.lit(rule.code).alias("code"),
        rule.detail.cast(pl.String).alias("detail"),
    )


def _in_order(found: Sequence[pl.DataFrame], columns: Sequence[str]) -> pl.DataFrame:
    """Findings by row, column and code; each frame holds those of one column and code, in order."""
    order = {name: place for place, name in enumerate(columns)}
    by_column = sorted(found, key=lambda findings: (order.get(findings["column"][0], len(order)), findings["code"][0]))
    together = pl.concat([pl.DataFrame(schema=FINDINGS), *by_column])
    return together.sort("row", maintain_order=True) if len(found) > 1 else together
