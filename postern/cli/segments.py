"""`postern segments`."""

import sys
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from postern.cli.output import Json, console, print_fields, print_table, refusals, show
from postern.errors import Refusal
from postern.sms.characters import GSM, avoidable_characters
from postern.sms.segments import Encoding, Part, split_segments

_SHOWN = 60  # characters of a segment


def segments(
    text: Annotated[str | None, typer.Argument(help="The text; read from standard input without it.")] = None,
    as_json: Json = False,
) -> None:
    """Count the segments of a text, and show where each ends and which characters make it dearer."""
    with refusals(as_json):
        document = _document(_standard_input() if text is None else _checked(text))
    show(document, as_json=as_json, otherwise=lambda: _for_people(document))


def _standard_input() -> str:
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Refusal("text_encoding", f"Standard input is not UTF-8 at byte {error.start + 1}.") from None
    return text.removesuffix("\n").removesuffix("\r")  # the line end that `echo` and editors add


def _checked(text: str) -> str:
    """An argument; bytes that are not UTF-8 come as lone surrogates (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal("text_encoding", f"The text is not UTF-8 at character {error.start + 1}.") from None
    return text


def _document(text: str) -> dict[str, Any]:
    found = split_segments(text)
    return {
        "encoding": found.encoding.value,
        "characters": len(text),
        "units": found.units,
        "segments": len(found.parts),
        "parts": [_part(text, part) for part in found.parts],
        "avoidableCharacters": _avoidable(text),
        "otherUnicodeCharacters": [] if found.encoding is Encoding.GSM_7 else _other(text),
    }


def _part(text: str, part: Part) -> dict[str, Any]:
    return {"start": part.start, "end": part.end, "units": part.units, "text": text[part.start : part.end]}


def _avoidable(text: str) -> list[dict[str, Any]]:
    table = avoidable_characters()
    return [
        {
            "codePoint": table[character].code_point,
            "character": character,
            "name": table[character].name,
            "replacement": table[character].replacement,
            "positions": _positions(text, character),
        }
        for character in dict.fromkeys(text)
        if character in table
    ]


def _other(text: str) -> list[dict[str, Any]]:
    """Characters outside GSM-7 that mean what they say."""
    table = avoidable_characters()
    return [
        {
            "codePoint": f"U+{ord(character):04X}",
            "character": character,
            "name": unicodedata.name(character, ""),
            "positions": _positions(text, character),
        }
        for character in dict.fromkeys(text)
        if character not in GSM and character not in table
    ]


def _positions(text: str, character: str) -> list[int]:
    return [place for place, one in enumerate(text) if one == character]


def _for_people(document: dict[str, Any]) -> None:
    units = "septets" if document["encoding"] == Encoding.GSM_7 else "UTF-16 units"
    print_fields(
        {
            "encoding": document["encoding"],
            "characters": f"{document['characters']:,}",
            units: f"{document['units']:,}",
            "segments": f"{document['segments']:,}",
        }
    )
    console.print()
    rows = [
        (number, f"{part['start'] + 1}–{part['end']}" if part["units"] else "–", part["units"], _shown(part["text"]))
        for number, part in enumerate(document["parts"], start=1)
    ]
    print_table(("segment", "characters", units, "text"), rows, empty="")
    if document["avoidableCharacters"]:
        console.print("\n[bold]Avoidable characters[/]")
        dear = [
            (one["codePoint"], one["name"], _visible(one["replacement"]), _places(one["positions"]))
            for one in document["avoidableCharacters"]
        ]
        print_table(("character", "name", "use instead", "at"), dear, empty="")
    if document["otherUnicodeCharacters"]:
        console.print("\n[bold]Other characters outside GSM-7[/]")
        others = [
            (one["codePoint"], one["name"], _places(one["positions"])) for one in document["otherUnicodeCharacters"]
        ]
        print_table(("character", "name", "at"), others, empty="")


def _shown(text: str) -> str:
    half = _SHOWN // 2
    return _visible(text if len(text) <= _SHOWN else f"{text[:half]} … {text[-half:]}")


def _visible(text: str) -> str:
    """Line ends and other controls as escapes, so that a row stays a row and a terminal is told nothing."""
    if text in {"", " "}:
        return "nothing" if not text else "a plain space"
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _places(positions: Iterable[int]) -> str:
    first, *rest = [str(place + 1) for place in positions]
    more = f" and {len(rest) - 4:,} more" if len(rest) > 4 else ""  # noqa: PLR2004 - five fit
    return ", ".join([first, *rest[:4]]) + more
