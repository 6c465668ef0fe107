"""`postern db …`."""

from typing import Annotated

import typer

from postern.cli.output import Json, console, errors, print_json, refusals
from postern.settings import StoreSettings

app = typer.Typer(no_args_is_help=True, help="The database.")

Check = Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 where there is something to migrate.")]


@app.callback()
def main() -> None:
    """Keep `migrate` a command of its own, though it is the only one."""


@app.command()
def migrate(check: Check = False, as_json: Json = False) -> None:
    """Bring the database to the shape that this version needs; harmless when it has it."""
    from storage.database import Database
    from storage.migrate import HEAD, State, revision_of, state_of
    from storage.migrate import migrate as run

    with refusals(as_json):
        settings = StoreSettings.load()
        database = Database(settings.database)
        before = revision_of(database) if check else run(database, waits=_say_waiting)
        database.dispose()
    state = state_of(before)
    missing = state in {State.EMPTY, State.OLDER}
    if as_json:
        after = before if check or not missing else HEAD
        print_json({"before": before, "after": after, "program": HEAD, "state": state_of(after).value})
    elif state is State.NEWER:
        console.print(
            f"[yellow]![/] The database has revision {before}, newer than {HEAD} of this version; left as it is"
        )
    elif not missing:
        console.print(f"[green]✓[/] The database is up to date, revision {before}")
    elif check:
        console.print(f"[yellow]![/] The database {_had(before)}; this version needs {HEAD}. Run: postern db migrate")
    else:
        console.print(f"[green]✓[/] The database {_had(before)} and now has {HEAD}")
    if check and missing:
        raise typer.Exit(1)


def _had(revision: str | None) -> str:
    return f"had revision {revision}" if revision else "was empty"


def _say_waiting() -> None:
    errors.print("Somebody else migrates this database right now; waiting for them")
