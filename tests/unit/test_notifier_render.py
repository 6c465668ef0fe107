"""What the campaign owner's mails say, to people and to programs."""

import json
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.context import NoticeContext
from notifier.render import render
from postern.model import Finding, Notice, NoticeKind, Verdict

UPLOAD = "upload_7f1f6c0e-6d6b-4b7a-9c55-1b2f0a3d9e11"
BATCH = "batch_0b8a2f7e-4f0e-5e0a-8a4e-5a7c1e2d3f40"
CAMPAIGN = "campaign_2f1c9d0a-31b5-4a1e-8a57-0d9f6b8e7c21"
SUPPORT = "support_5d0b4a52-7a34-4b07-9a0e-1de7a7c1d5f3"
REPORT = f"https://postern.example/reports/{CAMPAIGN}/r.csv?expires=1764250506&signature={'q' * 200}"
HOLD_URL = f"https://postern.example/held/{UPLOAD}?expires=1764250506&signature={'h' * 43}"
ZONE = ZoneInfo("Asia/Singapore")

ERRORS = [
    Finding(code="recipient_invalid", sentence=f"Write the country code in row {row}.", row=row, column="recipient")
    for row in range(2, 14)
]
WARNINGS = [Finding(code="duplicate_recipient", sentence="", row=row) for row in (4, 9)]


def verdict(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "is_valid": True,
        "total_rows": 12480,
        "num_rows": 0,
        "num_errors": 0,
        "has_avoidable_character": False,
        "has_unicode": True,
        "by_code": {},
        "first_errors": [],
        "warnings": {"duplicate_recipient": 2},
        "first_warnings": WARNINGS,
        "rows_by_language": {"english": 11900, "chinese": 580},
        "segments": 13620,
        "local_segments": 13600,
        "foreign_segments": 20,
    }
    return Verdict(**(values | changes)).as_json()


def bad_verdict(**changes: Any) -> dict[str, Any]:
    values = {
        "is_valid": False,
        "num_rows": 12,
        "num_errors": 1204,
        "by_code": {"parameter_missing": 4, "recipient_invalid": 1200},
        "first_errors": ERRORS,
    }
    return verdict(**(values | changes))


HOLD: dict[str, Any] = {
    "isCutOff": False,
    "writeBlock": 0,
    "lines": None,
    "repeatOf": {
        "uploadId": "upload_1d0b4a52-7a34-4b07-9a0e-1de7a7c1d5f3",
        "fileName": "renewals-monday.csv",
        "receivedAt": "2026-11-20T20:15:00.000+08:00",
        "status": "accepted",
        "rows": 12480,
    },
    "linkExpiresAt": "2026-11-27T21:35:09.000+08:00",
}
CUT_OFF = {**HOLD, "isCutOff": True, "writeBlock": 261_120, "lines": 9_871, "repeatOf": None}

EXTRAS: dict[NoticeKind, dict[str, Any]] = {
    NoticeKind.ACCEPTED: {"batchId": BATCH, "verdict": verdict(), "estimatedCost": "1630.2"},
    NoticeKind.REJECTED: {
        "verdict": bad_verdict(),
        "reportURL": REPORT,
        "reportExpiresAt": "2026-11-27T21:35:09.000+08:00",
    },
    NoticeKind.REFUSED: {"reason": "The file is larger than the limit.", "size": None, "sha256": None},
    NoticeKind.FAILED: {"supportId": SUPPORT},
    NoticeKind.HELD: {"hold": HOLD},
    NoticeKind.DROPPED: {"hold": HOLD, "reason": "An operator dropped it.", "answers": "held"},
}


def notice(kind: NoticeKind, **changes: Any) -> Notice:
    context: NoticeContext = {
        "uploadId": UPLOAD,
        "campaignId": CAMPAIGN,
        "campaignName": "Passport renewals",
        "agency": "Immigration & Checkpoints Authority",
        "fileName": "renewals.csv",
        "size": 1_234_567,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "receivedAt": "2026-11-20T21:35:06.582+08:00",
        "verdict": None,
        "batchId": None,
        "reportURL": None,
        "reportExpiresAt": None,
        "workbookURL": None,
        "supportId": None,
        "reason": None,
        "hold": None,
        "answers": None,
        "estimatedCost": None,
        "environment": "production",
        "provider": "twilio",
    }
    return Notice(
        id="notice_0d5b4a52-7a34-4b07-9a0e-1de7a7c1d5f3",
        upload_id=UPLOAD,
        kind=kind,
        recipient="owner@agency.example",
        context=json.loads(json.dumps(context | EXTRAS[kind] | changes)),
        created_at=datetime(2026, 11, 20, 13, 35, 9, tzinfo=UTC),
    )


def mail_for(kind: NoticeKind, **changes: Any) -> EmailMessage:
    """The mail as a reader gets it: rendered, sent over the wire and parsed again."""
    url = HOLD_URL if kind is NoticeKind.HELD else None
    mail = render(notice(kind, **changes), sender="Postern <postern@sms.agency.example>", zone=ZONE, hold_url=url)
    return message_from_bytes(mail.as_bytes(), policy=default)  # type: ignore[return-value]


def plain(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


def html(mail: EmailMessage) -> str:
    body = mail.get_body(("html",))
    assert body is not None
    text: str = body.get_content()
    return text


def result_lines(text: str) -> list[str]:
    """What a program takes for a result: the lines that are a JSON object."""
    return [line for line in text.splitlines() if line.lstrip().startswith("{")]


def test_accepted_mail_has_the_result_on_a_line_of_its_own() -> None:
    """The line is exact to the byte, in the decoded text."""
    assert result_lines(plain(mail_for(NoticeKind.ACCEPTED))) == [f'{{"isValid":true,"batchId":"{BATCH}"}}']


def test_rejected_mail_has_the_result_on_a_line_of_its_own() -> None:
    """Key order, spacing and the whole long URL are exact."""
    expected = (
        f'{{"isValid":false,"reportURL":"{REPORT}","numRows":12,"numErrors":1204,'
        '"fileHasAvoidableExpensiveCharacter":false,"fileHasUnicode":true}'
    )
    assert result_lines(plain(mail_for(NoticeKind.REJECTED))) == [expected]


@pytest.mark.parametrize("file_name", ["renewals.csv", "续签名单.csv"])
@pytest.mark.parametrize("kind", [NoticeKind.ACCEPTED, NoticeKind.REJECTED])
def test_the_result_line_survives_in_the_raw_mail(kind: NoticeKind, file_name: str) -> None:
    """A `grep` over a mailbox finds the line unfolded and unencoded, whatever the file's name."""
    mail = render(notice(kind, fileName=file_name), sender="postern@agency.example", zone=ZONE)

    raw = mail.as_bytes(policy=SMTP).split(b"\r\n")

    assert [line for line in raw if line.startswith(b'{"isValid":')]
    assert max(map(len, raw)) <= 998


def test_the_result_line_survives_a_server_that_takes_seven_bits() -> None:
    """What the generator makes for such a server decodes to the same text."""
    mail = render(notice(NoticeKind.ACCEPTED, fileName="续签.csv"), sender="postern@agency.example", zone=ZONE)

    wire = mail.as_bytes(policy=SMTP.clone(cte_type="7bit"))

    assert wire.isascii()
    parsed: EmailMessage = message_from_bytes(wire, policy=default)  # type: ignore[assignment]
    assert plain(parsed) == plain(mail)


@pytest.mark.parametrize("kind", sorted(set(NoticeKind) - {NoticeKind.ACCEPTED, NoticeKind.REJECTED}))
def test_other_mails_have_no_json(kind: NoticeKind) -> None:
    """A program that looks for a result finds none."""
    text = plain(mail_for(kind))

    assert "{" not in text
    assert "isValid" not in text


@pytest.mark.parametrize("kind", NoticeKind)
def test_every_mail_states_rows_bytes_and_digest(kind: NoticeKind) -> None:
    """Or that they are not known."""
    text = plain(mail_for(kind))
    facts = dict(re.findall(r"^  (Rows|Size|SHA-256) +(.+)$", text, re.MULTILINE))
    known = kind is not NoticeKind.REFUSED
    assert facts["Size"] == ("1.2 MB (1,234,567 bytes)" if known else "unknown")
    assert facts["SHA-256"].startswith("9f86d081884c7d65" if known else "unknown")
    assert facts["Rows"] == ("not counted" if kind in {NoticeKind.REFUSED, NoticeKind.FAILED} else "12,480")


def test_a_hold_notice_about_a_repeat_names_the_earlier_upload() -> None:
    """With its name, time and outcome, the link to decide by and until when, and the operator's commands."""
    mail = mail_for(NoticeKind.HELD)
    for text in (plain(mail), unescape(html(mail))):
        for wanted in (
            "renewals-monday.csv",
            "20 November 2026, 20:15:00 (UTC+08:00),",
            "which was accepted",
            "upload_1d0b4a52-7a34-4b07-9a0e-1de7a7c1d5f3",
            HOLD_URL,
            "27 November 2026, 21:35:09 (UTC+08:00)",
            f"postern upload release {UPLOAD}",
            f"postern upload drop {UPLOAD}",
        ):
            assert wanted in text
        assert "cut off" not in text
    assert plain(mail).startswith("HELD: nothing is sent of this file until you decide.\n")


def test_a_hold_notice_about_a_cut_off_file_says_what_to_compare() -> None:
    """How many lines came; why it looks so; and that a whole file may look so as well."""
    mail = mail_for(NoticeKind.HELD, hold=CUT_OFF)
    for text in (plain(mail), re.sub("<.*?>", "", html(mail))):
        assert "It has 9,871 lines." in text
        assert "(261,120 bytes)" in text
        assert "A whole file can look so, too" in text
        assert "same bytes" not in text
    assert "  Rows            not counted\n" in plain(mail)


def test_a_repeat_that_is_cut_off_as_well_is_told_both() -> None:
    """Either is a reason to look."""
    text = plain(mail_for(NoticeKind.HELD, hold={**CUT_OFF, "repeatOf": HOLD["repeatOf"]}))
    assert "It also looks cut off." in text
    assert "has the same bytes as one that came before" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [("received", "is being checked"), ("validating", "is being checked"), ("held", "is held as well")],
)
def test_a_hold_notice_says_how_far_the_earlier_upload_is(status: str, words: str) -> None:
    """Nothing that is not so yet."""
    text = plain(
        mail_for(NoticeKind.HELD, hold={**HOLD, "repeatOf": {**HOLD["repeatOf"], "status": status, "rows": None}})
    )
    assert f"which {words}." in text
    assert "accepted" not in text


def test_a_drop_mail_says_who_dropped_it_and_why_it_was_held() -> None:
    """Also where nothing was held: its campaign was deleted."""
    text = plain(mail_for(NoticeKind.DROPPED))
    assert "An operator dropped it." in text
    assert "It had been held, as it had the same bytes as upload_1d0b4a52" in text
    text = plain(mail_for(NoticeKind.DROPPED, hold=None, reason="Its campaign was deleted.", answers=None))
    assert "Its campaign was deleted." in text
    assert "held" not in text


@pytest.mark.parametrize("kind", sorted(set(NoticeKind) - {NoticeKind.HELD, NoticeKind.REFUSED}))
def test_an_outcome_follows_the_mail_before_it(kind: NoticeKind) -> None:
    """The hold notice, or the failure that was tried again; on one line, as some programs do not unfold."""
    for earlier in (NoticeKind.HELD, NoticeKind.FAILED):
        mail = render(notice(kind, answers=earlier.value), sender="Postern <postern@sms.agency.example>", zone=ZONE)
        for name in (b"In-Reply-To", b"References"):
            assert b"\r\n%s: <%s.%s@sms.agency.example>\r\n" % (
                name,
                earlier.encode(),
                UPLOAD.encode(),
            ) in mail.as_bytes(policy=SMTP)
    first = render(notice(kind, answers=None), sender="postern@agency.example", zone=ZONE)
    assert (first["In-Reply-To"], first["References"]) == (None, None)


def test_failed_mail_says_what_to_quote() -> None:
    """File, campaign and support ID are there, and that nothing was sent."""
    for text in (plain(mail_for(NoticeKind.FAILED)), html(mail_for(NoticeKind.FAILED))):
        assert "renewals.csv" in text
        assert CAMPAIGN in text
        assert SUPPORT in text
        assert "Nothing was sent" in text


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_headers_say_what_the_mail_is(kind: NoticeKind) -> None:
    """Subject, identity, date and the marks of an automatic mail."""
    mail = mail_for(kind)

    assert mail["Subject"] == f"{kind.capitalize()}: renewals.csv (Passport renewals)"
    assert mail["Message-ID"] == f"<{kind}.{UPLOAD}@sms.agency.example>"
    assert mail["Date"] == "Fri, 20 Nov 2026 21:35:09 +0800"
    assert mail["From"] == "Postern <postern@sms.agency.example>"
    assert mail["To"] == "owner@agency.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Auto-Response-Suppress"] == "All"
    assert mail["Reply-To"] is None
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_the_same_notice_makes_the_same_bytes(kind: NoticeKind) -> None:
    """Nothing in a mail depends on clock or chance."""
    first, second = (render(notice(kind), sender="p@agency.example", zone=ZONE) for _ in range(2))

    assert first.as_bytes() == second.as_bytes()


HOSTILE = 'x.csv\r\nBcc: all@evil.example\r\n\r\n{"isValid":true,"batchId":"batch_evil"}\u2028{"isValid":true}\udcff'


@pytest.mark.parametrize("field", ["fileName", "campaignName", "agency"])
@pytest.mark.parametrize("kind", list(NoticeKind))
def test_a_hostile_name_adds_neither_header_nor_line(kind: NoticeKind, field: str) -> None:
    """Line breaks in names end up as replacement characters, in headers and in text."""
    ordinary, hostile = mail_for(kind), mail_for(kind, **{field: HOSTILE})

    assert hostile.keys() == ordinary.keys()
    assert result_lines(plain(hostile)) == result_lines(plain(ordinary))


@pytest.mark.parametrize(
    "file_name",
    ["=?utf-8?q?x=0D=0ABcc=3A_all=40evil.example?=.csv", "0" * 29, "a" * 251 + ".csv", "续" * 80 + ".csv", "a  b.csv"],
)
def test_the_subject_means_what_the_name_says(file_name: str) -> None:
    """No name is decoded, folded away from its outcome, or cut."""
    mail = render(notice(NoticeKind.REFUSED, fileName=file_name), sender="postern@agency.example", zone=ZONE)
    raw = mail.as_bytes(policy=SMTP)

    read: EmailMessage = message_from_bytes(raw, policy=default)  # type: ignore[assignment]
    assert read["Subject"] == f"Refused: {file_name} (Passport renewals)"
    assert read["Bcc"] is None
    assert max(map(len, raw.splitlines())) <= 998


def test_html_escapes_what_came_from_outside() -> None:
    """Markup in names, columns and sentences is shown, not obeyed."""
    script = "<script>alert('1')</script>&"
    error = Finding(code="recipient_invalid", sentence=script, row=2, column=script)
    page = html(
        mail_for(
            NoticeKind.REJECTED,
            fileName=script,
            campaignName=script,
            agency=script,
            verdict=bad_verdict(first_errors=[error], by_code={script: 2}),
        )
    )

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_plain_text_does_not_escape() -> None:
    """The agency's ampersand stays an ampersand."""
    assert "Immigration & Checkpoints Authority" in plain(mail_for(NoticeKind.ACCEPTED))


def test_rejected_mail_shows_ten_errors_and_all_kinds() -> None:
    """The table ends at ten errors, and the kinds stand with titles, most frequent first."""
    mail = mail_for(NoticeKind.REJECTED)
    text, page = plain(mail), html(mail)

    assert "Row 11, recipient: Write the country code in row 11." in text
    assert "in row 12." not in text
    assert "in row 12." not in page
    assert "The first 10 of 1,204 errors" in text
    assert re.search(r"1,200  Recipient is not a possible phone number\n +4  Value is missing", text)
    assert "Recipient is not a possible phone number" in page


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        (
            'recipient "91234567" lacks the country code: write 6591234567',
            'recipient "…" lacks the country code: write …',
        ),
        (
            'recipient "+65 9123-4567" has more than digits: write 6591234567',
            'recipient "…" has more than digits: write …',
        ),
        (
            'recipient "Em "Y" Yeo" is no phone number: such as 6591234567',
            'recipient "…" is no phone number: such as 6591234567',
        ),
        ("recipient 6591234567 stands in an earlier row", "recipient … stands in an earlier row"),
        ("message has 1,024 characters with its values", "message has 1,024 characters with its values"),
    ],
)
def test_a_mail_repeats_nothing_of_a_row(sentence: str, shown: str) -> None:
    """Numbers and values that a sentence quotes are in the report, behind its link, and not in mails."""
    error = Finding(code="recipient_invalid", sentence=sentence, row=2, column="recipient")
    mail = mail_for(NoticeKind.REJECTED, verdict=bad_verdict(first_errors=[error]))

    assert f"Row 2: {shown}\n" in plain(mail) or f"Row 2, recipient: {shown}\n" in plain(mail)
    for secret in ("1234-4567", "91234567 ", "Yeo"):
        assert secret not in plain(mail) + html(mail)


def test_the_names_of_characters_and_their_replacements_stay() -> None:
    """A replacement that is a quotation mark is no value of the row."""
    sentence = 'name has characters to avoid: U+201C LEFT DOUBLE QUOTATION MARK (use "), U+2013 EN DASH (use ")'
    finding = Finding(code="parameter_avoidable_character", sentence=sentence, row=6, column="name")
    mail = mail_for(NoticeKind.REJECTED, verdict=bad_verdict(first_errors=[finding]))
    assert sentence in plain(mail)


def test_names_in_a_header_stay() -> None:
    """What is wrong with a header cannot be said without its names."""
    error = Finding(code="file_header_unknown", sentence='"topc" is not a column (topic was meant).', row=1)
    mail = mail_for(NoticeKind.REJECTED, verdict=bad_verdict(num_rows=0, num_errors=1, first_errors=[error]))

    assert '  Row 1: "topc" is not a column (topic was meant).' in plain(mail)


def test_rejected_mail_links_the_report_and_says_how_long_it_works() -> None:
    """The button goes to the report; the time is the service's own."""
    page = html(mail_for(NoticeKind.REJECTED))

    assert f'href="{REPORT.replace("&", "&amp;")}"' in page
    assert "The link works until 27 November 2026, 21:35:09 (UTC+08:00)." in page


def test_the_workbook_is_named_only_where_there_is_one() -> None:
    """Without its URL no mail speaks of Excel; with it both forms link it."""
    without, there = (
        mail_for(NoticeKind.REJECTED),
        mail_for(NoticeKind.REJECTED, workbookURL="https://w.example/r.xlsx"),
    )

    assert "Excel" not in plain(without) + html(without)
    assert "https://w.example/r.xlsx" in plain(there)
    assert 'href="https://w.example/r.xlsx"' in html(there)
    assert "Both links work until" in plain(there)
    for text in (plain(there), html(there)):
        assert "CSV UTF-8" in text  # a workbook cannot be uploaded


def test_a_file_error_is_not_told_as_rows() -> None:
    """Where the file as a whole is at fault, no mail counts zero rows."""
    error = Finding(code="file_encoding", sentence="The file is UTF-16; save it as UTF-8.")
    mail = mail_for(
        NoticeKind.REJECTED,
        verdict=bad_verdict(total_rows=0, num_rows=0, num_errors=1, by_code={"file_encoding": 1}, first_errors=[error]),
    )

    assert "cannot be read as a list of messages" in plain(mail)
    assert "  File: The file is UTF-16; save it as UTF-8." in plain(mail)
    assert " 0 " not in plain(mail).split("The upload")[0]


def test_accepted_mail_says_what_was_made_of_the_file() -> None:
    """Rows, languages, segments, cost, fingerprint and warnings are there, with separators."""
    text = plain(mail_for(NoticeKind.ACCEPTED))

    for fact in (
        "1.2 MB (1,234,567 bytes)",
        "20 November 2026, 21:35:06 (UTC+08:00)",
        "12,480",
        "English 11,900, Chinese 580",
        "13,620 (13,600 local, 20 foreign)",
        "SGD 1,630.20 before tax",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "Recipient stands in the file more than once (rows 4 and 9)",
        f"postern batch show {BATCH}",
    ):
        assert fact in text


def test_one_of_a_thing_is_singular() -> None:
    """One message is on its way; one error is in one row."""
    one = {"total_rows": 1, "segments": 1, "local_segments": 1, "foreign_segments": 0, "warnings": {}}
    accepted = mail_for(NoticeKind.ACCEPTED, verdict=verdict(**one))
    rejected = mail_for(
        NoticeKind.REJECTED, verdict=bad_verdict(total_rows=1, num_rows=1, num_errors=1, first_errors=ERRORS[:1])
    )

    assert "1 message is on its way" in plain(accepted)
    assert "1 message is on its way" in html(accepted)
    assert "1 error in its only row." in plain(rejected)


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_the_simulator_is_never_taken_for_the_real_thing(kind: NoticeKind) -> None:
    """Every mail under the simulator says SIMULATED, and every mail under a provider does not."""
    simulated, real = mail_for(kind, provider="simulator"), mail_for(kind)

    assert "SIMULATED" in plain(simulated)
    assert "SIMULATED" in html(simulated)
    assert "SIMULATED" not in plain(real) + html(real)


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_in_a_load_test_all_is_simulated(kind: NoticeKind) -> None:
    """Whatever provider is set: the simulator takes every message."""
    mail = mail_for(kind, provider="twilio", environment="loadtest")
    for text in (plain(mail), html(mail)):
        assert "SIMULATED" in text
        assert "the simulator is the provider here" in text
        assert "on their way" not in text


def test_a_load_test_costs_nothing() -> None:
    """As every simulated message."""
    mail = mail_for(NoticeKind.ACCEPTED, provider="twilio", environment="loadtest")
    assert "SGD 0.00 (SIMULATED)" in plain(mail)
    assert mail["Subject"].endswith("[SIMULATED]")


def test_in_the_test_environment_only_the_simulators_numbers_are_simulated() -> None:
    """The others leave, so the mail as a whole is not marked."""
    mail = mail_for(NoticeKind.ACCEPTED, provider="twilio", environment="test")
    for text in (plain(mail), re.sub("<.*?>", "", unescape(html(mail)))):
        assert re.search("SIMULATED, in this environment, are messages to the simulator['’]s own numbers", text)
        assert "on their way" in text
    assert "SIMULATED" not in mail["Subject"]
    assert "SIMULATED" not in plain(mail_for(NoticeKind.REJECTED, provider="twilio", environment="test"))


def test_simulated_messages_cost_nothing() -> None:
    """The estimate is zero and the subject says why."""
    mail = mail_for(NoticeKind.ACCEPTED, provider="simulator")

    assert "SGD 0.00 (SIMULATED)" in plain(mail)
    assert mail["Subject"] == "Accepted: renewals.csv (Passport renewals) [SIMULATED]"


def test_only_production_is_charged() -> None:
    """In test the mail is marked and the estimate is zero, whoever the provider is."""
    text = plain(mail_for(NoticeKind.ACCEPTED, environment="test"))

    assert "SGD 0.00 (only production is charged)" in text


CODES = [
    "row_too_few_fields",
    "row_too_many_fields",
    "recipient_missing",
    "recipient_invalid",
    "language_missing",
    "language_unknown",
    "language_unavailable",
    "parameter_missing",
    "parameter_edge_space",
    "parameter_avoidable_character",
    "parameter_control_character",
    "message_too_long",
    "file_empty",
    "file_no_rows",
    "file_too_many_rows",
    "file_encoding",
    "file_quoting",
    "file_header_anything",
    "body_over_320",
    "segments_over_6",
    "duplicate_recipient",
    "duplicate_row",
    "fake_number",
    "local_number_unusual",
    "unexpected_unicode",
]


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_title(code: str) -> None:
    """No mail shows a code where a person expects words."""
    text = plain(mail_for(NoticeKind.REJECTED, verdict=bad_verdict(by_code={code: 3}, warnings={code: 2})))

    assert code not in text
    assert code.replace("_", " ").capitalize() not in text


@pytest.mark.parametrize("kind", list(NoticeKind))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(text=st.text(max_size=300))
def test_any_name_makes_a_mail_that_reads_back(kind: NoticeKind, text: str) -> None:
    """Whatever a client calls its file, the mail is well-formed and has at most its one result."""
    mail = mail_for(kind, fileName=text, campaignName=text, reason=text)

    assert not mail.defects
    assert len(result_lines(plain(mail))) == (kind in {NoticeKind.ACCEPTED, NoticeKind.REJECTED})
    assert mail["Subject"].startswith(f"{kind.capitalize()}: ")
