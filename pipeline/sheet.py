"""What a sheet of a workbook can hold, and whether a file's report goes into one."""

from pipeline.csvfile import read_header
from pipeline.cut import COMMA, LF, count
from pipeline.fault import Fault
from pipeline.source import Data, forget
from pipeline.text import check_bytes

ROWS, COLUMNS = 1_048_576, 16_384  # of a sheet
LONGEST = 32_767  # UTF-16 units of a cell
MOST_CELLS = 5_000_000  # of a file, about; spreadsheets get unwieldy long before
_PIECE = 1 << 20  # bytes that are looked at at once


def fits_workbook(data: Data) -> bool:
    """Whether the report on a file can be a workbook, too; known before it is made, and cheaply.

    Line feeds and commas inside values are counted as if they began rows and cells, so a file may just be taken for
    too large; one that is too large never passes. A file that has nothing to show gets no workbook.
    """
    try:
        check_bytes(data)
        header = read_header(data)
    except Fault:
        return False
    lines, commas = _count_lines_and_commas(data)
    # Short rows are filled up to the header, and the reason is a cell, too.
    cells = max(lines * (header.width + 1), lines + commas)
    return lines < ROWS - 1 and cells <= MOST_CELLS  # one more row may be needed for a sentence


def _count_lines_and_commas(data: Data) -> tuple[int, int]:
    lines = commas = 0
    for start in range(0, len(data), _PIECE):
        end = min(start + _PIECE, len(data))
        lines += count(data, LF, start, end)
        commas += count(data, COMMA, start, end)
        forget(data, end)
    return lines, commas
