"""Which characters a message may hold: the GSM 7-bit alphabet and the characters that are avoidable.

An avoidable character makes a whole message Unicode (or costs two units) although a plain one would do.
The table is package data, `avoidable_characters.csv`: code point, name, replacement.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# 3GPP TS 23.038, 6.2.1: the default alphabet, and the table reached by the escape code.
GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")
GSM = GSM_BASIC | GSM_EXTENSION


@dataclass(frozen=True, slots=True, kw_only=True)
class AvoidableCharacter:
    """One row of the table."""

    character: str
    name: str  # the Unicode name
    replacement: str  # may be empty: leave it out

    @property
    def code_point(self) -> str:
        """`U+2019`."""
        return f"U+{ord(self.character):04X}"

    @property
    def advice(self) -> str:
        """What to do about it, in words."""
        if self.replacement == "":
            return "leave it out"
        if self.replacement == " ":
            return "use a plain space"
        return f"use {self.replacement}"


@cache
def avoidable_characters() -> Mapping[str, AvoidableCharacter]:
    """The table, by character."""
    text = files(__package__).joinpath("avoidable_characters.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    found = (
        AvoidableCharacter(
            character=chr(int(row["code_point"].removeprefix("U+"), 16)),
            name=row["name"],
            replacement=row["replacement"],
        )
        for row in rows
    )
    return {entry.character: entry for entry in found}


def is_gsm(text: str) -> bool:
    """Whether all of the text is in the GSM 7-bit alphabet and its extension table."""
    return GSM.issuperset(text)


def avoidable_in(text: str) -> list[AvoidableCharacter]:
    """The avoidable characters of a text, each once, in the order of their first appearance."""
    table = avoidable_characters()
    return [table[character] for character in dict.fromkeys(text) if character in table]
