"""What people are told: one plain sentence a finding, naming the column and what to do.

One table from code to sentence; the sentences of all findings are put together at once. Values are shown where that
helps and where they are short; nothing that a sentence starts with can be run as a formula by a spreadsheet.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.advice import avoidable_advice, control_names, counts, language_advice, recipient_advice
from pipeline.chunks import ROW
from pipeline.findings import FINDINGS
from pipeline.rules import AVOIDABLE_CODE, CONTROL_CODE
from postern.sms.template import LONG_BODY, MAX_BODY

# Behind the name of the column, where there is one: {value} and {advice} in this order, each at most once.
_TABLE = {
    "recipient_missing": " is empty: give a phone number with its country code, such as 6591234567",
    "recipient_invalid": " {value} {advice}",
    "language_missing": " is empty: give one of {offered}",
    "language_unknown": " {value} is unknown: {advice}",
    "language_unavailable": " {value} is not offered by this campaign: use {offered}",
    "parameter_missing": " is empty: every row needs a value for it",
    "parameter_edge_space": " starts or ends with white space (a space, tab or line break): remove it",
    "parameter_avoidable_character": " has characters to avoid: {advice}",
    "parameter_control_character": " has {advice}: remove it",
    "message_too_long": f"message has {{advice}} characters with its values; {MAX_BODY:,} is the limit: shorten them",
    "row_too_few_fields": "row has {advice}: add what is missing; put values that hold line breaks in quotation marks",
    "row_too_many_fields": "row has {advice}: put values that hold commas in quotation marks",
    "body_over_320": f"message has {{advice}} characters; over {LONG_BODY} it is delivered more slowly",
    "segments_over_6": "message takes {advice} segments; over 6 delivery is not certain and costs more",
    "duplicate_recipient": " stands in row {advice}, too, and gets more than one message",
    "duplicate_row": "row is the same as row {advice}",
    "fake_number": " {advice} is a number for tests",
    "local_number_unusual": " {advice} starts with neither 8 nor 9 after 65 and may be no mobile number",
    "unexpected_unicode": "message has characters outside the GSM alphabet, which makes it take more segments",
}
_ADVICE: Mapping[str, Callable[[pl.Series, str], pl.Series]] = {
    "recipient_invalid": recipient_advice,
    "language_unknown": language_advice,
    AVOIDABLE_CODE: avoidable_advice,
    CONTROL_CODE: control_names,
    "message_too_long": counts,
    "body_over_320": counts,
}  # of the others the detail itself
_CODES = pl.Enum(list(_TABLE))
_SHOWN = 40  # characters of a value
_MOST_SHOWN = 2_000  # characters of a value that are looked at
_BREAKS = r"[\x00-\x1f\x7f-\x{9f}]"  # line ends, tabs, and what else is not shown


def sentences(findings: pl.DataFrame, offered: Sequence[str]) -> pl.Series:
    """The sentence of each finding.

    Args:
        findings: row, column, code, detail; see `pipeline.rules`.
        offered: the languages of the campaign.
    """
    languages = ", ".join(offered)
    kinds = findings["code"].cast(_CODES).to_physical().to_numpy()
    by_code = np.argsort(kinds, kind="stable")
    details = findings["detail"].gather(by_code)
    values, advice, start = [_empty(0)], [_empty(0)], 0
    for code, count in zip(_TABLE, np.bincount(kinds, minlength=len(_TABLE)).tolist(), strict=True):
        if count:
            value, advised = _of_code(code, details.slice(start, count), languages)
            values.append(value)
            advice.append(advised)
            start += count
    places = np.empty_like(by_code)
    places[by_code] = np.arange(by_code.size)
    before, between, behind = (pieces.gather(kinds) for pieces in _pieces(languages))
    value, advised = (pl.concat(told).gather(places) for told in (values, advice))
    parts = [findings["column"].fill_null(""), before, value, between, advised, behind]
    frame = pl.DataFrame({str(place): part for place, part in enumerate(parts)})
    return frame.select_seq(pl.concat_str(pl.all())).to_series()


def _of_code(code: str, details: pl.Series, offered: str) -> tuple[pl.Series, pl.Series]:
    """The value and the advice of each finding of a code; empty where the sentence has none."""
    value = advice = _empty(len(details))
    if "{value}" in _TABLE[code]:
        details = details.str.head(_MOST_SHOWN)
        value = _shown(details)
    if "{advice}" in _TABLE[code]:
        advice = _ADVICE[code](details, offered) if code in _ADVICE else details
    return value, advice


def _pieces(offered: str) -> list[pl.Series]:
    """By code: what stands before the value, before the advice, and behind it."""
    pieces = []
    for text in _TABLE.values():
        before, _, rest = text.replace("{offered}", offered).partition("{value}")
        if not rest and "{advice}" in before:
            before, rest = "", before  # no value
        between, _, behind = rest.partition("{advice}")
        pieces.append((before, between, behind))
    return [pl.Series(column, dtype=pl.String) for column in zip(*pieces, strict=True)]


def _shown(values: pl.Series) -> pl.Series:
    """Values as a sentence shows them: short, on one line, in quotation marks."""
    frame, value = pl.DataFrame({"value": values}), pl.col("value")
    size = value.str.len_chars()
    if frame.select_seq(value.str.contains(_BREAKS).any()).item():
        frame = frame.with_columns_seq(value.str.replace_all(f"{_BREAKS}+", " ").alias("flat"), size.alias("size"))
    else:
        frame = frame.with_columns_seq(value.alias("flat"), size.alias("size"))
    whole = pl.concat_str(pl.lit('"'), "flat", pl.lit('"'))
    if (frame["size"] <= _SHOWN).all():
        return frame.select_seq(whole).to_series()
    or_more = pl.when(pl.col("size") == _MOST_SHOWN).then(pl.lit(" or more")).otherwise(pl.lit(""))
    start = pl.col("flat").str.head(_SHOWN)
    cut = pl.concat_str(pl.lit('"'), start, pl.lit('…" ('), "size", or_more, pl.lit(" characters)"))
    return frame.select_seq(pl.when(pl.col("size") <= _SHOWN).then(whole).otherwise(cut)).to_series()


def reasons(findings: pl.DataFrame, offered: Sequence[str]) -> pl.DataFrame:
    """What is wrong with each row that has findings: ROW and `reason`. Findings and reasons are in order."""
    told = findings.select_seq(pl.col("row").alias(ROW), sentences(findings, offered).alias("reason"))
    if told[ROW].n_unique() == told.height:
        return told
    return told.group_by(ROW, maintain_order=True).agg(pl.col("reason").str.join("; "))


def sentence(code: str, *, column: str | None, detail: str, offered: Sequence[str]) -> str:
    """The sentence of one finding."""
    finding = pl.DataFrame([(0, column, code, detail)], schema=FINDINGS, orient="row")
    return str(sentences(finding, offered)[0])


def _empty(height: int) -> pl.Series:
    return pl.Series([""], dtype=pl.String).new_from_index(0, height)
