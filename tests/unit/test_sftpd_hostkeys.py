"""Host keys: made once, kept, private, and offered without SHA-1."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sftpd.hostkeys import (
    HostKeyError,
    begin_rotation,
    cancel_rotation,
    describe_host_keys,
    finish_rotation,
    load_host_keys,
    stamp_of,
)
from sftpd.seams import host_key_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with host keys."""
    folder = tmp_path_factory.mktemp("gate") / "host_keys"
    load_host_keys(folder)
    return folder


def test_keys_of_three_kinds_are_made_and_kept(folder: Path) -> None:
    """The second start reads what the first one made."""
    first = describe_host_keys(folder)
    assert [key.type for key in first] == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
    assert describe_host_keys(folder) == first


def test_keys_are_private_and_nothing_else_lies_there(folder: Path) -> None:
    """Only the owner reads them, and no half-written file is left."""
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["ssh_host_ecdsa_key", "ssh_host_ed25519_key", "ssh_host_rsa_key"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_openssh_agrees_about_public_key_and_fingerprint(folder: Path) -> None:
    """What the command shows is what OpenSSH shows."""
    for file, key in zip(["ed25519", "ecdsa", "rsa"], describe_host_keys(folder), strict=True):
        path = folder / f"ssh_host_{file}_key"
        public = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, check=True).stdout.decode()
        listed = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, check=True).stdout.decode()
        assert public.split()[:2] == key.public_line.split()
        assert listed.split()[1] == key.fingerprint


def test_a_key_that_is_there_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    """Only what is missing is made."""
    (tmp_path / "ssh_host_rsa_key").write_bytes((folder / "ssh_host_rsa_key").read_bytes())
    made = describe_host_keys(tmp_path)
    kept = describe_host_keys(folder)
    assert made[2] == kept[2]
    assert made[0] != kept[0]


def test_no_sha1_is_offered(folder: Path) -> None:
    """An RSA key signs with SHA-2 only, and each algorithm has its own pair."""
    pairs = host_key_pairs(load_host_keys(folder))
    offered = [algorithm for pair in pairs for algorithm in pair.host_key_algorithms]
    assert offered == [b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"rsa-sha2-512", b"rsa-sha2-256"]


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "host_keys"))


def states(folder: Path) -> list[tuple[str, str]]:
    return [(key.state, key.fingerprint) for key in describe_host_keys(folder)]


def test_a_rotation_announces_and_then_replaces(own_folder: Path) -> None:
    """The next keys stand beside the used ones, then in their place; those are kept aside."""
    before = states(own_folder)
    first = stamp_of(own_folder)
    begin_rotation(own_folder)
    during = states(own_folder)
    second = stamp_of(own_folder)
    assert during[:3] == before
    assert [state for state, _key in during[3:]] == ["next"] * 3
    assert {file.stat().st_mode & 0o777 for file in (own_folder / "next").iterdir()} == {0o600}
    finish_rotation(own_folder)
    assert states(own_folder) == [("used", key) for _state, key in during[3:]]
    assert [key.get_fingerprint() for key in load_host_keys(own_folder / "old")] == [key for _state, key in before]
    assert len({str(first), str(second), str(stamp_of(own_folder))}) == 3


def test_a_rotation_that_was_cut_off_is_finished_by_the_next_try(own_folder: Path) -> None:
    """Some keys are replaced already."""
    begin_rotation(own_folder)
    during = states(own_folder)
    (own_folder / "next" / "ssh_host_ed25519_key").replace(own_folder / "ssh_host_ed25519_key")
    finish_rotation(own_folder)
    assert states(own_folder) == [("used", key) for _state, key in during[3:]]


def test_a_rotation_can_be_cancelled(own_folder: Path) -> None:
    """Nothing has happened, and the next one can begin."""
    before = states(own_folder)
    begin_rotation(own_folder)
    with pytest.raises(HostKeyError, match="under way"):
        begin_rotation(own_folder)
    cancel_rotation(own_folder)
    assert states(own_folder) == before
    for step in (cancel_rotation, finish_rotation):
        with pytest.raises(HostKeyError, match="No rotation"):
            step(own_folder)
    begin_rotation(own_folder)


def test_openssh_agrees_about_sshfp(folder: Path) -> None:
    """The same record as `ssh-keygen -r` makes."""
    for file, key in zip(["ed25519", "ecdsa", "rsa"], describe_host_keys(folder), strict=True):
        public = folder.parent / f"{file}.pub"
        public.write_text(key.public_line)
        told = subprocess.run(["ssh-keygen", "-r", "host", "-f", public], capture_output=True, check=True).stdout
        assert f"host IN SSHFP {key.sshfp}" in told.decode().splitlines()
