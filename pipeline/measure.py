"""What the rules ask of each row: its language, the length of its message, its encoding and its segments.

Texts are not rendered for it: lengths add up. What is dear (alphabets, segments of texts that could straddle a
boundary) is asked only of odd rows, those with a character that is not a plain one of the GSM alphabet, and only
where the chunk has such characters at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.chunks import Chunk
from pipeline.ruleset import Ruleset
from postern.model import Language
from postern.sms.characters import GSM_BASIC, GSM_EXTENSION, is_gsm
from postern.sms.segments import GSM_PART, GSM_SINGLE, UCS2_PART, UCS2_SINGLE, count_segments
from postern.sms.template import MAX_BODY, PLACEHOLDER

RECIPIENT, LANGUAGE = "recipient", "language"
_PLACE, _FOREIGN = "__place", "__foreign"  # no parameter can be called so

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def class_of(characters: Sequence[str] | frozenset[str]) -> str:
    """The regular expression for one of some characters."""
    return "[" + "".join(f"\\x{{{ord(character):X}}}" for character in sorted(characters)) + "]"


_NOT_GSM = f"[^{class_of(GSM_BASIC | GSM_EXTENSION)[1:]}"
_EXTENDED = class_of(GSM_EXTENSION)
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The rows of a chunk, measured; each has a place in these."""

    languages: pl.Series  # in lower case; those that nobody knows as they stand there
    offered: Numbers  # which of the campaign's languages, by number; where it is none of them, how many there are
    body: Numbers  # characters; 0 without a language
    is_unicode: Flags  # False without a language
    segments: Numbers  # 0 without a language, and where the message is too long to be sent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What a language's messages hold besides the values."""

    body: str  # the template without its placeholders
    full: str  # header, template without its placeholders, footer
    occurrences: Mapping[str, int]  # of each parameter


class Measure:
    """Measures the rows of a campaign's files, chunk by chunk."""

    def __init__(self, rules: Ruleset) -> None:
        """Take what the messages are made from."""
        self._rules = rules
        texts = [_text(rules, language) for language in rules.templates]
        self._none = len(texts)  # the number of no language; all tables have 0 there
        self._body = _table(len(text.body) for text in texts)
        self._around = _table(len(text.full) - len(text.body) for text in texts)
        self._is_unicode = _table(not is_gsm(text.full) for text in texts) > 0
        self._extended = _table(_extended_in(text.full) for text in texts)
        self._astral = _table(_astral_in(text.full) for text in texts)
        self._doubles = np.where(self._is_unicode, self._astral, self._extended)
        self._occurrences = {name: _table(text.occurrences[name] for text in texts) for name in rules.parameters}

    def __call__(self, chunk: Chunk) -> Measured:
        """Measure the rows of a chunk's frame."""
        values = {name: pl.col(name).str for name in self._rules.parameters}
        sizes = [
            (value.len_chars() if chunk.alphabet.has_non_ascii else value.len_bytes()).alias(name)
            for name, value in values.items()
        ]
        counted = chunk.frame.select_seq(self._place(LANGUAGE).alias(_PLACE), *sizes)
        languages, offered = self._any_case(chunk.frame[LANGUAGE], counted[_PLACE].to_numpy(writable=True))
        body = self._added(self._body, offered, counted, self._rules.parameters)
        is_unicode, doubles = self._is_unicode[offered], self._doubles[offered]
        if chunk.odd.any():
            self._look_closer(chunk, offered, is_unicode, doubles)
        segments = self._segments(chunk.frame, offered, body, is_unicode, doubles)
        return Measured(languages=languages, offered=offered, body=body, is_unicode=is_unicode, segments=segments)

    def _place(self, column: str) -> pl.Expr:
        """The number of the language that a column names."""
        place = pl.lit(self._none, dtype=pl.Int64)
        for number, language in enumerate(self._rules.templates):
            place = pl.when(pl.col(column) == language.value).then(pl.lit(number, dtype=pl.Int64)).otherwise(place)
        return place

    def _any_case(self, languages: pl.Series, offered: Numbers) -> tuple[pl.Series, Numbers]:
        """Known languages in lower case, and their numbers, given those of the names that are written so."""
        others = np.flatnonzero(offered == self._none)
        if others.size:
            raw = languages.gather(others)
            lower = raw.str.to_lowercase()
            offered[others] = lower.to_frame().select_seq(self._place(lower.name)).to_series()
            known = lower.is_in([language.value for language in Language])
            languages = languages.scatter(others, lower.zip_with(known, raw))
        return languages, offered

    def _added(self, table: Numbers, offered: Numbers, sizes: pl.DataFrame, names: Sequence[str]) -> Numbers:
        """What a text has by itself, and what some values add to it, each as often as it occurs."""
        total: Numbers = table[offered]
        for name in names:
            total += sizes[name].to_numpy().astype(np.int64) * self._occurrences[name][offered]
        return total

    def _look_closer(self, chunk: Chunk, offered: Numbers, is_unicode: Flags, doubles: Numbers) -> None:
        """Mend the measures of odd rows: their values may change the encoding, and have characters of two units."""
        names, alphabet = chunk.odd_columns(self._rules.parameters), chunk.alphabet
        if not names:
            return
        places = np.flatnonzero(chunk.odd.to_numpy() & (offered < self._none))
        odd = chunk.frame.select_seq(names)[places]
        values = {name: pl.col(name).str for name in names}
        foreign = pl.any_horizontal(pl.lit(value=False), *(value.contains(_NOT_GSM) for value in values.values()))
        is_unicode[places] |= odd.select_seq(foreign.alias(_FOREIGN))[_FOREIGN].to_numpy()
        extended = odd.select_seq(value.count_matches(_EXTENDED) for value in values.values() if alphabet.has_extension)
        astral = odd.select_seq(value.count_matches(_ASTRAL) for value in values.values() if alphabet.has_astral)
        doubles[places] = np.where(
            is_unicode[places],
            self._added(self._astral, offered[places], astral, astral.columns),
            self._added(self._extended, offered[places], extended, extended.columns),
        )

    def _segments(
        self, frame: pl.DataFrame, offered: Numbers, body: Numbers, is_unicode: Flags, doubles: Numbers
    ) -> Numbers:
        """Count segments: by arithmetic where nothing can straddle a boundary, one by one where something could."""
        units = body + self._around[offered] + doubles
        single, part = np.where(is_unicode, UCS2_SINGLE, GSM_SINGLE), np.where(is_unicode, UCS2_PART, GSM_PART)
        is_message = (offered < self._none) & (body <= MAX_BODY)
        segments = np.where(units <= single, 1, (units + part - 1) // part).astype(np.int64) * is_message
        places = np.flatnonzero(is_message & (doubles > 0) & (units > single))
        if places.size:
            texts = (
                frame[places].with_columns_seq(pl.Series(_PLACE, offered[places])).select_seq(_full_text(self._rules))
            )
            segments[places] = [count_segments(text) for text in texts.to_series()]
        return segments


def _table(values: Iterable[int]) -> Numbers:
    return np.array([*values, 0], np.int64)


def _text(rules: Ruleset, language: Language) -> _Text:
    parts = PLACEHOLDER.split(rules.templates[language])  # plain text and parameter names in turn
    plain = "".join(parts[0::2])
    return _Text(
        body=plain,
        full=rules.frame.around(plain, language),
        occurrences={name: parts[1::2].count(name) for name in rules.parameters},
    )


def _extended_in(text: str) -> int:
    return sum(character in GSM_EXTENSION for character in text)


def _astral_in(text: str) -> int:
    return sum(ord(character) > 0xFFFF for character in text)  # noqa: PLR2004 - the last character of the BMP


def _full_text(rules: Ruleset) -> pl.Expr:
    text = pl.lit(None, dtype=pl.String)
    for place, (language, template) in enumerate(rules.templates.items()):
        before, after = rules.frame.around("\0", language).split("\0")
        parts = PLACEHOLDER.split(template)
        body = [pl.col(part) if number % 2 else pl.lit(part) for number, part in enumerate(parts)]
        full = pl.concat_str(pl.lit(before), *body, pl.lit(after))
        text = pl.when(pl.col(_PLACE) == place).then(full).otherwise(text)
    return text.alias("text")
