"""`postern report`: a month and a billing year, for people, for programs and for finance."""

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.domain import add_campaign, change, change_message, enqueued_batch, new_campaign
from support.ended import add_attempt
from typer.testing import CliRunner

from postern.cli import output
from postern.cli.app import app
from postern.model import Channel, MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.tables import campaigns

pytest_plugins = ["support.databases"]

FAILED = {"status": MessageStatus.FAILURE.value, "error_type": "delivery_error", "error_code": "recipient_invalid"}
LOCAL, FOREIGN = "6591234567", "85223456789"


class Desk:
    """A home with a ledger, and its command line."""

    def __init__(self, url: str, home: Path) -> None:
        self.database, self.jobs, self.home = Database(url), Jobs(url), home
        self._environ = {"POSTERN_HOME": str(home), "POSTERN_DATABASE_URL": url}

    def campaign(self, name: str, attempts: dict[str, dict[str, Any]], **values: Any) -> str:
        """A campaign with an attempt for each of these recipients."""
        campaign = add_campaign(self.database, name=name)
        batch_id = enqueued_batch(self.database, self.jobs, campaign, list(attempts))
        for row, fields in enumerate(attempts.values(), start=2):
            change_message(self.database, batch_id, row, segments=3)
            add_attempt(self.database, batch_id, row, **{"sent_at": datetime(2024, 3, 5, tzinfo=UTC), **fields})
        if values:
            change(self.database, campaigns, campaign.id, **values)
        return campaign.id

    def run(self, *arguments: str, status: int = 0, **environ: str) -> str:
        result = CliRunner().invoke(app, ["report", *arguments], env={**self._environ, **environ})
        assert result.exit_code == status, result.output
        return result.output

    def found(self, *arguments: str, **environ: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run(*arguments, "--json", **environ))
        return document


@pytest.fixture
def desk(sqlite_url: str, tmp_path: Path) -> Any:
    """A desk with nothing in its ledger."""
    desk = Desk(sqlite_url, tmp_path)
    yield desk
    desk.jobs.close()
    desk.database.dispose()


def test_a_month_for_programs(desk: Desk) -> None:
    """Summary and breakdown, with exact amounts in text; deleted campaigns are there, other months are not."""
    deleted_at = datetime(2024, 3, 9, tzinfo=UTC)
    first = desk.campaign("Passports", {LOCAL: {}, "6591234568": FAILED, FOREIGN: {"status": "sent_to_telco"}})
    later = {"sent_at": datetime(2024, 3, 31, 16, tzinfo=UTC)}
    second = desk.campaign("Visas", {LOCAL: {}, "6591234568": later, FOREIGN: later}, deleted_at=deleted_at)
    document = desk.found("month", "2024-03")
    assert {name: document[name] for name in ("month", "timezone", "environment", "currency", "isComplete")} == {
        "month": "2024-03",
        "timezone": "Asia/Singapore",
        "environment": "production",
        "currency": "SGD",
        "isComplete": True,
    }
    assert document["prices"] == {"local": "0.046", "foreign": "0.23"}
    one = {"attempts": 1, "segments": 3, "chargedAttempts": 1, "chargedSegments": 3}
    none = {"unchargedAttempts": 0, "unchargedSegments": 0}
    assert document["summary"] == {
        "messages": 4,
        "attempts": 4,
        "segments": 12,
        "chargedAttempts": 4,
        "chargedSegments": 12,
        **none,
        "cost": "1.104",
        "pendingAttempts": 0,
        "simulatedAttempts": 0,
        "local": {"attempts": 3, "segments": 9, "chargedAttempts": 3, "chargedSegments": 9, **none, "cost": "0.414"},
        "foreign": {**one, **none, "cost": "0.690"},
        "byStatus": {
            "recipient_invalid": {**one, **none, "cost": "0.138"},
            "sent_to_telco": {**one, **none, "cost": "0.690"},
            "success": {
                "attempts": 2,
                "segments": 6,
                "chargedAttempts": 2,
                "chargedSegments": 6,
                **none,
                "cost": "0.276",
            },
        },
    }
    assert [(one["id"], one["name"], one["cost"]) for one in document["campaigns"]] == [
        (first, "Passports", "0.966"),
        (second, "Visas", "0.138"),
    ]
    assert [one["deletedAt"] for one in document["campaigns"]] == [None, "2024-03-09T08:00:00.000+08:00"]
    assert desk.found("month", "2024-03", "--campaign", second)["summary"]["cost"] == "0.138"


def test_a_billing_year_for_programs(desk: Desk) -> None:
    """Twelve months from February to January, whose sum the summary is."""
    moments = [(2024, 1, 31, 15), (2024, 1, 31, 16), (2024, 6, 1, 0), (2025, 1, 31, 15), (2025, 1, 31, 16)]
    people = {f"659123456{place}": {"sent_at": datetime(*moment, tzinfo=UTC)} for place, moment in enumerate(moments)}
    desk.campaign("Passports", people)
    document = desk.found("year", "2024")
    assert (document["billingYear"], document["from"], document["to"]) == (2024, "2024-02", "2025-01")
    months = {one["month"]: one["summary"]["cost"] for one in document["months"]}
    assert list(months) == [*(f"2024-{number:02}" for number in range(2, 13)), "2025-01"]
    assert {month: cost for month, cost in months.items() if Decimal(cost)} == dict.fromkeys(
        ("2024-02", "2024-06", "2025-01"), "0.138"
    )
    assert document["summary"]["cost"] == document["campaigns"][0]["cost"] == "0.414"
    assert document["isComplete"] is True


def test_what_has_no_final_status_leaves_a_month_open(desk: Desk) -> None:
    """It may still be charged."""
    desk.campaign("Passports", {LOCAL: {"status": "sent"}, FOREIGN: {"status": "sent_to_telco"}})
    document = desk.found("month", "2024-03")
    assert (document["isComplete"], document["summary"]["pendingAttempts"]) == (False, 1)
    assert "1 attempt has no final status yet and may still be charged." in desk.run("month", "2024-03")


def test_this_month_and_year_unless_another_is_given(desk: Desk) -> None:
    """They are not over, so their figures may change."""
    month, year = desk.found("month"), desk.found("year")
    assert month["month"] in {one["month"] for one in year["months"]}
    assert (month["isComplete"], year["isComplete"]) == (False, False)


def test_a_month_for_people(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs nothing, and why, is said; numbers stand under each other."""
    monkeypatch.setattr(output.console, "width", 160)  # it read the environment when it was made
    desk.campaign("Passports [new]", {LOCAL: {}, FOREIGN: {"provider": "simulator"}})
    desk.campaign("Staff", {LOCAL: {}}, channel=Channel.INTERNAL.value)
    shown = desk.run("month", "2024-03")
    lines = [line.split() for line in shown.splitlines()]
    assert "Charges of March 2024 (Asia/Singapore), SGD before tax" in shown
    assert ["all", "3", "3", "9", "3", "0.138"] in lines
    assert ["success", "3", "9", "3", "0.138"] in lines
    assert "Immigration: Passports [new] (1 SIMULATED)" in shown
    assert "Immigration: Staff (internal)" in shown
    assert "SIMULATED: 1 attempt, which nobody received and nobody pays for." in shown
    assert "Internal campaigns send by their agency's own account, whose provider bills it." in shown
    assert "may change" not in shown


def test_only_production_is_charged(desk: Desk) -> None:
    """Elsewhere all of it costs nothing."""
    desk.campaign("Passports", {LOCAL: {}})
    assert desk.found("month", "2024-03", POSTERN_ENVIRONMENT="test")["summary"]["cost"] == "0.000"
    shown = desk.run("month", "2024-03", POSTERN_ENVIRONMENT="test")
    assert "Nothing is charged in this environment, which is test." in shown


def test_an_empty_month_says_so(desk: Desk) -> None:
    """Instead of empty tables."""
    assert "Nothing was handed over." in desk.run("month", "2024-03")
    assert desk.found("month", "2024-03")["campaigns"] == []


def test_a_csv_for_finance(desk: Desk) -> None:
    """A row for each month and campaign; Excel reads its characters and runs nothing in it."""
    april = {"sent_at": datetime(2024, 4, 5, tzinfo=UTC)}
    desk.campaign("=1+1 护照", {LOCAL: {}, FOREIGN: april})
    desk.campaign("Visas", {LOCAL: {}, FOREIGN: {"status": "failure", "error_code": "server_unknown_error"}})
    path = desk.home / "year.csv"
    assert f"As CSV: {path}" in desk.run("year", "2024", "--csv", str(path))
    assert path.read_bytes().startswith(b"\xef\xbb\xbfmonth,campaignId,")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["month"], row["campaignName"], row["cost"]) for row in rows if row["month"] == "2024-04"] == [
        ("2024-04", "'=1+1 护照", "0.690")
    ]
    (visas,) = [row for row in rows if row["campaignName"] == "Visas"]
    assert (visas["foreignSegments"], visas["foreignChargedSegments"], visas["foreignCost"]) == ("3", "0", "0.000")
    total = sum(Decimal(row["cost"]) for row in rows)
    assert str(total) == desk.found("year", "2024")["summary"]["cost"] == "0.966"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("month", "2024-13"), "month_invalid", "'2024-13' is no month; write it as year and month, such as 2026-11."),
        (("month", "9000-01"), "month_in_future", "9000-01 has not begun in Asia/Singapore; this month is "),
        (("year", "24"), "year_invalid", "'24' is no year"),
        (("year", "9000"), "year_in_future", "The billing year 9000 begins in February 9000; this one is "),
        (("month", "--campaign", new_campaign().id), "not_found", "There is no campaign campaign_"),
        (("month", "--csv", "/nowhere/at/all.csv"), "csv_unwritable", "/nowhere/at/all.csv cannot be written: No such"),
    ],
)
def test_what_cannot_be_shown_is_refused(desk: Desk, arguments: tuple[str, ...], code: str, said: str) -> None:
    """With what was found and what to do, for people and for programs."""
    assert f"✗ {said}" in desk.run(*arguments, status=1)
    error = json.loads(desk.run(*arguments, "--json", status=1))["error"]
    assert (error["code"], said in error["message"]) == (code, True)
