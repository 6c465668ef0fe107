"""`postern doctor`: is all well with this installation, and what to do where it is not.

All checks run side by side, each for a bounded time; one that hangs is a line like any other. Exit status: 0 all is
well, 1 it is not, 2 the settings cannot be used.
"""

import os
import pwd
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postern.cli import checks, database_checks
from postern.cli.findings import Check, Line, Status, failed
from postern.cli.output import Json, console, print_json, refusals
from postern.errors import PosternError
from postern.settings import (
    GateSettings,
    IntakeSettings,
    ServeSettings,
    Settings,
    StoreSettings,
    WebSettings,
    WorkerSettings,
)

_MARKS = {Status.OK: ("✓", "green"), Status.WARNING: ("!", "yellow"), Status.WRONG: ("✗", "bold red")}
_NETWORK = "See that it runs, and that this machine reaches it"


class Role(StrEnum):
    """Whose settings and surroundings are looked at."""

    SERVE = "serve"
    GATE = "gate"
    INTAKE = "intake"
    WORKER = "worker"
    WEB = "web"


_SETTINGS: dict[Role, type[Settings]] = {
    Role.SERVE: ServeSettings,
    Role.GATE: GateSettings,
    Role.INTAKE: IntakeSettings,
    Role.WORKER: WorkerSettings,
    Role.WEB: WebSettings,
}

OfRole = Annotated[Role, typer.Option("--role", help="Look at what this role needs; serve: all of them.")]
Limit = Annotated[float, typer.Option("--timeout", min=0.1, max=300, help="Seconds that a check may take.")]


def doctor(role: OfRole = Role.SERVE, timeout: Limit = 10, as_json: Json = False) -> None:
    """Look whether all is well, and say what to do where it is not."""
    with refusals(as_json):
        settings = _SETTINGS[role].load()
        _refuse_another_user(settings.home)
    lines = look(_first_checks(role, settings), timeout)
    if isinstance(settings, StoreSettings):
        lines += _look_into_database(role, settings, timeout)
    is_well = all(line.status is Status.OK for line in lines)
    if as_json:
        print_json(
            {
                "isWell": is_well,
                "lines": [
                    {"check": line.check, "status": line.status, "detail": line.detail, "advice": line.advice or None}
                    for line in lines
                ],
            }
        )
    else:
        _print(lines)
    if not is_well:
        raise typer.Exit(1)


def look(wanted: Sequence[Check], timeout: float) -> list[Line]:
    """Make all checks, side by side.

    Args:
        wanted: the checks; their lines come in this order.
        timeout: seconds for all of them together. One that hangs is left behind in a thread that ends with us.
    """
    found: dict[str, Sequence[Line]] = {}

    def make(check: Check) -> None:
        try:
            found[check.name] = check.run()
        except Exception as error:  # noqa: BLE001 - whatever it was, the other lines are wanted
            found[check.name] = [failed(check, error)]

    threads = [threading.Thread(target=make, args=(check,), daemon=True) for check in wanted]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [line for check in wanted for line in found.get(check.name, [_no_answer(check, timeout)])]


def _no_answer(check: Check, timeout: float) -> Line:
    return Line(check=check.name, status=Status.WRONG, detail=f"no answer within {timeout:g} s", advice=check.advice)


def _first_checks(role: Role, settings: Settings) -> list[Check]:
    wanted = [
        _check("version", checks.versions, ""),
        _check("home", lambda: checks.home(settings), "Look at the disk"),
        _check("settings", lambda: checks.names_of_settings(settings), "Look at the disk"),
        _check("secrets", lambda: checks.secret_files(settings), "Look at the disk"),
    ]
    if isinstance(settings, GateSettings):
        wanted += [
            _check("spool", lambda: checks.spool(settings), "Look at the disk"),
            _check("keyring", lambda: checks.keyring(settings), "Look at the disk"),
        ]
    if isinstance(settings, StoreSettings):
        wanted += [
            _check("blobs", lambda: checks.blob_store(settings), _NETWORK),
            _check("provider", lambda: checks.provider(settings), f"{_NETWORK}, or mend POSTERN_TWILIO_URL"),
        ]
        if role is not Role.INTAKE:
            wanted.append(_check("secret key", lambda: checks.secret_key(settings), "Mend POSTERN_SECRET_KEY"))
    if isinstance(settings, WorkerSettings):
        wanted.append(_check("mail", lambda: checks.mail(settings), f"{_NETWORK}, or mend POSTERN_SMTP_URL"))
    return wanted


def _look_into_database(role: Role, settings: StoreSettings, timeout: float) -> list[Line]:
    """First whether it answers, then what shape it has, then the rest: what cannot be known is not asked."""
    from storage.database import Database

    path = Path(settings.database.removeprefix("sqlite:///"))
    if settings.database.startswith("sqlite:") and not path.exists():  # to open it would make it
        return [Line(check="database", detail=f"{path} is not there yet; it is made on first start")]
    database = Database(settings.database)

    def ask(name: str, run: Callable[["Database"], Sequence[Line]]) -> Check:
        return _check(name, lambda: run(database), f"{_NETWORK}, or mend POSTERN_DATABASE_URL")

    def with_key(database: "Database") -> Sequence[Line]:
        return database_checks.sealed_credentials(database, settings.home)

    lines: list[Line] = []
    for stage in (
        [ask("database", database_checks.database_server)],
        [ask("migrations", database_checks.migrations), ask("clock", database_checks.database_clock)],
        [
            ask("backlog", database_checks.backlog),
            ask("dead jobs", database_checks.dead_jobs),
            ask("provider account", database_checks.accounts),
            *([] if role is Role.INTAKE else [ask("credentials", with_key)]),
        ],
    ):
        found = look(stage, timeout)
        lines += found
        if any(line.status is Status.WRONG for line in found):
            break
    return lines


def _check(name: str, run: Callable[[], Sequence[Line]], advice: str) -> Check:
    return Check(name=name, run=run, advice=advice)


def _refuse_another_user(home: Path) -> None:
    """Whoever else wrote into home, root above all, would leave files there that the roles cannot use."""
    owner = home.stat().st_uid if home.exists() else os.geteuid()
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        raise PosternError(f"{home} belongs to {name}. Run it as that user: runuser -u {name} -- postern doctor")


def _print(lines: Sequence[Line]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for line in lines:
        mark, style = _MARKS[line.status]
        said = Text(line.detail, overflow="fold")
        if line.advice:
            said.append(f"\n→ {line.advice}", style="bold")
        table.add_row(Text(mark, style=style), Text(line.check, no_wrap=True), said)
    Console(highlight=False, width=max(console.width, 80)).print(table)
    bad = [line for line in lines if line.status is not Status.OK]
    console.print(f"[yellow]{len(bad)} of {len(lines)} need attention[/]" if bad else "[green]All is well[/]")
