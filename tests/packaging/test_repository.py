"""What must never be in the repository, and what must be loaded by no gate."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORBIDDEN_IN_THE_GATE = (
    "sqlalchemy", "alembic", "dbos", "boto3", "polars", "aiosmtplib", "twilio", "fastapi", "uvicorn", "jinja2",
    "storage.ledger", "storage.database", "pipeline", "dispatch", "notifier", "web", "keys.enrolment",
)  # fmt: skip


def _tracked() -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_private_key_and_no_registry_address_is_committed() -> None:
    """Tests make their keys, and packages are installed by name."""
    key = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
    words = (rb"index-ur[l]", rb"extra-inde[x]", rb"registr[y]\s*[=:]\s*.?http", rb"\"resolve[d]\": *\"http")
    address = re.compile(b"|".join(words))  # which does not find itself
    for path in _tracked():
        content = path.read_bytes()
        assert not key.search(content), f"{path} holds a private key"
        assert not address.search(content), f"{path} names a registry"


def test_every_pin_has_a_name_and_a_version_only() -> None:
    """constraints.txt holds `name==version` lines."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z]+\])?==[A-Za-z0-9.+!]+", line), line


def test_the_gate_loads_nothing_of_the_programs_behind_it() -> None:
    """As a running process sees it, the command line included."""
    code = "import sys, postern.cli.app, postern.cli.compose, sftpd.server\nprint('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "sftpd.server" in loaded
    assert not loaded & set(FORBIDDEN_IN_THE_GATE)
