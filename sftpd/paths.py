"""Names: which upload a path means, and whether the gate takes a file of that name. Pure.

Folders are what a client invents; only the last part of a path counts. A name is `X.csv` in any case, or
a temporary form of one, which becomes an upload only by a rename. What is neither is refused, with a
sentence that says why; nothing here touches a file system, so no path can lead anywhere.
"""

import posixpath
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from sftpd.refusals import GateRefusal, RefusalCode, refuse

MAX_NAME_BYTES = 255  # what common file systems take (NAME_MAX), so what people's files are called
SHOWN_CHARACTERS = 120

_PLACEHOLDERS = {"<hex>": "[0-9a-f]+", "<pid>": "[0-9]+"}
# Besides control characters: line and paragraph separators, and what turns the direction of writing,
# because names are shown in mails and on pages.
_UNWANTED_CATEGORIES = {"Cc", "Zl", "Zp", "Cs"}
# A last part that looks like a file's: an extension, or a .csv with something behind it. `v1.2` and `2024.05` do not.
_FILE_LIKE = re.compile(r".*\.(?:[a-z][a-z0-9]+|7z|csv.+)", re.IGNORECASE | re.DOTALL)
_UNWANTED_CHARACTERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadName:
    """A name that the gate takes: as the client gave it, and as the upload is or will be called."""

    text: str
    final: str

    @property
    def is_temporary(self) -> bool:
        """Whether a file of this name waits for its rename."""
        return self.text != self.final


class NameRules:
    """Which names are taken, by the table of temporary suffixes."""

    def __init__(self, temporary_suffixes: Sequence[str]) -> None:
        suffixes = "|".join(_pattern(suffix) for suffix in temporary_suffixes)
        self._temporary = re.compile(rf"(?P<final>.+\.csv)(?:{suffixes})", re.IGNORECASE | re.DOTALL)
        self._final = re.compile(r".+\.csv", re.IGNORECASE | re.DOTALL)

    def read(self, path: bytes) -> UploadName:
        """The upload's name that a path means.

        Raises:
            GateRefusal: it means none; the sentence says why.
        """
        base = base_name(path)
        if base in {b"", b".", b".."}:
            raise refuse(RefusalCode.NAME_IS_FOLDER, name=shown(path.decode("utf-8", "backslashreplace")))
        text = _decoded(base)
        _check_characters(text)
        if self._final.fullmatch(text):
            return UploadName(text=text, final=text)
        temporary = self._temporary.fullmatch(text)
        if temporary is None:
            raise refuse(RefusalCode.NAME_NOT_CSV, name=shown(text))
        return UploadName(text=text, final=temporary["final"])

    def find(self, path: bytes) -> UploadName | None:
        """The upload's name that a path means, or None."""
        try:
            return self.read(path)
        except GateRefusal:
            return None


def is_folder(path: bytes) -> bool:
    """Whether a path can be one of the folders that clients invent, so that what is put "into" it works.

    A name such as `notes.txt` is none: a client that asks whether it is one goes on to put a file of that
    name, and has to hear why that is refused.
    """
    return _FILE_LIKE.fullmatch(base_name(path).decode("utf-8", "replace")) is None


def base_name(path: bytes) -> bytes:
    """The last part of a path, empty for one that ends as a folder. Windows clients' backslashes part, too."""
    return path.replace(b"\\", b"/").rpartition(b"/")[2]


def real_path(path: bytes) -> bytes:
    """The absolute form of a path in a tree that holds whatever the client says it does."""
    return b"/" + posixpath.normpath(b"/" + path.replace(b"\\", b"/")).lstrip(b"/")


def shown(text: str) -> str:
    """A name that is fit for a sentence: short, and what cannot be seen is written as an escape."""
    visible = "".join(character if character.isprintable() else _escaped(character) for character in text)
    return visible if len(visible) <= SHOWN_CHARACTERS else visible[: SHOWN_CHARACTERS - 1] + "…"


def _pattern(suffix: str) -> str:
    pattern = re.escape(suffix)
    for placeholder, digits in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), digits)
    return pattern


def _decoded(base: bytes) -> str:
    try:
        text = base.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse(RefusalCode.NAME_NOT_UTF8, name=shown(base.decode("utf-8", "backslashreplace"))) from None
    if len(base) > MAX_NAME_BYTES:
        raise refuse(RefusalCode.NAME_TOO_LONG, name=shown(text), size=len(base), limit=MAX_NAME_BYTES)
    return text


def _check_characters(text: str) -> None:
    for character in text:
        if _is_unwanted(character):
            found = f"U+{ord(character):04X}"
            raise refuse(RefusalCode.NAME_CONTROL_CHARACTER, name=shown(text), found=found)


def _is_unwanted(character: str) -> bool:
    return character in _UNWANTED_CHARACTERS or unicodedata.category(character) in _UNWANTED_CATEGORIES


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
