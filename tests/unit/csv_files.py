"""Files with the columns recipient, language, name and topic: as programs write them, and as they arrive at worst."""

import csv
import io
from collections.abc import Callable
from random import Random

from hypothesis import strategies as st

COLUMNS = ("recipient", "language", "name", "topic")
RECIPIENTS = st.one_of(
    st.sampled_from(
        ["6591234567", "6591234568", "6599999999", "6561234567", "6511111111", "14155552671", "861065291234"]
    ),
    st.sampled_from(
        ["", "91234567", "61234567", "+6591234567", "65 9123 4567", "659123456", "65912345678", "٦٥٩١٢٣٤٥٦٧", "²"]
    ),
    st.text(alphabet="0123456789", min_size=1, max_size=17),
    st.text(alphabet="0123456789+-ab \n\"'", max_size=12),
)
LANGUAGES = st.one_of(
    st.sampled_from(["english", "English", "chinese", "TAMIL", "malay", "tamil"]),
    st.sampled_from(["", "klingon", " english", "english ", "englısh", "ENGLİSH"]),
)
VALUES = st.one_of(
    st.text(alphabet="abcdefghij xyz.", min_size=1, max_size=12),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.text(alphabet='a,"\r\n\t =+-@', max_size=6),
    st.text(alphabet="a€[]~^|\\{}汉😀é’“ \u00a0\u200b\u2028\x1c\x85", max_size=8),
    st.sampled_from(["{{topic}}", "{{name}}", "=1+1", "\ufeffx", "a\r\nb", "a\nb", "Error Reason"]),
    st.tuples(st.sampled_from("a€汉😀"), st.sampled_from([60, 66, 67, 150, 153, 320, 480, 1000])).map(
        lambda repeated: repeated[0] * repeated[1]
    ),
)


GOOD_RECIPIENTS = st.sampled_from(["6591234567", "6581234567", "6561234567", "6599999999", "14155552671", "61234567"])
GOOD_LANGUAGES = st.sampled_from(["english", "English", "chinese", "TAMIL"])
GOOD_VALUES = st.one_of(
    st.text(alphabet="abc xyz.,é汉😀", max_size=12).map(lambda text: f"a{text}b"),
    st.sampled_from(
        ['"a, b"', "a\nb", "a\r\nb\nc", "it's", "=1+1", "x" * 153, "é" * 320, "汉" * 67 + "😀" * 67, '""', ","]
    ),
)


@st.composite
def written_files(draw: st.DrawFn) -> bytes:
    """A file as programs write them, with good and bad rows."""
    columns = draw(st.permutations(COLUMNS))
    if draw(st.booleans()):
        strategies = {"recipient": RECIPIENTS, "language": LANGUAGES, "name": VALUES, "topic": VALUES}
    else:
        strategies = dict(zip(COLUMNS, (GOOD_RECIPIENTS, GOOD_LANGUAGES, GOOD_VALUES, GOOD_VALUES), strict=True))
    fewest, most = draw(st.sampled_from([(0, 3), (1, 3), (1, 6), (1, 25)]))
    rows = draw(st.lists(st.tuples(*(strategies[name] for name in columns)), min_size=fewest, max_size=most))
    reasons = draw(st.booleans())
    text = io.StringIO()
    writer = csv.writer(
        text,
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow([*columns, "Error Reason"] if reasons else columns)
    for row in rows:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            writer.writerow([*row, draw(st.sampled_from(["", "why"]))] if reasons else row)
    written = text.getvalue()
    return (written if draw(st.booleans()) else written.rstrip("\r\n")).encode()


def place_in(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    place = place_in(draw, data)
    byte = draw(st.one_of(st.integers(0x20, 0x7E), st.integers(0, 255)))
    return data[:place] + bytes([byte]) + data[place + 1 :]


def cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: place_in(draw, data)]


def holed(draw: st.DrawFn, data: bytes) -> bytes:
    first, last = sorted((place_in(draw, data), place_in(draw, data)))
    return data[:first] + data[min(last, first + 5) :]


def spliced(draw: st.DrawFn, data: bytes) -> bytes:
    """Something that means something to a reader of CSV, put where it does not belong."""
    place = place_in(draw, data)
    piece = draw(
        st.sampled_from(
            [b'"', b'""', b",", b",,", b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\n", b"\xef\xbb\xbf", b"\0", b" ", b'",']
        )
    )
    return data[:place] + piece + data[place:]


def requoted(draw: st.DrawFn, data: bytes) -> bytes:
    quotes = [place for place, byte in enumerate(data) if byte == ord('"')]
    if not quotes:
        return data
    place = draw(st.sampled_from(quotes))
    rest = data[:place] + data[place + 1 :]
    target = max(0, place + draw(st.integers(-3, 3)))
    return rest[:target] + draw(st.sampled_from([b'"', b""])) + rest[target:]


def with_other_line_ends(draw: st.DrawFn, data: bytes) -> bytes:
    ends = st.sampled_from([b"\n", b"\r\n", b"\n", b"\r\n", b"\r", b"\n\r\n", b"\r\r\n"])
    return b"".join(line + draw(ends) for line in data.replace(b"\r\n", b"\n").split(b"\n"))


def with_mark(_draw: st.DrawFn, data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def ragged(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = draw(st.sampled_from([lines[place] + b",x", b"x," + lines[place], lines[place].partition(b",")[2]]))
    return b"\n".join(lines)


def recoded(draw: st.DrawFn, data: bytes) -> bytes:
    if draw(st.booleans()):
        return flipped(draw, data)  # another encoding is found at once; this need not be tried as often
    encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "latin-1", "cp1252", "gb18030", "utf-32", "utf-7"]))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


CORRUPTIONS: list[Callable[[st.DrawFn, bytes], bytes]] = [
    flipped,
    cut,
    holed,
    spliced,
    requoted,
    with_other_line_ends,
    with_mark,
    ragged,
    recoded,
]


@st.composite
def large_files(draw: st.DrawFn, size: int) -> bytes:
    """Records of a few written files over and over, in any order, to which something happened a few times."""
    files = draw(st.lists(written_files(), min_size=1, max_size=3))
    header, lines = "recipient,language,name,topic", draw(st.sampled_from(["\n", "\r\n"]))
    pool = [row for file in files for row in csv.reader(io.StringIO(file.decode(), newline="")) if row][1:]
    pool.append(["6591234567", "english", "Emily", "tea"])
    texts = io.StringIO()
    writer = csv.writer(texts, lineterminator=lines)
    chance = Random(draw(st.integers(0, 1 << 32)))  # thousands of draws would be too many for Hypothesis
    while texts.tell() < size:
        row = chance.choice(pool)
        writer.writerow([f"65{chance.randrange(80_000_000, 99_999_999)}", *row[1:]] if chance.random() < 0.8 else row)
    data = texts.getvalue().encode()
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.sampled_from([flipped, cut, holed, spliced, ragged]))(draw, data)
    return (header + lines).encode() + data


@st.composite
def corrupted_files(draw: st.DrawFn) -> bytes:
    """A file to which one to three things happened on its way, mostly behind its header."""
    data = draw(written_files())
    header = data[: data.find(b"\n") + 1] if draw(st.sampled_from([True, True, True, False])) else b""
    data = data[len(header) :]
    for _ in range(draw(st.integers(1, 3))):
        data = draw(st.sampled_from(CORRUPTIONS))(draw, data)
    return header + data
