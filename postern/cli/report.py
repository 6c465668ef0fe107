"""`postern report …`: what was handed over, and what it costs."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from postern.cli.charges import Charges, write_csv
from postern.cli.ledger import Ledger, open_ledger
from postern.cli.output import Json, OfCampaign, console, print_table, refusals, show
from postern.errors import Refusal
from postern.model import Channel, Environment
from postern.months import Month, billing_year, billing_year_of, month_of, read_month, read_year
from postern.sms.charges import CURRENCY, tariff_of
from postern.sms.simulation import MARK
from postern.times import utc_now

_FIGURES = ("messages", "attempts", "segments", "charged segments", "cost")

InCsv = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="Write a row for each month and campaign here, too.", show_default=False
    ),
]

app = typer.Typer(no_args_is_help=True, help="Reports: what was handed over, and what it costs before tax.")


@app.command("month")
def month_(
    month: Annotated[str, typer.Argument(metavar="[YYYY-MM]", help="The month; this one unless given.")] = "",
    campaign: OfCampaign = None,
    csv: InCsv = None,
    as_json: Json = False,
) -> None:
    """Show what a month costs: a summary, and a breakdown by campaign."""
    with refusals(as_json), open_ledger() as ledger:
        current = month_of(utc_now(), ledger.zone)
        wanted = read_month(month) if month else current
        if wanted > current:
            raise Refusal("month_in_future", f"{wanted} has not begun in {ledger.zone.key}; this month is {current}.")
        charges = _charges(ledger, [wanted], campaign, csv)
    document = {"month": str(wanted)} | charges.document()
    title = f"{wanted.words} ({charges.zone.key})"
    show(document, as_json=as_json, otherwise=lambda: _for_people(document, title, csv))


@app.command("year")
def year_(
    year: Annotated[str, typer.Argument(metavar="[YYYY]", help="The year it begins in; this one unless given.")] = "",
    campaign: OfCampaign = None,
    csv: InCsv = None,
    as_json: Json = False,
) -> None:
    """Show what a billing year costs, from February to January: each month, the sum, a breakdown by campaign."""
    with refusals(as_json), open_ledger() as ledger:
        current = billing_year_of(month_of(utc_now(), ledger.zone))
        wanted = read_year(year) if year else current
        if wanted > current:
            said = f"The billing year {wanted} begins in February {wanted}; this one is {current}."
            raise Refusal("year_in_future", said)
        charges = _charges(ledger, billing_year(wanted), campaign, csv)
    first, last = charges.months[0], charges.months[-1]
    period = {"billingYear": wanted, "from": str(first), "to": str(last)}
    document = period | charges.document() | {"months": charges.month_documents()}
    title = f"the billing year {wanted}, {first.words} to {last.words} ({charges.zone.key})"
    show(document, as_json=as_json, otherwise=lambda: _for_people(document, title, csv))


def _charges(ledger: Ledger, months: Sequence[Month], campaign_id: str | None, csv: Path | None) -> Charges:
    from storage.ledger.campaigns import get_campaign, list_campaigns
    from storage.ledger.charges import list_usage

    if campaign_id is not None:
        get_campaign(ledger.database, campaign_id, even_deleted=True)
    charges = Charges(
        months=months,
        usages=list_usage(ledger.database, months, ledger.zone, campaign_id=campaign_id),
        campaigns=list_campaigns(ledger.database, even_deleted=True),
        tariff=tariff_of(ledger.settings),
        zone=ledger.zone,
        now=utc_now(),
    )
    if csv is not None:
        write_csv(csv, charges)
    return charges


def _for_people(document: dict[str, Any], title: str, csv: Path | None) -> None:
    console.print(f"[bold]Charges of {title}[/], {CURRENCY} before tax\n")
    if document["summary"]["attempts"]:
        _print_tables(document)
    else:
        console.print("Nothing was handed over.")
    for note in _notes(document):
        console.print(f"  {note}", markup=False)
    if csv is not None:
        console.print(f"As CSV: {csv}", markup=False)


def _print_tables(document: dict[str, Any]) -> None:
    summary, months, campaigns = document["summary"], document.get("months", []), document["campaigns"]
    sides = [(name, "", *_cells(summary[name])) for name in ("local", "foreign")]
    _print_figures("recipients", [*sides, ("all", f"{summary['messages']:,}", *_cells(summary))])
    _print_figures("status", [(name, "", *_cells(tally)) for name, tally in summary["byStatus"].items()])
    if months:
        rows = [(one["month"], f"{one['summary']['messages']:,}", *_cells(one["summary"])) for one in months]
        _print_figures("month", rows, remarks=["" if one["isComplete"] else "may change" for one in months])
    rows = [(one["id"], f"{one['messages']:,}", *_cells(one)) for one in campaigns]
    _print_figures("campaign", rows, remarks=[_name(one) for one in campaigns])


def _cells(tally: dict[str, Any]) -> tuple[str, ...]:
    numbers = (tally["attempts"], tally["segments"], tally["chargedSegments"], Decimal(tally["cost"]))
    return tuple(f"{number:,}" for number in numbers)


def _print_figures(first: str, rows: Sequence[tuple[str, ...]], *, remarks: Sequence[str] = ()) -> None:
    """A table whose numbers stand under each other."""
    names, *columns = zip((first, *_FIGURES), *rows, strict=True)
    aligned = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    header, *body = zip(names, *aligned, ("", *(remarks or [""] * len(rows))), strict=True)
    print_table(header, body, empty="")
    console.print()


def _name(campaign: dict[str, Any]) -> str:
    marks = [
        campaign["channel"] if campaign["channel"] == Channel.INTERNAL else "",
        "deleted" if campaign["deletedAt"] else "",
        f"{campaign['simulatedAttempts']:,} {MARK}" if campaign["simulatedAttempts"] else "",
    ]
    said = ", ".join(filter(None, marks))
    return f"{campaign['agency']}: {campaign['name']}" + (f" ({said})" if said else "")


def _notes(document: dict[str, Any]) -> list[str]:
    """What the figures do not say by themselves."""
    summary, prices = document["summary"], document["prices"]
    notes = [f"A segment costs {prices['local']} to a local and {prices['foreign']} to a foreign number."]
    if document["environment"] != Environment.PRODUCTION:
        notes.append(f"Nothing is charged in this environment, which is {document['environment']}.")
    if simulated := summary["simulatedAttempts"]:
        they = "1 attempt" if simulated == 1 else f"{simulated:,} attempts"
        notes.append(f"{MARK}: {they}, which nobody received and nobody pays for.")
    if any(campaign["channel"] == Channel.INTERNAL for campaign in document["campaigns"]):
        notes.append("Internal campaigns send by their agency's own account, whose provider bills it.")
    if pending := summary["pendingAttempts"]:
        they = "1 attempt has" if pending == 1 else f"{pending:,} attempts have"
        notes.append(f"{they} no final status yet and may still be charged.")
    if not document["isComplete"]:
        notes.append("These figures are as of now and may change.")
    return notes
