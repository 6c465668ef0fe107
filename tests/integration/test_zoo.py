"""Hostile files through the real validating process: judged exactly, in bounded memory and time.

`POSTERN_ZOO=full` makes them as large as an upload may be; otherwise they are a tenth of that.
"""

import bz2
import gzip
import io
import json
import os
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.pipeline_fixtures import GOOD, HEADER, TEMPLATES, ruleset

from pipeline.ruleset import to_json
from pipeline.watched import spawn
from postern.model import Language

FULL = os.environ.get("POSTERN_ZOO") == "full"
SIZE = 29_900_000 if FULL else 2_990_000
# MiB at the peak, interpreter and libraries included. A chunk has a size of its own, whatever that of the file.
MEMORY, REALISTIC_MEMORY = 400, 220
SECONDS = 180 if FULL else 60  # finds what hangs; it is no benchmark
NO_PARAMETERS = {Language.ENGLISH: "Hello."}
MANY_PARAMETERS = {Language.ENGLISH: "".join(f"{{{{p{number}}}}}" for number in range(100))}
BARE = b"recipient,language\n"
HEAD = HEADER.encode()
ROW = GOOD.encode()
AVOIDABLE = "parameter_avoidable_character"


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A file, and what is to be said of it."""

    data: bytes
    by_code: Mapping[str, int] = field(default_factory=dict)  # errors
    rows: int = 0  # with errors
    warnings: Mapping[str, int] | None = None  # None: whatever they are
    templates: Mapping[Language, str] = field(default_factory=lambda: TEMPLATES)
    memory: int = MEMORY


def broken(code: str, data: bytes) -> Specimen:
    """A file that cannot be read as a whole."""
    return Specimen(data=data, by_code={code: 1})


def rows_of(row: bytes, *codes: str, head: bytes = HEAD, templates: Mapping[Language, str] = TEMPLATES) -> Specimen:
    """A file of equal rows that have these errors each."""
    count = (SIZE - len(head)) // len(row)
    errors = {code: count * codes.count(code) for code in codes}
    return Specimen(data=head + row * count, by_code=errors, rows=count if codes else 0, templates=templates)


def counted(line: Callable[[int], str], *codes: str, memory: int = MEMORY) -> Specimen:
    """A file of different rows that have these errors each."""
    count = SIZE // (len(line(0).encode()) + 2)
    data = HEAD + "".join(map(line, range(count))).encode()
    return Specimen(data=data, by_code=dict.fromkeys(codes, count), rows=count if codes else 0, memory=memory)


def one_row(row: bytes, *codes: str) -> Specimen:
    """A file of one row that takes all the room; at full size it is longer than a record may be."""
    if FULL:
        return broken("file_quoting", HEAD + row)
    return Specimen(data=HEAD + row, by_code=dict.fromkeys(codes, 1), rows=1)


def one_field(text: str, *codes: str) -> Specimen:
    """A row one value of which takes all the room."""
    value = text.encode() * (SIZE // len(text.encode()))
    return one_row(b'6591234567,english,"a' + value + b'b",tea\n', *codes)


def realistic(number: int, *, recipient: str = "65", name: str = "Emily Yeo") -> str:
    return f"{recipient}{80_000_000 + number},english,{name},passport application #{number:06}F at Kallang Road\n"


def one_in_a_hundred() -> Specimen:
    data = counted(lambda number: realistic(number, name="Emily Yeo" if number % 100 else "Emily’s")).data
    count = data.count("’".encode())
    return Specimen(data=data, by_code={AVOIDABLE: count}, rows=count, memory=REALISTIC_MEMORY)


def alternating() -> Specimen:
    count = SIZE // len(b"a,b,c\na,b,c,d,e\n")
    errors = {"row_too_few_fields": count, "row_too_many_fields": count}
    return Specimen(data=HEAD + b"a,b,c\na,b,c,d,e\n" * count, by_code=errors, rows=2 * count)


def duplicates() -> Specimen:
    specimen = rows_of(ROW)
    again = specimen.data.count(b"\n") - 2
    return Specimen(data=specimen.data, warnings={"duplicate_recipient": again, "duplicate_row": again})


def a_bad_row_behind(filler: bytes) -> Specimen:
    data = HEAD + filler * (SIZE // len(filler)) + b"6591234567,english,,tea\n"
    return Specimen(data=data, by_code={"parameter_missing": 1}, rows=1)


def different_short_rows() -> Specimen:
    """As many different recipients, languages and rows as fit."""
    count = SIZE // 10
    data = BARE + "".join(f"{number:x}x,{number:x}\n" for number in range(0x1000, 0x1000 + count)).encode()[:SIZE]
    data = data[: data.rfind(b"\n") + 1]
    count = data.count(b"\n") - 1
    errors = {"recipient_invalid": count, "language_unknown": count}
    return Specimen(data=data, by_code=errors, rows=count, templates=NO_PARAMETERS, warnings={})


def a_table() -> bytes:
    return rows_of(ROW).data


def a_workbook() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as workbook:
        workbook.writestr("xl/worksheets/sheet1.xml", a_table())
    return archive.getvalue()


def with_quote_at(place: int) -> Specimen:
    data = a_table()
    place = data.rfind(b"\n", 0, place) + 1 or len(HEAD)
    return broken("file_quoting", data[:place] + b'"' + data[place:])


ZOO: dict[str, Callable[[], Specimen]] = {
    "nothing": lambda: broken("file_empty", b""),
    "a byte order mark": lambda: broken("file_empty", b"\xef\xbb\xbf"),
    "newlines": lambda: broken("file_empty", b"\n" * SIZE),
    "CR LF only": lambda: broken("file_empty", b"\r\n" * (SIZE // 2)),
    "a header only": lambda: broken("file_no_rows", HEAD),
    "a header and newlines": lambda: broken("file_no_rows", HEAD + b"\n" * SIZE),
    "newlines and a header": lambda: broken("file_no_rows", b"\n" * SIZE + HEAD),
    "a header of commas": lambda: broken("file_header_too_long", b"," * SIZE),
    "a header of commas behind a blank line": lambda: broken("file_header_too_long", b"\n" + b"," * SIZE),
    "a header of commas behind a line in quotes": lambda: broken("file_header_too_long", b'"a\n"' + b"," * SIZE),
    "a header of many columns": lambda: broken(
        "file_header_too_long", ",".join(f"c{number:09}" for number in range(SIZE // 11)).encode() + b"\n"
    ),
    "a header of many columns, rows of one": lambda: broken(
        "file_header_unknown", b",".join([b"c"] * 32_000) + b"\n" + b"x\n" * (SIZE // 2)
    ),
    "no line end": lambda: broken("file_header_too_long", b"x" * SIZE),
    "quotes": lambda: broken("file_header_too_long", b'"' * (SIZE // 2 * 2)),
    "an odd number of quotes": lambda: broken("file_quoting", b'"' * (SIZE // 2 * 2 + 1)),
    "quotes behind a header": lambda: broken("file_quoting", HEAD + b'"' * (SIZE // 2 * 2 + 1)),
    "a header in quotes of many lines": lambda: broken("file_header_too_long", b'"' + b"a\n" * (SIZE // 2) + b'"\n'),
    "semicolons": lambda: broken("file_header_separator", a_table().replace(b",", b";")),
    "tabs": lambda: broken("file_header_separator", a_table().replace(b",", b"\t")),
    "NUL bytes": lambda: broken("file_encoding", b"\0" * SIZE),
    "a NUL byte at the end": lambda: broken("file_encoding", a_table() + b"\0"),
    "UTF-16": lambda: broken("file_encoding", a_table()[: SIZE // 2].decode().encode("utf-16")),
    "UTF-16 LE": lambda: broken("file_encoding", a_table()[: SIZE // 2].decode().encode("utf-16-le")),
    "UTF-16 BE": lambda: broken("file_encoding", a_table()[: SIZE // 2].decode().encode("utf-16-be")),
    "UTF-16 BE, marked": lambda: broken(
        "file_encoding", b"\xfe\xff" + a_table()[: SIZE // 2].decode().encode("utf-16-be")
    ),
    "Latin-1": lambda: broken("file_encoding", HEAD + "6591234567,english,Zoé,thé\n".encode("latin-1") * (SIZE // 28)),
    "a character cut off at the end": lambda: broken(
        "file_encoding", a_table() + "6591234567,english,汉".encode()[:-1]
    ),
    "gzip": lambda: broken("file_encoding", gzip.compress(a_table())),
    "a gzip bomb": lambda: broken(
        "file_encoding", gzip.compress(b"x,y\n" * 60_000_000 if FULL else b"x,y\n" * 600_000)
    ),
    "bzip2": lambda: broken("file_encoding", bz2.compress(a_table())),
    "zlib": lambda: broken("file_encoding", zlib.compress(a_table())),
    "Zstandard": lambda: broken("file_encoding", b"\x28\xb5\x2f\xfd" + a_table()),
    "a workbook": lambda: broken("file_encoding", a_workbook()),
    "a PDF document": lambda: broken("file_encoding", b"%PDF-1.7\n" + a_table()),
    "text that starts like zlib": lambda: broken("file_header_unknown", b"x^abc," + a_table()),
    "text that starts like bzip2": lambda: broken("file_header_unknown", b"BZ," + a_table()),
    "rows that start like zlib": lambda: rows_of(b"x^abc,english,a,b\n", "recipient_invalid"),
    "CR only": lambda: broken("file_encoding", a_table().replace(b"\n", b"\r")),
    "CR CR LF": lambda: broken("file_encoding", a_table().replace(b"\n", b"\r\r\n")),
    "CR CR LF at the end": lambda: broken("file_encoding", a_table() + ROW[:-1] + b"\r\r\n"),
    "CR LF and LF": lambda: rows_of(ROW + ROW.replace(b"\n", b"\r\n")),
    "CR in quotes": lambda: rows_of(b'6591234567,english,"a\rb",tea\n', "parameter_control_character"),
    "CR in quotes in one row": lambda: Specimen(
        data=HEAD + b'6591234567,english,"a\rb",tea\n' + a_table()[len(HEAD) :],
        by_code={"parameter_control_character": 1},
        rows=1,
    ),
    "CR LF in quotes": lambda: rows_of(b'6591234567,english,"a\r\nb",tea\r\n'),
    "a quote at the start": lambda: with_quote_at(0),
    "a quote in the middle": lambda: with_quote_at(SIZE // 2),
    "a quote at the end": lambda: with_quote_at(SIZE),
    "a quote inside a value": lambda: broken("file_quoting", a_table() + b'6591234567,english,a"b,tea\n'),
    "text behind a quote": lambda: broken("file_quoting", a_table() + b'6591234567,english,"a"b,tea\n'),
    "a malformed row behind a large one": lambda: broken("file_quoting", one_field("x" * 99 + "😀").data + b'a"b\n'),
    "quotes in quotes": lambda: rows_of(b'"6591234567","english","""""""",","\n'),
    "rows of one": lambda: rows_of(b"x\n", "row_too_few_fields"),
    "rows of one too few": lambda: rows_of(b"6591234567,english,Emily,\n"[:-2] + b"\n", "row_too_few_fields"),
    "rows of one too many": lambda: rows_of(ROW[:-1] + b",\n", "row_too_many_fields"),
    "short and long rows": alternating,
    "short rows with quotes": lambda: rows_of(b'"x\n"\n', "row_too_few_fields"),
    "a row of commas": lambda: one_row(b"," * SIZE + b"\n", "row_too_many_fields"),
    "missing values": lambda: rows_of(
        b",,,\n", "recipient_missing", "language_missing", "parameter_missing", "parameter_missing"
    ),
    "missing recipients and languages": lambda: rows_of(
        b",\n", "recipient_missing", "language_missing", head=BARE, templates=NO_PARAMETERS
    ),
    "missing values of a hundred parameters": lambda: rows_of(
        b"6591234567,english" + b"," * 100 + b"\n",
        *["parameter_missing"] * 100,
        head=b"recipient,language," + b",".join(b"p%d" % number for number in range(100)) + b"\n",
        templates=MANY_PARAMETERS,
    ),
    "two errors on the shortest rows": lambda: rows_of(
        b"1,x\n", "recipient_invalid", "language_unknown", head=BARE, templates=NO_PARAMETERS
    ),
    "two errors on short rows": lambda: rows_of(
        b"91234567,x\n", "recipient_invalid", "language_unknown", head=BARE, templates=NO_PARAMETERS
    ),
    "different short rows": different_short_rows,
    "a bad row behind newlines": lambda: a_bad_row_behind(b"\n"),
    "a bad row behind good ones": lambda: a_bad_row_behind(ROW),
    "a value of letters": lambda: one_field("x", "message_too_long"),
    "a value of lines": lambda: one_field("\n", "message_too_long"),
    "a value of CR LF": lambda: one_field("\r\n", "message_too_long"),
    "a value of CR": lambda: one_field("\r", "message_too_long", "parameter_control_character"),
    "a value of commas": lambda: one_field(",", "message_too_long"),
    "a value of quotes": lambda: one_field('""', "message_too_long"),
    "a value of tabs": lambda: one_field("\t", "message_too_long", "parameter_control_character"),
    "a value of avoidable characters": lambda: one_field("’“", "message_too_long", AVOIDABLE),
    "a value of emoji": lambda: one_field("😀", "message_too_long"),
    "a value of braces": lambda: one_field("{", "message_too_long", AVOIDABLE),
    "a recipient of digits": lambda: one_row(b"6" * SIZE + b",english,a,b\n", "recipient_invalid"),
    "a recipient of spaces and digits": lambda: one_row(b"6 " * (SIZE // 2) + b",english,a,b\n", "recipient_invalid"),
    "a language of letters": lambda: one_row(b"6591234567," + b"english" * (SIZE // 7) + b",a,b\n", "language_unknown"),
    "a value of white space": lambda: one_row(
        b"6591234567,english," + b" " * SIZE + b",b\n", "parameter_edge_space", "message_too_long"
    ),
    "avoidable characters": lambda: rows_of("6591234567,english,’“”,–\n".encode(), AVOIDABLE, AVOIDABLE),
    "different avoidable characters": lambda: counted(
        lambda number: (
            f"65{80_000_000 + number},english,a,{''.join('’“”‘–—…'[number // 7**place % 7] for place in range(7))}\n"
        ),
        AVOIDABLE,
    ),
    "emoji": lambda: rows_of("6591234567,chinese,😀😀😀😀😀😀😀😀,😀\n".encode()),
    "long emoji": lambda: rows_of(f"6591234567,chinese,{'a😀' * 200},b\n".encode()),
    "long euro signs": lambda: rows_of(f"6591234567,chinese,{'a€' * 200},b\n".encode()),
    "right to left": lambda: rows_of("6591234567,chinese,שלום \u202eabc,مرحبا\n".encode()),
    "zero width": lambda: rows_of("6591234567,chinese,\u200b\u200d\u2060,\ufeff\n".encode()),
    "formulas": lambda: rows_of(b"6591234567,english,=1+1,@x\n+6591234567,english,-1,+1\n"[:27]),
    "control characters": lambda: rows_of(b"6591234567,english,a\x1bb,tea\n", "parameter_control_character"),
    "marks in the middle": lambda: rows_of("\ufeff6591234567,chinese,a,b\n".encode(), "recipient_invalid"),
    "duplicates": duplicates,
    "a valid file": lambda: counted(realistic, memory=REALISTIC_MEMORY),
    "one bad row in a hundred": one_in_a_hundred,
    "all rows bad": lambda: counted(
        lambda number: realistic(number, recipient=""), "recipient_invalid", memory=REALISTIC_MEMORY
    ),
    "all rows too short": lambda: counted(
        lambda number: realistic(number).replace(",passport", " passport"),
        "row_too_few_fields",
        memory=REALISTIC_MEMORY,
    ),
}


@pytest.fixture
def child(spare: list[subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    """A fresh validating process; the next one starts meanwhile."""
    process = spare.pop()
    spare.append(spawn("pipeline.child"))
    with process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def spare() -> Iterator[list[subprocess.Popen[str]]]:
    """A process that nobody has used."""
    processes = [spawn("pipeline.child")]
    yield processes
    for process in processes:
        with process:
            process.kill()


def peak_of(process: subprocess.Popen[str]) -> int:
    """The most MiB of memory that a process ever had (proc(5), status)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def judged(process: subprocess.Popen[str], specimen: Specimen, folder: Path) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    request = {
        "data": str(folder / "data.csv"),
        "report": str(folder / "report.csv"),
        "messages": str(folder / "messages"),
        "rules": to_json(ruleset(specimen.templates)),
    }
    (folder / "data.csv").write_bytes(specimen.data)
    assert json.loads(process.stdout.readline()) == {"ready": True}
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    assert "verdict" in answer, answer
    return dict(answer["verdict"])


@pytest.mark.timeout(SECONDS * 3)
@pytest.mark.parametrize("name", ZOO)
def test_a_hostile_file_is_judged_exactly(
    name: str, child: subprocess.Popen[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Its errors are counted, its report is written, and it takes neither much memory nor much time."""
    specimen = ZOO[name]()
    start = time.monotonic()
    verdict = judged(child, specimen, tmp_path)
    seconds, peak = time.monotonic() - start, peak_of(child)
    record_property("zoo", f"{peak} MiB, {seconds:.1f} s")
    report = tmp_path / "report.csv"
    size = report.stat().st_size if report.exists() else 0
    report.unlink(missing_ok=True)
    (tmp_path / "data.csv").unlink()
    assert verdict["byCode"] == specimen.by_code
    assert verdict["numErrors"] == sum(specimen.by_code.values())
    assert verdict["numRows"] == specimen.rows
    assert verdict["isValid"] == (not specimen.by_code)
    assert (size > 0) == bool(specimen.by_code)
    assert specimen.warnings is None or verdict["warnings"] == specimen.warnings
    assert peak < specimen.memory
    assert seconds < SECONDS
