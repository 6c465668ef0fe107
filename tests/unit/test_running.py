"""What running roles say of themselves, and what is left when one dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postern.running import announced, announcement


def left_behind(folder: Path, content: str) -> None:
    """Something in the place where the gate would announce itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.json").write_text(content, encoding="utf-8")


@pytest.fixture
def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_role_is_announced_while_it_is_ready(tmp_path: Path) -> None:
    """With its process id and what else it tells; not before and not after."""
    folder = tmp_path / "run"
    assert announcement(folder, "gate") is None
    with announced(folder, "gate", port=2222, host="127.0.0.1"):
        assert announcement(folder, "gate") == {"pid": os.getpid(), "port": 2222, "host": "127.0.0.1"}
        assert announcement(folder, "web") is None
    assert announcement(folder, "gate") is None
    assert list(folder.iterdir()) == []


def test_an_announcement_ends_with_an_exception(tmp_path: Path) -> None:
    """A role that fails does not stay announced."""
    with pytest.raises(RuntimeError), announced(tmp_path, "gate"):
        raise RuntimeError
    assert announcement(tmp_path, "gate") is None


def test_what_a_dead_role_said_does_not_count(tmp_path: Path, dead_pid: int) -> None:
    """It was killed and could not clean up."""
    left_behind(tmp_path, json.dumps({"pid": dead_pid, "port": 2222}))
    assert announcement(tmp_path, "gate") is None


def test_a_new_role_takes_the_place_of_a_dead_one(tmp_path: Path, dead_pid: int) -> None:
    """The old announcement is replaced."""
    left_behind(tmp_path, json.dumps({"pid": dead_pid, "port": 1}))
    with announced(tmp_path, "gate", port=2):
        assert (announcement(tmp_path, "gate") or {})["port"] == 2


def test_the_announcement_of_a_successor_stays(tmp_path: Path) -> None:
    """A role that ends late does not take away what its successor says."""
    parent = os.getppid()
    with announced(tmp_path, "gate", port=1):
        left_behind(tmp_path, json.dumps({"pid": parent, "port": 2}))
    assert (announcement(tmp_path, "gate") or {})["port"] == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        '{"port": 1}',
        '{"pid": "x"}',
        '{"pid": null}',
        '{"pid": 0}',
        '{"pid": -1}',
        f'{{"pid": {10**30}}}',
    ],
)
def test_a_broken_announcement_is_none(tmp_path: Path, content: str) -> None:
    """Half-written by somebody else, or not ours at all."""
    left_behind(tmp_path, content)
    assert announcement(tmp_path, "gate") is None
