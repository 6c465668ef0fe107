"""Turns a notice into the mail that the campaign owner receives: plain text with the machine-readable line, and HTML.

The same notice makes the same bytes, Message-ID and MIME boundary included, so a mail sent twice is recognisable.
A key missing from the context raises; the outbox is written by us, so that is a bug. Text that came from
outside (file and campaign names above all) can neither break a line nor a header nor the HTML.
Phone numbers and values that a finding quotes are left out; the report has them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default as unix_lines
from email.utils import parseaddr
from functools import cache
from typing import Any, NamedTuple, TypedDict, cast
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from notifier.headers import headers
from postern.display import clean
from postern.model import Environment as Installation
from postern.model import Notice, NoticeKind
from postern.times import from_iso, in_words

LONGEST_LINE = 998  # octets without CRLF: RFC 5322, 2.1.1
MOST_ERRORS = 10  # shown in a mail; the report has them all
MOST_ROWS = 5  # named for one kind of warning

# What findings quote of a row, and what may be a phone number: the report shows them, behind a link that ends;
# a mail stays in many places. The example "such as 6591234567" and offsets ("byte 1234567") are no secrets.
QUOTED = re.compile('".*"')
NUMBER = re.compile(r"(?<!such as )(?<!byte )(?<!\d)\+?\d(?:[ .()-]?\d){6,}")
LEFT_OUT = "…"


class NoticeContext(TypedDict):
    """What stands in `Notice.context`: plain JSON values, written when the outcome is recorded."""

    uploadId: str
    campaignId: str
    campaignName: str
    agency: str
    fileName: str
    size: int | None  # bytes; None where the gate refused before it knew
    sha256: str | None
    receivedAt: str  # ISO 8601 with an offset
    verdict: dict[str, Any] | None  # Verdict.as_json(); None for refused and failed
    batchId: str | None
    reportURL: str | None
    reportExpiresAt: str | None  # ISO 8601 with an offset: when the links to report and workbook end
    workbookURL: str | None  # the report as .xlsx, where there is one
    supportId: str | None
    reason: str | None  # a sentence of ours, for refused, failed and dropped
    hold: "HoldContext | None"  # for held, and for dropped where it was held
    answers: str | None  # the kind of the mail that this one follows, if any
    estimatedCost: str | None  # SGD as a decimal, before tax and as if charged: "12.34"
    environment: str
    provider: str  # "simulator" marks the mail SIMULATED and its cost 0


class HoldContext(TypedDict):
    """Why an upload is held."""

    isCutOff: bool
    writeBlock: int  # bytes of each write; 0 where they differ
    lines: int | None  # of a file that looks cut off
    repeatOf: "RepeatContext | None"
    linkExpiresAt: str  # ISO 8601 with an offset


class RepeatContext(TypedDict):
    """The upload whose bytes came again, as it was then."""

    uploadId: str
    fileName: str
    receivedAt: str  # ISO 8601 with an offset
    status: str
    rows: int | None  # known once it is accepted


class Tally(NamedTuple):
    """How often one kind of error or warning occurs, and the first rows where it does."""

    title: str
    times: int
    rows: str


class Fact(NamedTuple):
    """One line of what a mail says about the upload."""

    label: str
    text: str
    is_code: bool = False


def render(notice: Notice, *, sender: str, zone: ZoneInfo, hold_url: str | None = None) -> EmailMessage:
    """The mail for a notice, from `sender`, with times in `zone`; a hold notice has the link to decide by."""
    view = {**_view(notice, zone), "hold_url": hold_url}
    mail = EmailMessage(policy=unix_lines.clone(header_factory=headers()))
    mail["Subject"] = _fill(notice.kind, "subject.txt", view).strip()
    mail["From"] = sender
    mail["To"] = Address(addr_spec=notice.recipient)
    mail["Date"] = notice.created_at.astimezone(zone)
    mail["Message-ID"] = message_id(notice, sender=sender)
    answered = answered_kind(notice)
    if answered is not None:
        mail["In-Reply-To"] = mail["References"] = message_id(replace(notice, kind=answered), sender=sender)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5
    mail["X-Auto-Response-Suppress"] = "All"  # the same to Exchange
    text = re.sub(r"\n{3,}", "\n\n", _fill(notice.kind, "body.txt", view))
    mail.set_content(text, cte=_text_encoding(text))
    mail.add_alternative(_fill(notice.kind, "body.html", view), subtype="html", cte="quoted-printable")
    mail.set_boundary("=_postern_" + hashlib.sha256(notice.upload_id.encode()).hexdigest()[:32])
    return mail


def message_id(notice: Notice, *, sender: str) -> str:
    """`<accepted.upload_…@host>`: the same for every mail about the same outcome of the same upload."""
    host = parseaddr(sender)[1].rpartition("@")[2]
    return f"<{notice.kind}.{notice.upload_id}@{host}>"


def answered_kind(notice: Notice) -> NoticeKind | None:
    """The kind of the mail about the same upload that this one follows, if any."""
    kind = notice.context.get("answers")
    return None if kind is None else NoticeKind(kind)


def result_line(kind: NoticeKind, context: NoticeContext) -> str | None:
    """The line that a program reads; None where the outcome has none."""
    if kind is NoticeKind.ACCEPTED:
        result: dict[str, Any] = {"isValid": True, "batchId": context["batchId"]}
    elif kind is NoticeKind.REJECTED:
        verdict = _verdict(context)
        keys = ("numRows", "numErrors", "fileHasAvoidableExpensiveCharacter", "fileHasUnicode")
        result = {"isValid": False, "reportURL": context["reportURL"]} | {key: verdict[key] for key in keys}
    else:
        return None
    return json.dumps(result, separators=(",", ":"))


def _text_encoding(text: str) -> str:
    # Quoted-printable would fold the result line with soft breaks and base64 would hide it: a `grep` over a
    # mailbox would find neither. Sent as it is, the line survives raw and decoded alike; a server without
    # 8BITMIME gets base64 from the courier's generator. Only a line that SMTP may cut needs base64 here.
    if max(len(line.encode()) for line in text.splitlines()) > LONGEST_LINE:
        return "base64"
    return "7bit" if text.isascii() else "8bit"


def _view(notice: Notice, zone: ZoneInfo) -> dict[str, Any]:
    """All that the templates may name."""
    context = cast("NoticeContext", clean(notice.context))
    expires = context["reportExpiresAt"]
    return {
        "kind": notice.kind.value,
        "it": context,
        "verdict": context["verdict"],
        # From the context as it is stored, not as it is cleaned for people: JSON escapes what needs it.
        "result_line": result_line(notice.kind, cast("NoticeContext", notice.context)),
        "facts": _facts(context, zone),
        "extent": _extent(context["verdict"]),
        "errors": _first_errors(context["verdict"]),
        "error_kinds": _tallies(context["verdict"], "byCode", "firstErrors"),
        "warning_kinds": _tallies(context["verdict"], "warnings", "firstWarnings"),
        "marks": _marks(context),
        "simulated": context["provider"] == "simulator",
        "cost": _cost(context),
        "expires": None if expires is None else in_words(from_iso(expires), zone),
        "hold": _hold(context.get("hold"), zone),
    }


def _hold(hold: HoldContext | None, zone: ZoneInfo) -> dict[str, Any] | None:
    """Why an upload is held, with times for people."""
    if hold is None:
        return None
    repeat = hold["repeatOf"]
    return {
        **hold,
        "expires": in_words(from_iso(hold["linkExpiresAt"]), zone),
        "repeatOf": repeat and {**repeat, "received": in_words(from_iso(repeat["receivedAt"]), zone)},
    }


def _extent(verdict: Mapping[str, Any] | None) -> str:
    """How much of the file has errors: `37 of its 12,480 rows`, `all of its 12 rows`, `its only row`."""
    if verdict is None:
        return ""
    if verdict["totalRows"] == verdict["numRows"]:
        return "its only row" if verdict["numRows"] == 1 else f"all of its {number(verdict['totalRows'])} rows"
    return f"{number(verdict['numRows'])} of its {number(verdict['totalRows'])} rows"


def _first_errors(verdict: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    errors = [] if verdict is None else verdict["firstErrors"][:MOST_ERRORS]
    return [error | {"sentence": _without_values(error["code"], error["sentence"])} for error in errors]


def _without_values(code: str, sentence: str) -> str:
    """The sentence without what the row holds; names in the header and of characters are needed to repair it."""
    if not code.startswith("file_") and code != "parameter_avoidable_character":
        sentence = QUOTED.sub(f'"{LEFT_OUT}"', sentence)
    return NUMBER.sub(LEFT_OUT, sentence)


def _tallies(verdict: Mapping[str, Any] | None, counts: str, examples: str) -> list[Tally]:
    """The kinds of findings, the most frequent first."""
    if verdict is None:
        return []
    by_count = sorted(verdict[counts].items(), key=lambda item: (-item[1], item[0]))
    return [Tally(_title(code), count, _first_rows(code, count, verdict[examples])) for code, count in by_count]


def _title(code: str) -> str:
    # A template of its own and not a macro: what a macro returns counts as safe HTML, and a code need not be.
    return _templates().get_template("shared/title.txt").render(code=code).strip()


def _first_rows(code: str, count: int, examples: Iterable[Mapping[str, Any]]) -> str:
    """`row 4`, `rows 4 and 9`, `rows 4, 9, 12 and more`, or nothing where no row is known."""
    rows = [str(finding["row"]) for finding in examples if finding["code"] == code and finding["row"]]
    rows = rows[:MOST_ROWS]
    if not rows:
        return ""
    if len(rows) < count:
        return f"rows {', '.join(rows)} and more"
    return f"row {rows[0]}" if len(rows) == 1 else f"rows {', '.join(rows[:-1])} and {rows[-1]}"


def _facts(context: NoticeContext, zone: ZoneInfo) -> list[Fact]:
    size, sha256, batch_id = context["size"], context["sha256"], context["batchId"]
    campaign = ", ".join(filter(None, (context["campaignName"], context["agency"])))
    candidates = [
        Fact("File", context["fileName"]),
        Fact("Size", "unknown" if size is None else _size(size)),
        Fact("Received", in_words(from_iso(context["receivedAt"]), zone)),
        *_verdict_facts(context),
        *_unread_facts(context),
        Fact("Campaign", campaign),
        Fact("Campaign ID", context["campaignId"], is_code=True),
        Fact("Batch", batch_id or "", is_code=True),
        Fact("Upload", context["uploadId"], is_code=True),
        Fact("SHA-256", sha256 or "unknown: the file was not taken in", is_code=bool(sha256)),
        Fact("Environment", context["environment"].capitalize()),
    ]
    return [fact for fact in candidates if fact.text]


def _unread_facts(context: NoticeContext) -> list[Fact]:
    """What is known of the rows of a file that nobody has read, or read to its end."""
    if context["verdict"] is not None:
        return []
    hold = context.get("hold")
    if hold is None:
        return [Fact("Rows", "not counted")]
    repeat = hold["repeatOf"]
    rows = repeat["rows"] if repeat else None
    return [
        Fact("Rows", "not counted" if rows is None else number(rows)),
        Fact("Lines", "" if hold["lines"] is None else f"{number(hold['lines'])}, header included"),
    ]


def _verdict_facts(context: NoticeContext) -> list[Fact]:
    verdict = context["verdict"]
    if verdict is None:
        return []
    if not verdict["totalRows"]:
        return [Fact("Rows", "none that could be read")]
    facts = [Fact("Rows", number(verdict["totalRows"])), Fact("Languages", _languages(verdict["rowsByLanguage"]))]
    if verdict["isValid"]:
        facts += [
            Fact("Segments", _segments(verdict)),
            Fact("Encoding", "Unicode in some messages" if verdict["fileHasUnicode"] else "GSM-7 throughout"),
            Fact("Estimated cost", _cost_in_words(context)),
        ]
    return facts


def _languages(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{language.capitalize()} {number(count)}" for language, count in rows.items() if count)


def _segments(verdict: Mapping[str, Any]) -> str:
    if not verdict["foreignSegments"]:
        return number(verdict["segments"])
    local, foreign = number(verdict["localSegments"]), number(verdict["foreignSegments"])
    return f"{number(verdict['segments'])} ({local} local, {foreign} foreign)"


def _cost(context: NoticeContext) -> str | None:
    """The estimate as an amount in SGD; simulated messages and those outside production cost nothing."""
    if context["provider"] == "simulator" or context["environment"] != Installation.PRODUCTION:
        return "0.00"
    return None if context["estimatedCost"] is None else f"{Decimal(context['estimatedCost']):,.2f}"


def _cost_in_words(context: NoticeContext) -> str:
    cost = _cost(context)
    if cost is None:
        return ""
    if context["provider"] == "simulator":
        return f"SGD {cost} (SIMULATED)"
    if context["environment"] != Installation.PRODUCTION:
        return f"SGD {cost} (only production is charged)"
    return f"SGD {cost} before tax, if every message is charged"


def _marks(context: NoticeContext) -> list[str]:
    """What sets this mail apart from an ordinary one, most important first."""
    marks = ["SIMULATED"] if context["provider"] == "simulator" else []
    if context["environment"] != Installation.PRODUCTION:
        marks.append(context["environment"].upper())
    return marks


def _verdict(context: NoticeContext) -> dict[str, Any]:
    verdict = context["verdict"]
    assert verdict is not None, "a rejected file has a verdict"
    return verdict


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def number(value: int) -> str:
    """`1,234,567`."""
    return f"{value:,}"


def _size(size: int) -> str:
    """`512 bytes`, `1.5 MB (1,500,000 bytes)`; in powers of ten, as the limit is."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if size >= factor:
            return f"{size / factor:.1f} {unit} ({number(size)} bytes)"
    return counted(size, "byte")


def _fill(kind: NoticeKind, name: str, view: Mapping[str, Any]) -> str:
    return _templates().get_template(f"{kind}/{name}").render(view)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("notifier"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(number=number, counted=counted)
    return templates
