"""The rules over columns: every error and every warning of a chunk of rows, in one pass.

Takes and returns columns and does no I/O. Findings are a frame of (row, column, code, detail); their sentences are
made elsewhere, for the rows that need one. A rule is asked only where the chunk's characters allow it to hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.chunks import ROW, Chunk
from pipeline.findings import Findings
from pipeline.measure import LANGUAGE, RECIPIENT, Flags, Measure, Measured, class_of
from pipeline.numbers import judge_recipients
from pipeline.ruleset import Ruleset
from postern.model import Language
from postern.sms.characters import avoidable_characters
from postern.sms.template import LONG_BODY, MAX_BODY

AVOIDABLE_CODE, CONTROL_CODE = "parameter_avoidable_character", "parameter_control_character"
EDGE_CODE, MISSING_CODE = "parameter_edge_space", "parameter_missing"
AVOIDABLE = class_of(tuple(avoidable_characters()))
# All but the line feed, and the carriage return before it; the character that is meant comes first.
CONTROL = r"[\x00-\x09\x0B\x0C\x0E-\x1F\x7F-\x{9F}]|\r(?:[^\n]|\z)"
MANY_SEGMENTS = 6
SEGMENTS, UNICODE = "__segments", "__unicode"  # no parameter can be called so


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the rules found in a chunk."""

    errors: pl.DataFrame  # FINDINGS by row; in a row in the order of the columns, what concerns all of it comes last
    warnings: pl.DataFrame  # FINDINGS, likewise
    rows: pl.DataFrame  # ROW, RECIPIENT, LANGUAGE (lower case), SEGMENTS, UNICODE, the parameters
    total: int  # rows, the ragged ones too
    has_avoidable_character: bool


class Judge:
    """Judges the rows of a file, chunk by chunk."""

    def __init__(self, rules: Ruleset, columns: Sequence[str]) -> None:
        """Take the rules, and the columns in the order of the file."""
        self._rules = rules
        self._measure = Measure(rules)
        self._order = {name: place for place, name in enumerate(columns)}

    def __call__(self, chunk: Chunk) -> Judged:
        """Every finding of a chunk."""
        errors, warnings, frame = Findings(self._order), Findings(self._order), chunk.frame
        measured = self._measure(chunk)
        judge_recipients(errors, warnings, frame, self._rules.environment)
        _judge_languages(errors, frame, measured, len(self._rules.templates))
        _judge_values(errors, frame, self._rules.parameters, has_quotes=chunk.has_quotes)
        is_english = (measured.languages == Language.ENGLISH.value).to_numpy()
        if chunk.odd.any():
            _judge_odd_values(errors, chunk, chunk.odd_columns(self._rules.parameters), is_english)
        _judge_messages(errors, warnings, frame[ROW], measured, is_english)
        _judge_ragged(errors, chunk)
        return Judged(
            errors=errors.frame(),
            warnings=warnings.frame(),
            rows=frame.select_seq(ROW, RECIPIENT, *self._rules.parameters).with_columns_seq(
                measured.languages.alias(LANGUAGE),
                pl.Series(SEGMENTS, measured.segments, dtype=pl.UInt32),
                pl.Series(UNICODE, measured.is_unicode),
            ),
            total=chunk.height,
            has_avoidable_character=AVOIDABLE_CODE in errors.codes,
        )


def _judge_languages(errors: Findings, frame: pl.DataFrame, measured: Measured, none: int) -> None:
    others = np.flatnonzero(measured.offered == none)
    if not others.size:
        return
    rows, raw, lower = frame[ROW][others], frame[LANGUAGE][others], measured.languages[others]
    is_missing, is_known = (raw == "").to_numpy(), lower.is_in([language.value for language in Language]).to_numpy()
    errors.add(LANGUAGE, "language_missing", rows, is_missing, None)
    errors.add(LANGUAGE, "language_unknown", rows, ~is_missing & ~is_known, raw)
    errors.add(LANGUAGE, "language_unavailable", rows, is_known, lower)


def _judge_values(errors: Findings, frame: pl.DataFrame, names: Sequence[str], *, has_quotes: bool) -> None:
    has_edge = _has_edge if has_quotes else _has_space  # without quotes any other white space makes a row odd
    _add(errors, frame[ROW], MISSING_CODE, frame.select_seq((pl.col(name) == "").alias(name) for name in names))
    _add(errors, frame[ROW], EDGE_CODE, frame.select_seq(has_edge(name) for name in names))


def _judge_odd_values(errors: Findings, chunk: Chunk, names: Sequence[str], is_english: Flags) -> None:
    """What only values with characters that are not plain can have."""
    if not names:
        return
    is_odd = chunk.odd.to_numpy()
    odd, english = (
        chunk.frame.select_seq(ROW, *names)[np.flatnonzero(flags)] for flags in (is_odd, is_odd & is_english)
    )
    avoidable = english.select_seq(pl.col(name).str.contains(AVOIDABLE) for name in names)
    _add(errors, english[ROW], AVOIDABLE_CODE, avoidable, english)
    if chunk.alphabet.has_control:
        control = odd.select_seq(pl.col(name).str.contains(CONTROL) for name in names)
        _add(errors, odd[ROW], CONTROL_CODE, control, odd)
    if not chunk.has_quotes:
        _add(errors, odd[ROW], EDGE_CODE, odd.select_seq(_has_edge(name) & ~_has_space(name) for name in names))


def _judge_messages(
    errors: Findings, warnings: Findings, rows: pl.Series, measured: Measured, is_english: Flags
) -> None:
    body, segments = measured.body, measured.segments
    errors.add(None, "message_too_long", rows, body > MAX_BODY, pl.Series(body))
    warnings.add(None, "body_over_320", rows, body > LONG_BODY, pl.Series(body))
    warnings.add(None, "segments_over_6", rows, segments > MANY_SEGMENTS, pl.Series(segments))
    warnings.add(None, "unexpected_unicode", rows, is_english & measured.is_unicode, None)


def _judge_ragged(errors: Findings, chunk: Chunk) -> None:
    """Records that have not as many fields as the header."""
    if chunk.ragged.is_empty():
        return
    count, width = chunk.ragged["count"], chunk.frame.width - 1
    plural = pl.when(pl.col("count") == 1).then(pl.lit("")).otherwise(pl.lit("s"))
    found = chunk.ragged.select_seq(pl.format("{} field{} where the header has {}", "count", plural, width)).to_series()
    errors.add(None, "row_too_few_fields", chunk.ragged[ROW], (count < width).to_numpy(), found)
    errors.add(None, "row_too_many_fields", chunk.ragged[ROW], (count > width).to_numpy(), found)


def _add(errors: Findings, rows: pl.Series, code: str, flags: pl.DataFrame, values: pl.DataFrame | None = None) -> None:
    """Add the findings of a code whose flags stand in a column of the name of theirs."""
    for flag in flags.iter_columns():
        if flag.any():
            errors.add(flag.name, code, rows, flag.to_numpy(), None if values is None else values[flag.name])


def _has_space(name: str) -> pl.Expr:
    return pl.col(name).str.starts_with(" ") | pl.col(name).str.ends_with(" ")


def _has_edge(name: str) -> pl.Expr:
    """Whether a value starts or ends with anything that Unicode calls white space."""
    return pl.col(name).str.strip_chars().str.len_bytes() != pl.col(name).str.len_bytes()
