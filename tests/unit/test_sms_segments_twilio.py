"""Segments as Twilio's own calculator counts them (npm, `sms-segments-calculator`)."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from clients.catalogue import PACKAGES

from postern.sms.characters import GSM_BASIC
from postern.sms.segments import count_segments, encoding_of

PROGRAM = Path(__file__).parents[1] / "support" / "segments.js"
STRINGS = 10_000
PLAIN = "".join(sorted(GSM_BASIC))
CHINESE = "".join(chr(place) for place in range(0x4E00, 0x4F00))
TAMIL = "".join(chr(place) for place in range(0x0B80, 0x0C00))
EMOJI = "😀😂🎉📢🔥👍💯🚀"
ALPHABETS = {
    "GSM": PLAIN,
    "GSM with extensions": PLAIN + "\f^{}\\[~]|€" * 12,
    "Chinese": CHINESE,
    "Tamil": TAMIL,
    "emoji": EMOJI + "abc",
    "all": PLAIN + "€[]" + CHINESE[:40] + EMOJI + "éñ–’",
}

# Phones put a grapheme of several code points together again, whatever segment its parts came in. The calculator never
# parts one, so where a boundary would lie within it counts more. Ours, theirs:
GRAPHEMES = [
    ("Tamil letters with vowel signs, one segment", "நி" * 35, 1, 1),
    ("the same over a boundary", "நி" * 67, 2, 3),
    ("families, none at a boundary", "👨‍👩‍👧‍👦" * 7, 2, 2),
    ("a family over a boundary", "汉" * 60 + "👨‍👩‍👧‍👦" + "汉" * 60, 2, 3),
    ("a flag over a boundary", "汉" * 65 + "🇸🇬" + "汉" * 65, 2, 3),
    ("a combining accent over a boundary", "汉" * 66 + "e\u0301" + "汉" * 66, 2, 3),
    ("an emoji with a skin colour over a boundary", "汉" * 65 + "👍🏽" + "汉" * 65, 2, 3),
]


def counted_by_twilio(texts: Sequence[str]) -> list[tuple[str, int, bool]]:
    """Encoding, segments, and whether there is a grapheme of several code points."""
    if shutil.which("node") is None or not (PACKAGES / "node_modules" / "sms-segments-calculator").is_dir():
        reason = "needs node and the npm packages that the Makefile installs"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    ended = subprocess.run(
        ["node", str(PROGRAM)],
        input=json.dumps(list(texts)),
        env={**os.environ, "NODE_PATH": str(PACKAGES / "node_modules")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [(encoding, segments, clusters) for encoding, segments, clusters in json.loads(ended.stdout)]


def random_texts() -> list[str]:
    """Of six alphabets in turn; most about as long as one to four segments."""
    chance = random.Random(20261121)
    alphabets = list(ALPHABETS.values())
    return [
        "".join(
            chance.choices(
                alphabets[number % len(alphabets)], k=chance.choice([chance.randint(0, 80), chance.randint(60, 320)])
            )
        )
        for number in range(STRINGS)
    ]


def test_twilio_counts_the_same() -> None:
    """10,000 texts: the same number, and the same encoding; only graphemes of several code points may differ."""
    texts = random_texts()
    theirs = counted_by_twilio(texts)
    ours = [(encoding_of(text).value, count_segments(text)) for text in texts]
    plain = [number for number, (_encoding, _segments, clusters) in enumerate(theirs) if not clusters]
    assert len(plain) > STRINGS * 0.8
    assert [ours[number] for number in plain] == [theirs[number][:2] for number in plain]
    differing = [number for number in range(STRINGS) if ours[number][1] != theirs[number][1]]
    assert all(ours[number][1] < theirs[number][1] for number in differing)


def test_graphemes_are_where_it_differs() -> None:
    """All kinds of them that are known, with both counts."""
    texts = [text for _name, text, _ours, _theirs in GRAPHEMES]
    found = [
        (name, count_segments(text), segments)
        for (name, text, _ours, _theirs), (_encoding, segments, _clusters) in zip(
            GRAPHEMES, counted_by_twilio(texts), strict=True
        )
    ]
    assert found == [(name, ours, theirs) for name, _text, ours, theirs in GRAPHEMES]
