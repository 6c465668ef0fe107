"""The header: every column that the campaign needs, once each, in any order, spelled as it is.

All that is wrong with a header is one finding, so that it can be mended in one go.
"""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from pipeline.fault import HOW_TO_SAVE, Fault

ERROR_REASON = "Error Reason"  # the last column of our report; ignored when a repaired report is uploaded
REQUIRED = ("recipient", "language")
_LISTED = 10  # problems named one by one
_SHOWN = 40  # characters of a name


def check_header(header: Sequence[str], parameters: Sequence[str], *, row: int) -> list[str]:
    """The names of the columns to be read, in the order of the file (without a last `Error Reason`).

    Raises:
        Fault: `file_header_…`, named after the first thing that is wrong; its sentence names all of them.
    """
    fields = header[:-1] if header[-1] == ERROR_REASON else header
    wanted = [*REQUIRED, *parameters]
    _check_separator(header, wanted, row)
    problems = [*_misspelled(fields, wanted), *_duplicated(fields, wanted), *_unknown(fields, wanted)]
    problems += _missing(fields, wanted)
    if problems:
        sentence = "; ".join(text for _, text in problems[:_LISTED])
        raise Fault(problems[0][0], f"The header is not right: {sentence}.", row=row)
    return list(fields)


def _check_separator(header: Sequence[str], wanted: Sequence[str], row: int) -> None:
    if len(header) > 1:
        return
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        if separator in header[0] and wanted[0] in header[0].split(separator):
            raise Fault(
                "file_header_separator",
                f"The columns are separated by {name}; they must be separated by commas. {HOW_TO_SAVE}",
                row=row,
            )


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")


def _plain(name: str) -> str:
    return name.strip().casefold()


def _misspelled(fields: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    return [
        ("file_header_misspelled", f"{_shown(field)} must be written {_plain(field)}")
        for field in fields
        if field not in wanted and _plain(field) in wanted
    ]


def _duplicated(fields: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    return [
        ("file_header_duplicate", f"{name} stands there {count} times")
        for name, count in Counter(fields).items()
        if count > 1 and name in wanted
    ]


def _unknown(fields: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for field in dict.fromkeys(fields):
        if field in wanted or _plain(field) in wanted:
            continue
        if len(found) == _LISTED:
            break  # a header can hold millions of names
        near = get_close_matches(_plain(field), [name for name in wanted if name not in fields], n=1)
        meant = f" ({near[0]} was probably meant)" if near else ""
        shown = _shown(field) if field else "a column without a name"
        found.append(("file_header_unknown", f"{shown} is not a column of this campaign{meant}"))
    return found


def _missing(fields: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    present = {*fields, *(_plain(field) for field in fields)}
    return [("file_header_missing", f"{name} is missing") for name in wanted if name not in present]
