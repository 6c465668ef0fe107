"""`postern db …`."""

import typer

from postern.cli.output import console, refusals
from postern.settings import StoreSettings

app = typer.Typer(no_args_is_help=True, help="The database.")


@app.command()
def migrate() -> None:
    """Bring the database to the shape that this version needs; harmless when it has it."""
    from storage.database import Database
    from storage.migrate import migrate as run

    with refusals():
        settings = StoreSettings.load()
        database = Database(settings.database)
        run(database)
        database.dispose()
    console.print("[green]✓[/] The database is up to date")
