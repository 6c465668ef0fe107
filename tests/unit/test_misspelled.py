"""Variables that look like settings and are none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from postern.cli.gates import MEMBER
from postern.cli.roles import LIFELINE
from postern.misspelled import AMONG_OURSELVES, misspelled_settings
from postern.secret import VARIABLE
from postern.settings import ServeSettings
from sftpd.sockets import HANDED_DOWN


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("POSTERN_SMPT_URL", "POSTERN_SMTP_URL"),
        ("POSTERN_SMTP", "POSTERN_SMTP_URL"),
        ("POSTERN_DATABSE_URL", "POSTERN_DATABASE_URL"),
        ("POSTERN_SECRETKEY", "POSTERN_SECRET_KEY"),
        ("POSTERN_http_port", "POSTERN_HTTP_PORT"),
        ("POSTERN_TWILLIO_RATE", "POSTERN_TWILIO_RATE"),
        ("POSTERN_FUZZ_EXAMPLES", None),
        ("POSTERN_", None),
    ],
)
def test_the_nearest_setting_is_named(tmp_path: Path, name: str, nearest: str | None) -> None:
    """Where there is one that is near; in the environment as in the file, and once."""
    (tmp_path / "postern.env").write_text(f"{name}=1\n")
    for environ in ({}, {name: "2"}):
        (found,) = misspelled_settings(tmp_path, environ)
        assert (found.name, found.nearest) == (name, nearest)


def test_settings_and_what_is_not_ours_are_left_alone(tmp_path: Path) -> None:
    """Those of every role: one file may serve them all. What our processes tell each other is no setting either."""
    assert {MEMBER, LIFELINE, HANDED_DOWN} == AMONG_OURSELVES
    names = [*ServeSettings.variables(), VARIABLE, *AMONG_OURSELVES, "PATH", "AWS_REGION", "XPOSTERN_HOME"]
    assert misspelled_settings(tmp_path, dict.fromkeys(names, "1")) == []


def test_a_role_says_so_when_it_starts(tmp_path: Path) -> None:
    """And goes on, here as far as its database, which is away. The value is told to nobody."""
    environ = {
        "POSTERN_HOME": str(tmp_path),
        "POSTERN_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "POSTERN_HTPP_PORT": "hunter2",
    }
    command = [sys.executable, "-P", "-m", "postern", "web"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    said = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    (warning,) = [line for line in said if line["event"] == "settings.unknown"]
    assert (warning["level"], warning["name"]) == ("warning", "POSTERN_HTPP_PORT")
    assert warning["nearest"] == "POSTERN_HTTP_PORT"
    assert "hunter2" not in result.stderr
    assert result.returncode == 1
    assert "database" in result.stderr.lower()
