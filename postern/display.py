"""Text from outside that people are shown: with nothing in it that breaks a line or deceives the eye."""

import re
from collections.abc import Mapping
from typing import Any

# Line breaks and other controls, lone surrogates (a file name that was not UTF-8), and the marks that turn
# the reading direction: each could make a mail or a page show something other than what happened.
_DECEPTIVE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


def clean(value: Any) -> Any:
    """The same JSON value, with nothing in its strings that breaks a line or deceives the eye."""
    if isinstance(value, str):
        return _DECEPTIVE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
