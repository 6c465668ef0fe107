"""The alphabet of a text message, and the characters that plain ones can replace."""

import pytest

from postern.sms.characters import GSM_BASIC, GSM_EXTENSION, avoidable_characters, avoidable_in, is_gsm


def test_the_alphabet_has_the_size_of_the_standard() -> None:
    """3GPP TS 23.038 has 128 places, one of them the escape, and ten extension characters."""
    assert (len(GSM_BASIC), len(GSM_EXTENSION), GSM_BASIC & GSM_EXTENSION) == (127, 10, frozenset())


@pytest.mark.parametrize("text", ["", "Dear Ms Tan,\r\n$5 @ 10%", "ÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¡ÄÖÑÜ§¿äöñüàèéùìò", "\f^€"])
def test_text_of_the_alphabet_is_gsm(text: str) -> None:
    """Basic and extension characters travel in GSM-7."""
    assert is_gsm(text)


@pytest.mark.parametrize("character", ["ç", "`", "’", "汉", "😀", "\t", "\u00a0", "á", "\x1b"])
def test_other_characters_are_not_gsm(character: str) -> None:
    """One of them makes the whole text Unicode."""
    assert not is_gsm(f"Dear Ms Tan{character}")


def test_the_table_is_whole() -> None:
    """Every row of the table is there, with its Unicode name and its replacement."""
    table = avoidable_characters()
    assert len(table) == 264
    assert (table["’"].name, table["’"].replacement, table["’"].code_point) == (
        "RIGHT SINGLE QUOTATION MARK",
        "'",
        "U+2019",
    )


def test_every_replacement_is_plain() -> None:
    """Following the advice once is enough: no replacement is avoidable itself."""
    for entry in avoidable_characters().values():
        assert is_gsm(entry.replacement)
        assert avoidable_in(entry.replacement) == []


def test_the_avoidable_characters_of_a_text_are_told_once_in_order() -> None:
    """A text full of the same quotation mark has one thing to mend."""
    assert [entry.character for entry in avoidable_in("“a” “b” – {c}")] == ["“", "”", "–", "{", "}"]


@pytest.mark.parametrize("text", ["", "plain", "Müller", "汉字", "😀", "£5 é à ¿"])
def test_text_without_avoidable_characters_is_left_alone(text: str) -> None:
    """Accents, names in Chinese and emoji are nobody's mistake."""
    assert avoidable_in(text) == []


@pytest.mark.parametrize(
    ("character", "advice"),
    [("’", "use '"), ("\u00a0", "use a plain space"), ("\u00ad", "leave it out"), ("…", "use ..."), ("€", "use EUR")],
)
def test_the_advice_says_what_to_write(character: str, advice: str) -> None:
    """A replacement that cannot be seen is put in words."""
    assert avoidable_in(character)[0].advice == advice
