"""One file, from the stock client's put to the owner's mail."""

import csv
import io
import json
import urllib.error
import urllib.request

import pytest
from acceptance.installation import Installation, good_file, json_line, until

MAGIC = {
    "6511111111": ("delivery_error", "recipient_invalid"),
    "6511112222": ("delivery_error", "recipient_unavailable"),
    "6511113333": ("delivery_error", "content_invalid"),
    "6511114444": ("delivery_error", "routing_error"),
    "6511115555": ("delivery_error", "message_expired"),
    "6511119999": ("delivery_error", "delivery_unknown_error"),
    "6522222222": ("server_error", "server_unknown_error"),
}


@pytest.fixture
def postern(shared: Installation) -> Installation:
    """One for all of these tests, each of which leaves it running."""
    return shared


def test_a_good_file_becomes_a_batch_whose_messages_all_come_to_their_end(postern: Installation) -> None:
    """put → exact JSON mail → batch → every message final, and nothing is left in the spool."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, good_file(100))
    upload = postern.outcome()
    assert (upload["status"], upload["fileName"], upload["totalRows"]) == ("accepted", "recipients.csv", 100)
    mail = postern.mail_about(upload)
    assert json_line(mail) == [f'{{"isValid":true,"batchId":"{upload["batchId"]}"}}']
    assert str(mail["Subject"]).startswith("Accepted")
    assert mail["To"] == "owner@agency.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    batch = postern.final_batch(upload["batchId"])
    assert batch["status"] == "messages_enqueued"
    assert batch["messages"] == {"success": 100}
    handovers = postern.handovers()
    assert len(handovers) == 100
    assert set(handovers.values()) == {1}
    (number,) = postern.query(f"SELECT number FROM batches WHERE id = '{batch['id']}'")[0]
    until("the index of ids", lambda: postern.query(f"SELECT 1 FROM batches WHERE number = {number} AND is_indexed"))
    assert postern.query(f"SELECT count(*) FROM message_ids WHERE batch = {number}") == [(100,)]
    assert postern.left_in_spool() == []
    assert len(postern.mails()) == 1


def test_the_simulators_numbers_end_in_the_errors_that_they_stand_for(postern: Installation) -> None:
    """Each magic number fails with its type and code; any other number succeeds."""
    campaign_id, key = postern.enrolled()
    rows = [f"{number},english,Name,topic" for number in [*MAGIC, "6599999999", "14155552671"]]
    postern.put(campaign_id, key, "\n".join(["recipient,language,recipient_name,topic", *rows, ""]))
    upload = postern.outcome()
    postern.final_batch(upload["batchId"])
    messages = postern.postern("message", "list", "--batch", upload["batchId"])
    ends = {message["recipient"]: message["messageAttempts"][-1] for message in messages}
    for number, (error_type, error_code) in MAGIC.items():
        assert (ends[number]["errorType"], ends[number]["errorCode"]) == (error_type, error_code)
        assert ends[number]["status"] == "failure"
    for number in ("6599999999", "14155552671"):
        assert ends[number]["status"] == "success"
        assert ends[number]["deliveredAt"] is not None


BAD_FILE = (
    "recipient,language,recipient_name,topic\r\n"
    "6591234567,english,Emily Yeo,passport\r\n"
    "91234568,english,James Tan,passport\r\n"
    '6591234569,Englsh,"Tan, ""Jo""",passport\r\n'
    "\r\n"
    "6591234570,english,Ann “B” Lee,passport\r\n"
    "6591234571,tamil, Siti,\r\n"
    "6591234572,english,Goh\r\n"
)


def test_a_file_with_errors_is_rejected_with_a_report_and_makes_no_batch(postern: Installation) -> None:
    """put → exact JSON mail → the report, over HTTP, has the right reasons on the right rows."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, BAD_FILE, "mistakes.CSV")
    upload = postern.outcome()
    assert (upload["status"], upload["batchId"]) == ("rejected", None)
    expected = {
        "isValid": False,
        "reportURL": upload["reportURL"],
        "numRows": 5,
        "numErrors": 7,
        "fileHasAvoidableExpensiveCharacter": True,
        "fileHasUnicode": True,
    }
    mail = postern.mail_about(upload)
    assert json_line(mail) == [json.dumps(expected, separators=(",", ":"))]
    with urllib.request.urlopen(upload["reportURL"]) as answer:
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        report = answer.read()
    assert report.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(report.decode("utf-8-sig"), newline="")))
    assert rows[0] == ["recipient", "language", "recipient_name", "topic", "Error Reason"]
    assert rows[1] == ["6591234567", "english", "Emily Yeo", "passport", ""]
    assert rows[3][:4] == ["6591234569", "Englsh", 'Tan, "Jo"', "passport"]
    assert rows[4] == []  # a blank line stays, so that rows keep their numbers
    reasons = {number: row[-1] for number, row in enumerate(rows, start=1) if row}
    assert "put 65 in front (6591234568)" in reasons[3]
    assert "english was probably meant" in reasons[4]
    assert "U+201C LEFT DOUBLE QUOTATION MARK" in reasons[6]
    assert [part.split(" ")[0] for part in reasons[7].split("; ")] == ["language", "recipient_name", "topic"]
    assert reasons[8].startswith("row has 3 fields where the header has 4")
    assert postern.batches() == []
    assert postern.handovers() == {}


def test_a_repaired_report_can_be_uploaded_as_it_is(postern: Installation) -> None:
    """The Error Reason column may stay."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, "recipient,language,recipient_name,topic\n91234567,english,Ann,passport\n")
    with urllib.request.urlopen(postern.outcome()["reportURL"]) as answer:
        report = answer.read()
    postern.put(campaign_id, key, report.replace(b"\n91234567", b"\n6591234567"), "repaired.csv")
    upload = postern.outcome(2)
    assert (upload["status"], upload["totalRows"]) == ("accepted", 1)
    assert postern.final_batch(upload["batchId"])["messages"] == {"success": 1}


def test_a_link_that_was_changed_or_has_expired_gives_nothing(postern: Installation) -> None:
    """Signature, path and expiry all count."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, "nonsense")
    url = postern.outcome()["reportURL"]
    other = url.replace("upload_", "upload_0", 1)[: len(url)]
    for changed in (url[:-1] + ("A" if url[-1] != "A" else "B"), other, url.replace("expires=", "expires=9")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(changed)
        assert refused.value.code in {403, 404}
        refused.value.close()


def test_scp_works_and_exits_0(postern: Installation) -> None:
    """scp in SFTP mode needs an exit status, or the batch job sends again."""
    campaign_id, key = postern.enrolled()
    result = postern.scp(campaign_id, key, postern.write(good_file(3)))
    assert result.returncode == 0, result.stderr
    assert postern.outcome()["status"] == "accepted"


def test_an_empty_file_is_accepted_by_sftp_and_rejected_by_mail(postern: Installation) -> None:
    """A file error: no rows with errors, one error."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, b"")
    upload = postern.outcome()
    assert (upload["status"], upload["numRows"], upload["numErrors"]) == ("rejected", 0, 1)
    assert json.loads(json_line(postern.mail_about(upload))[0])["numErrors"] == 1


def test_a_file_over_the_limit_is_refused_at_once_and_the_owner_is_told(postern: Installation) -> None:
    """The write fails, nothing is processed, and a mail without JSON says why."""
    campaign_id, key = postern.enrolled()
    postern.write(b"x" * 30_000_000, "huge.csv")
    result = postern.sftp(campaign_id, key, "put huge.csv")
    assert result.returncode != 0
    assert "30" in result.stderr
    upload = postern.outcome()
    assert upload["status"] == "refused"
    mail = postern.mail_about(upload)
    assert str(mail["Subject"]).startswith("Refused")
    assert json_line(mail) == []
    assert postern.left_in_spool() == []


def test_a_name_that_is_no_csv_is_refused_with_the_reason(postern: Installation) -> None:
    """Refused at OPEN; OpenSSH users read the reason on stderr."""
    campaign_id, key = postern.enrolled()
    postern.write("x", "list.xlsx")
    result = postern.sftp(campaign_id, key, "put list.xlsx")
    assert result.returncode != 0
    assert ".csv" in result.stderr
    assert postern.outcome()["status"] == "refused"


def test_the_same_file_twice_is_two_uploads(postern: Installation) -> None:
    """The same name twice, with other bytes, makes two batches."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, good_file(2))
    postern.put(campaign_id, key, good_file(3))
    postern.outcome(2)
    assert sorted(batch["total"] for batch in postern.batches()) == [2, 3]
