"""Variables that look like settings and are none: most are misspelled, and would be ignored without a word.

Only their names are looked at, so the gate may do it too; values are told to nobody.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from typing_extensions import override

from postern.secret import VARIABLE
from postern.settings import PREFIX, ServeSettings
from postern.settings_file import read_settings_file

# What processes of ours tell their children.
AMONG_OURSELVES = frozenset({"POSTERN_LIFELINE", "POSTERN_GATE_MEMBER", "POSTERN_GATE_LISTENERS"})

_KNOWN = (*ServeSettings.variables(), VARIABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misspelled:
    """A variable that nobody reads."""

    name: str
    nearest: str | None  # the setting that was meant, perhaps

    @override
    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} is no setting{meant}"


def misspelled_settings(home: Path, environ: Mapping[str, str] | None = None) -> list[Misspelled]:
    """The variables of the environment and of `postern.env` that begin like a setting of some role and are none.

    Raises:
        SettingsError: the file cannot be read.
    """
    there = {*(os.environ if environ is None else environ), *read_settings_file(home)}
    read = {*_KNOWN, *AMONG_OURSELVES}
    return [
        Misspelled(name=name, nearest=_nearest(name))
        for name in sorted(there)
        if name.startswith(PREFIX) and name not in read
    ]


def _nearest(name: str) -> str | None:
    rests = [known.removeprefix(PREFIX) for known in _KNOWN]  # the prefix would make all of them alike
    found = get_close_matches(name.removeprefix(PREFIX).upper(), rests, n=1)
    return PREFIX + found[0] if found else None
