"""The process on the internet holds nothing of the others', in `serve` too."""

import os
from pathlib import Path

from acceptance.installation import Installation

from postern.settings import GateSettings

SECRETS = {
    "POSTERN_SECRET_KEY": "c2VjcmV0" * 6,
    "POSTERN_SMTP_URL": "smtp://user:hidden-password@127.0.0.1:9",
    "POSTERN_TWILIO_API_KEY_SECRET": "hidden-secret",
    "POSTERN_TWILIO_AUTH_TOKEN": "hidden-token",
    "AWS_SECRET_ACCESS_KEY": "hidden-key",
    "PGPASSWORD": "hidden-password",
}
PLAIN = {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}
OURS = {"POSTERN_LIFELINE", "POSTERN_HTTP_PORT"}


def test_the_gates_environment_holds_nothing_of_the_others(installation: Installation) -> None:
    """Its own settings and what every program needs; nor are files or sockets of the others open in it."""
    installation.environ.update(SECRETS)
    installation.environ["POSTERN_DATABASE_URL"] = f"sqlite:///{installation.home}/postern.db"
    with installation.serving() as postern:
        gate = Path(f"/proc/{postern.pid('gate')}")
        found = dict(entry.split("=", 1) for entry in os.fsdecode((gate / "environ").read_bytes()).split("\0") if entry)
        assert set(found) <= PLAIN | OURS | set(GateSettings.variables())
        assert not set(found) & (set(SECRETS) | {"POSTERN_DATABASE_URL", "POSTERN_BLOB_URL"})
        assert not [value for value in found.values() if "hidden" in value]
        assert "hidden" not in os.fsdecode((gate / "cmdline").read_bytes())
        opened = [str(path.readlink()) for path in (gate / "fd").iterdir() if path.is_symlink()]
        assert not [path for path in opened if path.endswith((".db", ".db-wal", "secret.key")) or "/blobs/" in path]
        loaded = (gate / "maps").read_text()
        assert not [name for name in ("polars", "psycopg", "numpy", "sqlite3") if f"/{name}" in loaded.lower()]
        worker = Path(f"/proc/{postern.pid('worker')}/environ").read_bytes()
        assert b"hidden-password" in worker
