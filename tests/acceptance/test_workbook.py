"""The report as a workbook, from the stock client's put to what a person opens."""

import io
import re
from email.message import EmailMessage
from pathlib import Path

import httpx
import openpyxl
import pytest
from acceptance.installation import Installation, good_file, until
from openpyxl.worksheet.worksheet import Worksheet

HEADER = "recipient,language,recipient_name,topic\n"
BAD_FILE = HEADER + "6591234567,english,Emily Yeo,=1+1\n\n91234568,english,Ann,passport\n6591234569,english\n"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.fixture
def postern(shared: Installation) -> Installation:
    """One for all of these tests, each of which leaves it running."""
    return shared


def links(mail: EmailMessage) -> list[str]:
    """The links to workbooks, of the plain text and of the HTML."""
    found = []
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        found += re.findall(r'https?://[^\s"]+\.xlsx\?[^\s"]+', body.get_content().replace("&amp;", "&"))
    return found


def workbook(url: str) -> Worksheet:
    """What the link gives, once it is ready; until then it says so."""

    def ready() -> bytes | None:
        answer = httpx.get(url, timeout=60)
        if answer.status_code != httpx.codes.OK:
            assert (answer.status_code, "is being made" in answer.text) == (503, True)
            return None
        assert answer.headers["Content-Type"] == XLSX
        return answer.content

    sheet = openpyxl.load_workbook(io.BytesIO(until("the workbook", ready, patience=120))).active
    assert isinstance(sheet, Worksheet)
    return sheet


def test_a_rejected_file_has_a_workbook_beside_its_report(postern: Installation) -> None:
    """The mail links both; every value is text, and each reason stands in the row that its sentence names."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, BAD_FILE)
    upload = postern.outcome()
    mail = postern.mail_about(upload)
    url, same = links(mail)
    assert url == same
    assert url.split("?")[0] == upload["reportURL"].split("?")[0].removesuffix("csv") + "xlsx"
    rows = [[cell.value for cell in row] for row in workbook(url).iter_rows()]
    assert rows[:3] == [
        ["recipient", "language", "recipient_name", "topic", "Error Reason"],
        ["6591234567", "english", "Emily Yeo", "=1+1", None],
        [None] * 5,
    ]
    assert rows[3][:4] == ["91234568", "english", "Ann", "passport"]
    assert "lacks the country code" in str(rows[3][4])
    assert "row has 2 fields" in str(rows[4][4])
    assert httpx.get(url.replace(".xlsx?", ".csv?"), timeout=60).status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and more", good_file(2).encode()])
def test_no_mail_offers_a_workbook_that_there_is_none_of(postern: Installation, content: bytes) -> None:
    """Neither where nothing can be read, nor where nothing is wrong."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, content)
    assert links(postern.mail_about(postern.outcome())) == []


def test_a_worker_that_dies_over_a_workbook_makes_it_after_all(postern: Installation) -> None:
    """The mail is out before the workbook is made; the next worker makes it, whole."""
    campaign_id, key = postern.enrolled()
    postern.put(campaign_id, key, HEADER + "x,english,Ann,passport\n" * 100_000)
    url = links(postern.mail_about(postern.outcome()))[0]
    postern.kill("worker")
    assert workbook(url).dimensions == "A1:E100001"
    assert len(postern.mails()) == 1


def test_a_dry_run_writes_the_workbook(installation: Installation, tmp_path: Path) -> None:
    """`postern check --workbook`, with no server; and says where there can be none."""
    campaign_id, made = installation.new_campaign(), tmp_path / "report.xlsx"
    bad, empty = installation.write(BAD_FILE, "bad.csv"), installation.write("", "empty.csv")
    command = ("check", str(bad), "--campaign", campaign_id, "--workbook", str(made))
    told = installation.run(*command)
    assert (told.returncode, str(made) in told.stdout.replace("\n", "")) == (1, True)
    sheet = openpyxl.load_workbook(made).active
    assert isinstance(sheet, Worksheet)
    assert sheet["D2"].value == "=1+1"
    made.unlink()
    told = installation.run("check", str(empty), "--campaign", campaign_id, "--workbook", str(made))
    assert (told.returncode, "as a workbook: none" in told.stdout, made.exists()) == (1, True, False)
    assert '"workbook": null' in installation.run(*command[:2], *command[2:4], "--json").stdout
