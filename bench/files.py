"""The files that are judged: made here, the same bytes each time, most of them just under the 30 MB of an upload.

Nothing is random: row `n` follows from `n`. Recipients of one file are all different, as those of a real one mostly
are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from pipeline.ruleset import Ruleset
from postern.model import Environment, Language
from postern.sms.template import Frame

FULL = 29_990_000  # bytes; an upload is smaller than 30 MB
ROWS = 360_800  # of the file `a`
HEADER = ("recipient", "language", "name", "topic", "date", "link")
PARAMETERS = HEADER[2:]
TEMPLATES = {
    Language.ENGLISH: "Dear {{name}}, your appointment about {{topic}} is on {{date}}. Details: {{link}}",
    Language.CHINESE: "{{name}}：您的预约（{{topic}}）定于{{date}}。详情：{{link}}",
    Language.MALAY: "{{name}}, temu janji anda ({{topic}}) ialah pada {{date}}. Butiran: {{link}}",
    Language.TAMIL: "{{name}}, உங்கள் சந்திப்பு ({{topic}}): {{date}}. {{link}}",
}
FRAME = Frame(
    header="Ministry of Examples",
    footers={
        Language.ENGLISH: "This is an automated message.",
        Language.CHINESE: "这是自动发送的信息。",
        Language.MALAY: "Ini ialah mesej automatik.",
        Language.TAMIL: "இது தானியங்கிச் செய்தி.",
    },
)
RULES = Ruleset(parameters=PARAMETERS, templates=TEMPLATES, frame=FRAME, environment=Environment.PRODUCTION)
LONG_RULES = Ruleset(
    parameters=("name", "body"),
    templates={Language.ENGLISH: "Dear {{name}},\n{{body}}"},
    frame=FRAME,
    environment=Environment.PRODUCTION,
)

_FIRST = ("Wei Ming", "Siti", "Kumar", "Hui Ling", "Arjun", "Nurul", "Jia Hao", "Priya", "Marcus", "Aisyah", "Daniel")
_LAST = ("Tan", "Lim", "Lee", "Ng", "Wong", "Rahman", "Nair", "Goh", "Chua", "Koh", "Teo", "Pillai", "Ismail")
_CHINESE = (
    "陈伟明",
    "林慧玲",
    "李嘉豪",
    "黄美珍",
    "王国华",
    "吴丽华",
    "刘志强",
    "周淑芬",
    "郑建国",
    "许文杰",
    "何晓燕",
)
_TOPICS = ("a health check", "your housing grant", "school places", "a CPF top-up", "your passport", "a library card")
_LANGUAGES = (*(Language.ENGLISH,) * 14, *(Language.CHINESE,) * 3, *(Language.MALAY,) * 2, Language.TAMIL)
_SENTENCE = 'Bring this letter, a photo and the form called "B2"; the counter closes at 5 pm.'
_GAP = 100  # rows; one of so many is bad where 1% are

Row = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file of the bench: what it is called, what is in it, and what it is judged by."""

    name: str
    what: str
    path: Path
    rules: Ruleset

    @property
    def megabytes(self) -> float:
        return self.path.stat().st_size / 1e6


def make_samples(folder: Path) -> list[Sample]:
    """Write all files into a folder."""
    return [_make(folder, name, what, lines, LONG_RULES if name == "d" else RULES) for name, what, lines in _kinds()]


def make_valid(path: Path, size: int) -> Sample:
    """Write a valid file of about so many bytes, whatever an upload may have."""
    _write(path, _lines(_good(row) for row in _count()), size)
    return Sample(name=path.stem, what="all valid", path=path, rules=RULES)


def _kinds() -> Iterator[tuple[str, str, Iterable[str]]]:
    yield "a", f"{ROWS:,} rows, all valid", _lines(_good(row) for row in range(ROWS))
    yield "b", "1% bad rows of ten kinds", _lines(_one_in_a_hundred(row, spoilt) for row in _count())
    yield "c", "all rows bad, nine kinds", _lines(spoilt(row, len(_SPOILERS) - 1) for row in _count())
    yield "d", "long bodies of several lines", _long_lines()
    yield (
        "ragged",
        "1% of the rows ragged, all over the file",
        _lines(_one_in_a_hundred(row, _torn) for row in _count()),
    )
    yield "quoted", "all fields quoted, CRLF, escaped quotes", _quoted_lines()
    yield "unicode", "Chinese names", _lines(_with_chinese_name(row) for row in _count())


def _make(folder: Path, name: str, what: str, lines: Iterable[str], rules: Ruleset) -> Sample:
    path = folder / f"{name}.csv"
    _write(path, lines, FULL)
    return Sample(name=name, what=what, path=path, rules=rules)


def _count() -> range:
    return range(19_000_000)  # so many different recipients there are


def _write(path: Path, lines: Iterable[str], size: int) -> None:
    """Write whole records as long as they fit."""
    source = iter(lines)
    with path.open("wb") as file:
        while batch := list(islice(source, 5_000)):
            data = "".join(batch).encode()
            if file.tell() + len(data) <= size:
                file.write(data)
                continue
            for line in batch:
                if file.tell() + len(line.encode()) > size:
                    return
                file.write(line.encode())


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    return (",".join(row) + "\n" for row in chain([list(HEADER)], rows))


def _good(row: int) -> Row:
    name = f"{_FIRST[row % len(_FIRST)]} {_LAST[row % len(_LAST)]}"
    date = f"{row % 28 + 1} Dec 2026 {row % 12 + 8:02}:{row % 4 * 15:02}"
    return [_recipient(row), _LANGUAGES[row % 20].value, name, _TOPICS[row % 6], date, f"go.gov.sg/{row:07x}"]


def _recipient(row: int) -> str:
    """A local mobile number, another one for each row: the factor shares no divisor with the modulus."""
    return str(65_80_000_001 + row * 7_368_787 % 19_999_999)


def _one_in_a_hundred(row: int, bad: Callable[[int], Row]) -> Row:
    return bad(row) if row % _GAP == _GAP // 2 else _good(row)


def spoilt(row: int, kinds: int = 10) -> Row:
    """A row with one error, of one of so many kinds in turn."""
    fields = _good(row)
    place, spoil = _SPOILERS[(row // _GAP if kinds == len(_SPOILERS) else row) % kinds]
    fields[place] = spoil(fields[place])
    if place == 2 and fields[2]:
        fields[1] = Language.ENGLISH.value  # other languages may have any character
    return fields


_SPOILERS: tuple[tuple[int, Callable[[str], str]], ...] = (
    (0, lambda value: value[2:]),  # lacks the country code
    (0, lambda value: f"+{value[:2]} {value[2:]}"),
    (0, lambda _: "6.59E+09"),  # shortened by a spreadsheet
    (0, lambda _: ""),
    (1, lambda _: "englsh"),
    (1, lambda _: ""),
    (2, lambda value: f"{value}’s"),  # an avoidable character
    (3, lambda value: value.replace(" ", "\t", 1)),
    (5, lambda value: f" {value}"),
    (4, lambda value: value * 80),  # makes the message too long
)


def _torn(row: int) -> Row:
    """A row with a field too many or two too few."""
    fields = _good(row)
    return [*fields, "more"] if row // _GAP % 2 else fields[:4]


def _with_chinese_name(row: int) -> Row:
    fields = _good(row)
    fields[1], fields[2] = (*Language,)[row % 4].value, _CHINESE[row % len(_CHINESE)]
    return fields


def _long_lines() -> Iterator[str]:
    yield "recipient,language,name,body\n"
    for row in range(43_600):
        body = "\n".join(f"{part}. {_SENTENCE}" for part in range(row % 2 + 7))
        name = f"{_FIRST[row % len(_FIRST)]} {_LAST[row % len(_LAST)]}"
        yield f'{_recipient(row)},english,{name},"{body.replace(chr(34), chr(34) * 2)}"\n'


def _quoted_lines() -> Iterator[str]:
    yield ",".join(f'"{name}"' for name in HEADER) + "\r\n"
    for row in _count():
        fields = _good(row)
        if row % 3 == 0:
            fields[2] = f'{fields[2]} ""Ah"" Teo'
        yield ",".join(f'"{field}"' for field in fields) + "\r\n"
