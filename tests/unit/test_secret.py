"""The secret key: made once, read by its owner only, replaced by the environment."""

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from postern.errors import SettingsError
from postern.secret import derive_key, fingerprint, load_secret

PRINT_SECRET = """
import sys
from pathlib import Path
from postern.secret import load_secret
sys.stdin.readline()
print(load_secret(Path(sys.argv[1]), {}).hex())
"""


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def test_a_key_is_made_when_there_is_none(tmp_path: Path) -> None:
    """Home as well; the same key is found again."""
    home = tmp_path / "new" / "home"
    key = load_secret(home, {})
    assert len(key) == 32
    assert load_secret(home, {}) == key


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    """Whatever the umask says; nothing else is left beside it."""
    home = tmp_path / "home"
    before = os.umask(0)
    try:
        load_secret(home, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "secret.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [entry.name for entry in home.iterdir()] == ["secret.key"]


def test_every_installation_has_a_key_of_its_own(tmp_path: Path) -> None:
    """They are random."""
    assert len({load_secret(tmp_path / str(number), {}) for number in range(5)}) == 5


def test_roles_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    """Eight processes that all find none end up with the same one."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_SECRET, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert found == {load_secret(tmp_path, {}).hex()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


def test_the_environment_replaces_the_file(tmp_path: Path) -> None:
    """Then no file is made."""
    key = bytes(range(200, 232))
    assert load_secret(tmp_path, {"POSTERN_SECRET_KEY": encoded(key)}) == key
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["short", encoded(bytes(31)), "=====", "é" * 50, "\udc80" * 50])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    """With the variable's name and without the text."""
    with pytest.raises(SettingsError, match="POSTERN_SECRET_KEY: needs 32 random bytes") as caught:
        load_secret(tmp_path, {"POSTERN_SECRET_KEY": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe\x00" * 20])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is not replaced: what it protects would be lost."""
    (tmp_path / "secret.key").write_bytes(content)
    with pytest.raises(SettingsError):
        load_secret(tmp_path, {})
    assert (tmp_path / "secret.key").read_bytes() == content


def test_keys_for_two_purposes_differ() -> None:
    """And neither is the secret."""
    secret = bytes(32)
    keys = {derive_key(secret, "links"), derive_key(secret, "encryption"), secret}
    assert len(keys) == 3
    assert derive_key(secret, "links") == derive_key(secret, "links")


def test_a_fingerprint_tells_keys_apart_and_nothing_else() -> None:
    """Short, the same for the same key, no piece of it."""
    one, other = b"k" * 32, b"l" * 32
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    assert len(fingerprint(one)) == 8
    assert fingerprint(one) not in one.hex()
