"""Who gets in: unknown users, wrong keys and revoked keys are refused alike."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from acceptance.installation import Installation, good_file, until
from support.spools import data_sizes

from postern.model import IdKind, new_id


@pytest.fixture
def postern(shared: Installation) -> Installation:
    """One for all of these tests, each of which leaves it running."""
    return shared


def _seen(postern: Installation, user: str, key: Path) -> tuple[int, str]:
    """Exit status and message of a refused login, without the user's name and the port."""
    result = postern.sftp(user, key, "ls")
    return result.returncode, re.sub(r"campaign_[0-9a-f-]+|port \d+|\S+@", "…", result.stderr)


def test_unknown_user_wrong_key_and_revoked_key_are_refused_alike(postern: Installation) -> None:
    """A client cannot tell whether the campaign, or the key, or neither is known."""
    campaign_id, key = postern.enrolled()
    stranger = postern.new_key("stranger")
    revoked = postern.new_key("revoked")
    enrolled = postern.enrol(campaign_id, revoked)
    until("the second key to work", lambda: postern.sftp(campaign_id, revoked, "ls").returncode == 0)
    postern.postern("key", "revoke", enrolled["fingerprint"], "--reason", "lost")
    until("the revoked key to be refused", lambda: postern.sftp(campaign_id, revoked, "ls").returncode != 0, 5)
    unknown = _seen(postern, new_id(IdKind.CAMPAIGN), key)
    assert unknown[0] == 255
    assert "Permission denied (publickey)" in unknown[1]
    assert _seen(postern, campaign_id, stranger) == unknown
    assert _seen(postern, campaign_id, revoked) == unknown
    assert postern.sftp(campaign_id, key, "ls").returncode == 0


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_every_kind_of_key_that_is_promised_works(postern: Installation, kind: str) -> None:
    """RSA, ECDSA and ED25519."""
    campaign_id, key = postern.new_campaign(), postern.new_key(kind=kind)
    postern.enrol(campaign_id, key)
    until("the gate to know the key", lambda: postern.sftp(campaign_id, key, "ls").returncode == 0)
    postern.put(campaign_id, key, good_file(1))
    assert postern.outcome()["status"] == "accepted"


def test_a_revoked_key_ends_its_live_session(postern: Installation) -> None:
    """A session that is open when its key is revoked is closed within seconds."""
    campaign_id, key = postern.enrolled()
    command = postern.client("sftp", f"{campaign_id}@127.0.0.1", key=key)
    opened = postern.log.read_bytes().count(b"session.opened")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as session:
        assert session.stdin is not None
        session.stdin.write(b"ls\n")
        session.stdin.flush()
        until("the session to be open", lambda: postern.log.read_bytes().count(b"session.opened") > opened)
        fingerprint = postern.postern("key", "list", "--campaign", campaign_id)[0]["fingerprint"]
        before = postern.log.read_bytes().count(b"connection.ended")
        postern.postern("key", "revoke", fingerprint)
        until("the gate to end it", lambda: postern.log.read_bytes().count(b"connection.ended") > before or None, 3)
        session.stdin.write(b"ls\n")
        session.stdin.flush()
        assert session.wait(5) != 0


def test_no_shell_and_no_command(postern: Installation) -> None:
    """SFTP is all there is."""
    campaign_id, key = postern.enrolled()
    command = postern.client("ssh", key=key)
    command[command.index("-P")] = "-p"
    for rest in (["true"], []):
        result = subprocess.run(
            [*command, f"{campaign_id}@127.0.0.1", *rest],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert result.returncode != 0
        assert result.stdout == b""


def test_a_client_killed_in_mid_upload_leaves_no_upload(postern: Installation) -> None:
    """SIGKILL is no orderly close: whatever was written is cleaned up."""
    campaign_id, key = postern.enrolled()
    postern.write(good_file(200_000), "slow.csv")
    command = postern.client("sftp", "-l", "4000", "-b", "-", f"{campaign_id}@127.0.0.1", key=key)
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=postern.folder, stdout=subprocess.DEVNULL) as client:
        assert client.stdin is not None
        client.stdin.write(b"put slow.csv\n")
        client.stdin.close()
        incoming = postern.home / "spool" / "incoming"
        until("bytes to arrive", lambda: any(data_sizes(incoming)) or None)
        os.kill(client.pid, signal.SIGKILL)
    until("the leftovers to be gone", lambda: postern.left_in_spool() == [])
    postern.put(campaign_id, key, good_file(1))
    assert postern.outcome()["fileName"] == "recipients.csv"  # the one upload that there is


def test_the_gate_has_no_secrets_and_none_of_the_others_libraries(installation: Installation) -> None:
    """Its environment holds its own settings only, and no database, mail or provider code is loaded."""
    installation.environ |= {
        "POSTERN_SECRET_KEY": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldCE=",
        "POSTERN_SMTP_URL": "eml:",
        "SOME_TOKEN": "hunter2",
    }
    with installation.serving() as postern:
        environ = Path(f"/proc/{postern.pid('gate')}/environ").read_bytes().decode().split("\0")
        names = {entry.partition("=")[0] for entry in environ if entry}
        assert "POSTERN_HOME" in names
        assert not names & {"POSTERN_SECRET_KEY", "POSTERN_SMTP_URL", "POSTERN_DATABASE_URL", "SOME_TOKEN"}
        maps = Path(f"/proc/{postern.pid('gate')}/maps").read_text()
        assert "polars" not in maps
        assert "sqlalchemy" not in maps
        assert "_sqlite3" not in maps
