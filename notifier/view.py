"""What the templates of a mail may name, made from what its notice knows.

A key missing from the context raises; the outbox is written by us, so that is a bug. Phone numbers and values that a
finding quotes are left out; the report has them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

from notifier.context import HoldContext, NoticeContext
from notifier.wording import number, size_in_words, title_of
from postern.display import clean
from postern.model import Environment, Notice, NoticeKind
from postern.sms.simulation import MARK, Simulation, simulation_of
from postern.times import from_iso, in_words

MOST_ERRORS = 10  # shown in a mail; the report has them all
MOST_ROWS = 5  # named for one kind of warning

# What findings quote of a row, and what may be a phone number: the report shows them, behind a link that ends;
# a mail stays in many places. The example "such as 6591234567" and offsets ("byte 1234567") are no secrets.
QUOTED = re.compile('".*"')
NUMBER = re.compile(r"(?<!such as )(?<!byte )(?<!\d)\+?\d(?:[ .()-]?\d){6,}")
LEFT_OUT = "…"


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


def view_of(notice: Notice, zone: ZoneInfo) -> dict[str, Any]:
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
        "simulated": _simulation(context) is Simulation.ALL,
        "partly_simulated": _simulation(context) is Simulation.NUMBERS,
        "cost": _cost(context),
        "expires": None if expires is None else in_words(from_iso(expires), zone),
        "hold": _hold(context.get("hold"), zone),
    }


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
    return [Tally(title_of(code), count, _first_rows(code, count, verdict[examples])) for code, count in by_count]


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
        Fact("Size", "unknown" if size is None else size_in_words(size)),
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
    if _simulation(context) is Simulation.ALL or context["environment"] != Environment.PRODUCTION:
        return "0.00"
    return None if context["estimatedCost"] is None else f"{Decimal(context['estimatedCost']):,.2f}"


def _cost_in_words(context: NoticeContext) -> str:
    cost = _cost(context)
    if cost is None:
        return ""
    if _simulation(context) is Simulation.ALL:
        return f"SGD {cost} ({MARK})"
    if context["environment"] != Environment.PRODUCTION:
        return f"SGD {cost} (only production is charged)"
    return f"SGD {cost} before tax, if every message is charged"


def _marks(context: NoticeContext) -> list[str]:
    """What sets this mail apart from an ordinary one, most important first."""
    marks = [MARK] if _simulation(context) is Simulation.ALL else []
    if context["environment"] != Environment.PRODUCTION:
        marks.append(context["environment"].upper())
    return marks


def _simulation(context: NoticeContext) -> Simulation:
    return simulation_of(context["provider"], Environment(context["environment"]))


def _verdict(context: NoticeContext) -> dict[str, Any]:
    verdict = context["verdict"]
    assert verdict is not None, "a rejected file has a verdict"
    return verdict
