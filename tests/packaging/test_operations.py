"""docs/operations.md tells of things that are there: settings, metrics, log lines, commands, files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from postern.secret import VARIABLE
from postern.settings import ServeSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
PACKAGES = ("postern", "keys", "sftpd", "storage", "pipeline", "dispatch", "notifier", "web")
CODE = "\n".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_settings_exist() -> None:
    """By their whole names."""
    named = set(re.findall(r"\bPOSTERN_[A-Z0-9_]+\b", TEXT))
    assert named <= {*ServeSettings.variables(), VARIABLE}


def test_metrics_exist() -> None:
    """A counter's name ends in _total, which Prometheus' client adds."""
    named = set(re.findall(r"\bpostern_([a-z_]+)\b", TEXT))
    assert named
    for name in named:
        plain = name.removeprefix("gate_").removesuffix("_total")
        assert f'"{plain}"' in CODE or f'"postern_{plain}"' in CODE, name


def test_log_lines_exist() -> None:
    """Alarms are set on them."""
    named = set(re.findall(r"`([a-z]+\.[a-z]+(?:_[a-z]+)*)`", TEXT)) - {"secret.key", "postern.db"}
    assert {"upload.failed", "job.dead"} <= named
    assert [name for name in named if f'"{name}"' not in CODE] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`postern ([a-z-]+(?: [a-z]+)?)[^`]*`", TEXT))))
def test_commands_exist(command: str) -> None:
    """With the subcommand, where there is one."""
    wanted = [sys.executable, "-P", "-m", "postern", *command.split(), "--help"]
    assert subprocess.run(wanted, capture_output=True, check=False).returncode == 0


def test_files_exist() -> None:
    """Those that it links, and those of deploy/ that it names."""
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
    for name in re.findall(r"\bpostern\.[a-z]+\.conf\b", TEXT):
        assert (ROOT / "deploy" / name).exists(), name
