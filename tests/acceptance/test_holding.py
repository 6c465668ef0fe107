"""A file that comes twice, one that was cut off, and one that failed by our fault: held, released, dropped, retried."""

import re
import signal
import subprocess
import urllib.error
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from acceptance.installation import PATIENCE, Installation, good_file, json_line, until
from support.spools import data_sizes

BLOCK = 261_120  # bytes of a write of OpenSSH's sftp


def statuses(postern: Installation) -> list[str]:
    """Of all uploads, oldest first."""
    return [upload["status"] for upload in reversed(postern.uploads())]


def held(postern: Installation) -> dict[str, Any]:
    """The newest upload, once it is held."""
    until("an upload to be held", lambda: postern.query("SELECT 1 FROM uploads WHERE status = 'held'"))
    newest = postern.uploads()[0]
    assert newest["status"] == "held"
    return newest


def mail_of(postern: Installation, upload: dict[str, Any], kind: str) -> EmailMessage:
    def arrived() -> EmailMessage | None:
        wanted = f"<{kind}.{upload['id']}@"
        return next((mail for mail in postern.mails() if str(mail["Message-ID"]).startswith(wanted)), None)

    return until(f"the mail that it is {kind}", arrived)


def page(address: str, *, post: bool = False) -> tuple[int, str]:
    """Status and text of a page."""
    request = urllib.request.Request(address, method="POST" if post else "GET")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def link_in(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    (link,) = re.findall(r"http://\S+/held/\S+", body.get_content())
    return str(link)


def test_a_file_put_twice_is_sent_once_unless_its_owner_says_so(postern: Installation) -> None:
    """put, put → held, mail, page, button → it goes on, once; the third is dropped by the operator."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, good_file(3), "monday.csv")
    first = postern.outcome()
    postern.put(campaign_id, key, good_file(3), "tuesday.csv")
    second = held(postern)
    assert (second["repeatOf"], second["isCutOff"], second["batchId"]) == (first["id"], False, None)
    assert first["id"] in second["reason"]
    assert "a repeat" in postern.run("upload", "list").stdout
    notice = mail_of(postern, second, "held")
    assert str(notice["Subject"]).startswith("Held: tuesday.csv")
    assert json_line(notice) == []
    link = link_in(notice)
    status, text = page(link)
    assert (status, "monday.csv" in text, second["sha256"][:16] in text) == (200, True, True)
    assert postern.postern("upload", "show", second["id"])["status"] == "held"
    (release,) = re.findall('action="([^"]*/release[^"]*)"', text)
    release = urljoin(link, release.replace("&amp;", "&"))
    assert page(release, post=True)[0] == 200
    assert page(release, post=True)[0] == 409
    assert page(link)[0] == 410
    outcome = postern.outcome(2)
    assert (outcome["status"], outcome["decidedBy"]) == ("accepted", "owner")
    mail = mail_of(postern, second, "accepted")
    assert mail["In-Reply-To"] == notice["Message-ID"]
    assert postern.final_batch(outcome["batchId"])["messages"] == {"success": 3}

    postern.put(campaign_id, key, good_file(3), "wednesday.csv")
    third = held(postern)
    assert postern.postern("upload", "drop", third["id"])["status"] == "dropped"
    for command in ("drop", "release", "retry"):
        refused = postern.run("upload", command, third["id"])
        assert (refused.returncode, "dropped" in refused.stderr) == (1, True)
    assert postern.run("upload", "release", "upload_x").returncode == 1
    assert postern.run("upload", "release").returncode == 2
    assert json_line(mail_of(postern, third, "dropped")) == []
    handovers = postern.handovers()
    assert (len(handovers), set(handovers.values())) == (6, {1})
    trail = postern.query("SELECT action, actor FROM audit WHERE action LIKE 'upload.%' ORDER BY id")
    assert [action for action, _ in trail] == ["upload.released", "upload.dropped"]
    assert trail[0][1] == "owner"


def test_an_interrupted_sftp_is_held(postern: Installation) -> None:
    """The client exits with 0 and leaves the start of the file; its campaign is deleted before anybody decides."""
    campaign_id, key = postern.enrolled()
    rows = "".join(f"65{8 + row % 2}{row:07},english,{'Emily ' * 150}Yeo,passport\n" for row in range(8_000))
    content = f"recipient,language,recipient_name,topic\n{rows}".encode()
    path = postern.write(content, "interrupted.csv")
    assert b"\n" not in content[BLOCK - 1 :: BLOCK]
    interrupt(postern, campaign_id, key, path)
    upload = held(postern)
    assert (upload["isCutOff"], upload["repeatOf"], upload["size"] % BLOCK) == (True, None, 0)
    assert upload["size"] < len(content)
    notice = mail_of(postern, upload, "held")
    body = notice.get_body(("plain",))
    assert body is not None
    lines = content[: upload["size"]].count(b"\n") + 1
    assert f"It has {lines:,} lines." in body.get_content()
    assert "(261,120 bytes)" in body.get_content()

    assert postern.postern("campaign", "delete", campaign_id)["id"] == campaign_id
    assert statuses(postern) == ["dropped"]
    mail = mail_of(postern, upload, "dropped")
    assert mail["In-Reply-To"] == notice["Message-ID"]
    status, text = page(link_in(notice))
    assert (status, "was dropped" in text) == (410, True)
    assert postern.run("campaign", "delete", campaign_id).returncode == 1
    until("the key to stop working", lambda: postern.sftp(campaign_id, key, "ls").returncode != 0)
    assert postern.handovers() == {}


def interrupt(postern: Installation, campaign_id: str, key: Path, path: Path) -> None:
    """Put a file slowly, and press Ctrl-C when a good part of it is there."""
    command = postern.client("sftp", "-b", "-", "-l", "20000", f"{campaign_id}@127.0.0.1", key=key)
    incoming = postern.home / "spool" / "incoming"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=postern.folder
    ) as client:
        assert client.stdin is not None
        client.stdin.write(f"put {path.name}\n".encode())
        client.stdin.close()
        until("part of the file", lambda: any(size > 3 * BLOCK for size in data_sizes(incoming)))
        client.send_signal(signal.SIGINT)
        assert client.wait(PATIENCE) == 0


def test_an_upload_that_failed_is_tried_again(tmp_path: Path) -> None:
    """By the support id that its owner quotes, after the mend; one batch, and each message once."""
    postern = Installation(tmp_path, POSTERN_VALIDATION_TIMEOUT="0.001")
    with postern.serving():
        campaign_id, key = postern.enrolled()
        postern.put(campaign_id, key, good_file(1000))
        failed = postern.outcome()
        assert failed["status"] == "failed"
        mail_of(postern, failed, "failed")
    del postern.environ["POSTERN_VALIDATION_TIMEOUT"]
    with postern.serving():
        retried = postern.postern("upload", "retry", failed["supportId"])
        assert (retried["id"], retried["status"], retried["numRetries"]) == (failed["id"], "validating", 1)
        assert postern.run("upload", "retry", failed["id"]).returncode == 1
        upload = postern.outcome()
        assert (upload["status"], upload["supportId"]) == ("accepted", failed["supportId"])
        mail = mail_of(postern, failed, "accepted")
        assert str(mail["In-Reply-To"]).startswith(f"<failed.{failed['id']}@")
        assert postern.final_batch(upload["batchId"])["messages"] == {"success": 1000}
        assert set(postern.handovers().values()) == {1}
