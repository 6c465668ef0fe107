"""Signed links: ours are good, and any change to one makes it bad."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern.links import LinkSigner, Purpose, hold_path
from postern.secret import derive_key

SECRET = bytes(range(32))
SIGNER = LinkSigner(SECRET)
PATH = "/validation-reports/campaign_1/upload_1.csv"
EXPIRES_AT = datetime(2026, 11, 27, 8, 30, 0, 700_000, tzinfo=UTC)


def parts_of(url: str) -> tuple[str, str, str]:
    """Path, expiry and signature."""
    split = urlsplit(url)
    query = parse_qs(split.query, strict_parsing=True)
    assert set(query) == {"expires", "signature"}
    return split.path, query["expires"][0], query["signature"][0]


def test_a_link_of_ours_is_good() -> None:
    """It stands under our own address, and says when it expires, to the second before."""
    url = SIGNER.sign("https://postern.example", PATH, EXPIRES_AT)
    assert url.startswith(f"https://postern.example{PATH}?expires={int(EXPIRES_AT.timestamp())}&signature=")
    assert SIGNER.is_good(*parts_of(url))


def test_the_signature_can_stand_in_a_mail() -> None:
    """It has no characters that mail programs break or escape."""
    signature = parts_of(SIGNER.sign("https://postern.example", PATH, EXPIRES_AT))[2]
    assert len(signature) == 43
    assert signature.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("seconds", [-1, 1])
def test_another_expiry_is_another_link(seconds: int) -> None:
    """Nobody gives himself more time."""
    path, expires, signature = parts_of(SIGNER.sign("https://postern.example", PATH, EXPIRES_AT))
    assert not SIGNER.is_good(path, str(int(expires) + seconds), signature)
    moved = SIGNER.sign("https://postern.example", PATH, EXPIRES_AT + timedelta(seconds=seconds))
    assert parts_of(moved)[2] != signature


@pytest.mark.parametrize(
    ("path", "expires", "signature"),
    [
        (PATH + "x", None, None),
        (PATH.replace("upload_1", "upload_2"), None, None),
        ("", None, None),
        (None, "", None),
        (None, "0", None),
        (None, "now", None),
        (None, None, ""),
        (None, None, "é" * 43),
        (None, None, "A" * 43),
        (PATH + "\n1", None, None),
    ],
)
def test_any_other_part_is_not_good(path: str | None, expires: str | None, signature: str | None) -> None:
    """Another report, another time, or no signature of ours."""
    good = parts_of(SIGNER.sign("https://postern.example", PATH, EXPIRES_AT))
    assert not SIGNER.is_good(
        good[0] if path is None else path,
        good[1] if expires is None else expires,
        good[2] if signature is None else signature,
    )


@given(place=st.integers(0, 42), character=st.sampled_from("ABab01-_=+/ é"))
def test_a_changed_signature_is_not_good(place: int, character: str) -> None:
    """Every character counts."""
    path, expires, signature = parts_of(SIGNER.sign("https://postern.example", PATH, EXPIRES_AT))
    changed = signature[:place] + character + signature[place + 1 :]
    assert SIGNER.is_good(path, expires, changed) == (changed == signature)


def test_another_installation_signs_differently() -> None:
    """The key is made from the secret, and used for nothing else."""
    url = SIGNER.sign("https://postern.example", PATH, EXPIRES_AT)
    assert not LinkSigner(bytes(32)).is_good(*parts_of(url))
    assert derive_key(SECRET, "links") not in {SECRET, derive_key(SECRET, "encryption"), derive_key(bytes(32), "links")}


def test_a_link_of_one_purpose_is_none_of_another() -> None:
    """Whoever has a report's link cannot make one that releases an upload of it, nor the other way round."""
    holds = LinkSigner(SECRET, Purpose.HOLD)
    for path in (PATH, hold_path("upload_1")):
        assert not holds.is_good(*parts_of(SIGNER.sign("https://postern.example", path, EXPIRES_AT)))
        assert not SIGNER.is_good(*parts_of(holds.sign("https://postern.example", path, EXPIRES_AT)))
        assert holds.is_good(*parts_of(holds.sign("https://postern.example", path, EXPIRES_AT)))
