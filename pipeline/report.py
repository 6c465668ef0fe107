"""The validation report: the upload's own rows, and a last column that says what to do about each.

Values are kept exactly, so the report can be repaired and uploaded again as it is. It starts with a byte order
mark, by which Excel knows that it is UTF-8.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from pipeline.csvfile import Fault, Record, records
from pipeline.header import ERROR_REASON
from postern.model import Finding


def write_report(path: Path, text: str | None, reasons: Mapping[int, str], fault: Finding | None) -> None:
    """Write the report of a file.

    Args:
        path: where to.
        text: the file's text, None when it could not be decoded.
        reasons: what is wrong, by row.
        fault: what is wrong with the file as a whole; its rows are then kept as far as they can be read.
    """
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        pending = None if fault is None else fault.sentence
        width, written = 0, 0
        had_reasons = False
        try:
            for place, record in enumerate(records(text or "")):
                file.write("\r\n" * (record.row - written - 1))  # blank lines stay: rows keep their numbers
                written = record.row
                if place == 0:
                    had_reasons = record.fields[-1] == ERROR_REASON
                    width = len(record.fields) - had_reasons
                    writer.writerow([*_own_fields(record, had_reasons=had_reasons), ERROR_REASON])
                    continue
                reason, pending = (pending, None) if pending is not None else (reasons.get(record.row, ""), None)
                own = _own_fields(record, had_reasons=had_reasons and len(record.fields) > width)
                writer.writerow([*own, *[""] * (width - len(own)), reason])
        except Fault:
            pass  # the rest cannot be read; the fault's own sentence says so
        if pending is not None:
            if width == 0:
                writer.writerow([ERROR_REASON])
            writer.writerow([*[""] * width, pending])


def _own_fields(record: Record, *, had_reasons: bool) -> list[str]:
    return record.fields[:-1] if had_reasons else record.fields
