"""Which names the gate takes, and what it says of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern.settings import DEFAULT_TEMPORARY_SUFFIXES
from sftpd.paths import NameRules, base_name, is_folder, real_path, shown
from sftpd.refusals import GateRefusal, RefusalCode

RULES = NameRules(DEFAULT_TEMPORARY_SUFFIXES)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"messages.csv", "messages.csv"),
        (b"/messages.csv", "messages.csv"),
        (b"./messages.csv", "messages.csv"),
        (b"/upload/2024/messages.csv", "messages.csv"),
        (b"../../etc/messages.csv", "messages.csv"),
        (b"C:\\jobs\\messages.csv", "messages.csv"),
        (b"MESSAGES.CSV", "MESSAGES.CSV"),
        (b"a b (1).Csv", "a b (1).Csv"),
        ("名单.csv".encode(), "名单.csv"),
        (b"x.csv.csv", "x.csv.csv"),
    ],
)
def test_a_csv_name_is_taken_whatever_its_folder(path: bytes, name: str) -> None:
    """Only the last part of a path counts, in any case of .csv."""
    read = RULES.read(path)
    assert (read.text, read.final, read.is_temporary) == (name, name, False)


@pytest.mark.parametrize("suffix", [".filepart", ".part", ".partial", ".0f3A9c.partial", ".tmp", "(4711).tmp", ".PART"])
def test_a_temporary_form_of_a_csv_name_is_taken(suffix: str) -> None:
    """Every suffix of the table stands for a file that will be renamed."""
    read = RULES.read(f"upload/x.csv{suffix}".encode())
    assert (read.text, read.final, read.is_temporary) == (f"x.csv{suffix}", "x.csv", True)


def test_suffixes_are_a_setting() -> None:
    """A suffix that is not in the table makes no temporary name."""
    assert NameRules((".uploading",)).read(b"x.csv.uploading").is_temporary
    with pytest.raises(GateRefusal):
        NameRules((".uploading",)).read(b"x.csv.part")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"", RefusalCode.NAME_IS_FOLDER),
        (b".", RefusalCode.NAME_IS_FOLDER),
        (b"/", RefusalCode.NAME_IS_FOLDER),
        (b"upload/", RefusalCode.NAME_IS_FOLDER),
        (b"/upload/..", RefusalCode.NAME_IS_FOLDER),
        (b"upload", RefusalCode.NAME_NOT_CSV),
        (b".csv", RefusalCode.NAME_NOT_CSV),
        (b"notes.txt", RefusalCode.NAME_NOT_CSV),
        (b"x.csv.gz", RefusalCode.NAME_NOT_CSV),
        (b"x.csv ", RefusalCode.NAME_NOT_CSV),
        (b"x.partial", RefusalCode.NAME_NOT_CSV),
        (b"x.csv(a1).tmp", RefusalCode.NAME_NOT_CSV),
        (b"\xff\xfe.csv", RefusalCode.NAME_NOT_UTF8),
        (b"a\x07b.csv", RefusalCode.NAME_CONTROL_CHARACTER),
        (b"a\nb.csv", RefusalCode.NAME_CONTROL_CHARACTER),
        ("a\u202evsc.csv".encode(), RefusalCode.NAME_CONTROL_CHARACTER),
        (b"x" * 252 + b".csv", RefusalCode.NAME_TOO_LONG),
    ],
)
def test_other_names_are_refused(path: bytes, code: RefusalCode) -> None:
    """What is neither is refused with a reason."""
    with pytest.raises(GateRefusal) as refused:
        RULES.read(path)
    assert refused.value.kind is code


def test_255_bytes_are_not_too_long() -> None:
    """The limit is what file systems take."""
    assert RULES.read(b"x" * 251 + b".csv").final == "x" * 251 + ".csv"


def test_a_refusal_quotes_the_name_and_shows_what_cannot_be_seen() -> None:
    """The sentence is fit for a terminal and a mail."""
    with pytest.raises(GateRefusal, match=r'"a\\x07b\.csv" has a control character \(U\+0007\)'):
        RULES.read(b"a\x07b.csv")


@pytest.mark.parametrize("path", [b".", b"/", b"", b"upload", b"upload/", b"x.csv/", b"/v1.2", b"2024.05"])
def test_folders_are_what_the_client_says(path: bytes) -> None:
    """Whatever does not look like a file is a folder to put into."""
    assert is_folder(path)


@pytest.mark.parametrize("path", [b"x.csv", b"X.CSV", b"x.csv.part", b"notes.txt", b"a/b.xlsx", b"x.csv~"])
def test_files_are_no_folders(path: bytes) -> None:
    """A file's name is not taken for a folder's, or `put a.csv notes.txt` would end up in it."""
    assert not is_folder(path)


@pytest.mark.parametrize(
    ("path", "real"),
    [(b".", b"/"), (b"", b"/"), (b"//x", b"/x"), (b"a/../../b/", b"/b"), (b"/upload/./x.csv", b"/upload/x.csv")],
)
def test_real_paths_start_at_the_root(path: bytes, real: bytes) -> None:
    """Clients start with the real path of `.`."""
    assert real_path(path) == real


@given(st.binary(max_size=400))
def test_every_path_is_read_or_refused(path: bytes) -> None:
    """No path breaks the rules, and what is taken can be no path any more."""
    name = RULES.find(path)
    if name is None:
        with pytest.raises(GateRefusal) as refused:
            RULES.read(path)
        assert str(refused.value).isprintable()
        return
    assert name.text.encode() == base_name(path)
    assert name.final.lower().endswith(".csv")
    assert name.text.startswith(name.final)
    assert not set(name.text) & set("/\\\0\n\r")


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_names_in_sentences_are_printable(text: str) -> None:
    """Nothing of a name can move the cursor or turn the line round."""
    assert not any(character < " " or character in "\x7f\u202e\u2028" for character in shown(text))


@given(st.binary(max_size=60))
def test_real_path_is_stable(path: bytes) -> None:
    """Asking for the real path of a real path changes nothing."""
    assert real_path(real_path(path)) == real_path(path)
