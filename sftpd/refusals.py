"""What the gate refuses, and the one sentence that each refusal says to the client and to the owner. Pure.

The sentences are read by people who own campaigns, not by programmers: they say what was found and what
to do. Which refusals the owner is told of by mail stands in the same table.
"""

from dataclasses import dataclass
from enum import StrEnum

from postern.errors import Refusal


class RefusalCode(StrEnum):
    """Why the gate did not do what a client asked for."""

    NAME_IS_FOLDER = "name_is_folder"
    NAME_NOT_UTF8 = "name_not_utf8"
    NAME_CONTROL_CHARACTER = "name_control_character"
    NAME_TOO_LONG = "name_too_long"
    NAME_NOT_CSV = "name_not_csv"
    TOO_LARGE = "too_large"
    INCOMPLETE = "incomplete"
    NEVER_RENAMED = "never_renamed"
    REMOVED = "removed"
    RESUMING = "resuming"
    READING = "reading"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    TOO_MANY_OPEN = "too_many_open"
    STOPPING = "stopping"
    DISK_FULL = "disk_full"
    SPOOL_FULL = "spool_full"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    sentence: str
    told: bool = False  # whether it leaves an event, which becomes a refused upload and a mail to the owner


_KINDS = {
    RefusalCode.NAME_IS_FOLDER: _Kind(
        sentence='"{name}" is a folder here; put the file under its own name, such as messages.csv.'
    ),
    RefusalCode.NAME_NOT_UTF8: _Kind(
        sentence='The file name "{name}" is not UTF-8; give the file a plain name, such as messages.csv.',
        told=True,
    ),
    RefusalCode.NAME_CONTROL_CHARACTER: _Kind(
        sentence='The file name "{name}" has a control character ({found}); '
        "give the file a plain name, such as messages.csv.",
        told=True,
    ),
    RefusalCode.NAME_TOO_LONG: _Kind(
        sentence='The file name "{name}" has {size} bytes; at most {limit} are possible.', told=True
    ),
    RefusalCode.NAME_NOT_CSV: _Kind(
        sentence='"{name}" is not a .csv file; only files whose name ends in .csv are taken here.', told=True
    ),
    RefusalCode.TOO_LARGE: _Kind(
        sentence='"{name}" is too large: a file must be smaller than {limit} bytes. '
        "Nothing of it is processed; split it into several files.",
        told=True,
    ),
    RefusalCode.INCOMPLETE: _Kind(
        sentence='Parts of "{name}" are missing: {found}. Nothing of it is processed; put the whole file again.',
        told=True,
    ),
    RefusalCode.NEVER_RENAMED: _Kind(
        sentence='"{name}" came under a temporary name and was never renamed to "{final}". '
        "Nothing of it is processed; put the file again, or rename it once it is there.",
        told=True,
    ),
    RefusalCode.REMOVED: _Kind(sentence='"{name}" was removed while it was being written; put it again.'),
    RefusalCode.RESUMING: _Kind(sentence='"{name}" cannot be continued or changed here; put the whole file again.'),
    RefusalCode.READING: _Kind(sentence="Files can be put here but not read."),
    RefusalCode.UNSUPPORTED: _Kind(sentence="{operation} is not possible here; files can only be put."),
    RefusalCode.NOT_FOUND: _Kind(sentence='There is no "{name}" among the uploads of the last 24 hours.'),
    RefusalCode.TOO_MANY_OPEN: _Kind(
        sentence="There can be no more than {limit} unfinished files in one {place}; finish one before the next."
    ),
    RefusalCode.STOPPING: _Kind(sentence="The gate is being restarted; put the file again in a minute."),
    RefusalCode.DISK_FULL: _Kind(
        sentence="The gate has no room left on its disk; nothing of this file is processed. Put it again later."
    ),
    RefusalCode.SPOOL_FULL: _Kind(
        sentence="{count} files wait here to be processed, and no more can be taken until some are; nothing of this "
        "file is processed. Put it again later."
    ),
    RefusalCode.FAULT: _Kind(
        sentence="The gate has a fault and could not do that. Put the file again later; if it still fails, "
        "quote {support_id}."
    ),
}


class GateRefusal(Refusal):
    """A refusal of the gate; `reported` once the client's standard error and the owner have heard of it."""

    def __init__(self, code: RefusalCode, message: str, *, name: str) -> None:
        super().__init__(code, message)
        self.kind = code
        self.name = name
        self.size = 0  # bytes of the file that had come
        self.reported = False

    @property
    def told(self) -> bool:
        """Whether the owner is told of it."""
        return _KINDS[self.kind].told


def refuse(code: RefusalCode, *, name: str = "", **found: object) -> GateRefusal:
    """The refusal of that kind, its sentence filled in."""
    return GateRefusal(code, _KINDS[code].sentence.format(name=name, **found), name=name)
