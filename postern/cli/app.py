"""The `postern` command: every noun and every role in one place."""

from typing import Annotated

import typer

from postern import __version__
from postern.cli import (
    batch,
    campaign,
    check,
    credentials,
    database,
    demo,
    doctor,
    host_key,
    key,
    message,
    provider,
    report,
    roles,
    segments,
    supervise,
    upload,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Postern: one sftp put of a CSV becomes a validated, dispatched and reported batch of SMS.",
)

app.command()(demo.demo)
app.command()(supervise.serve)
for role in (roles.gate, roles.intake, roles.worker, roles.web):
    app.command()(role)
app.command()(check.check)
app.command()(segments.segments)
app.command()(doctor.doctor)
campaign.app.command()(credentials.credentials)
app.add_typer(campaign.app, name="campaign")
app.add_typer(key.app, name="key")
app.add_typer(upload.app, name="upload")
app.add_typer(batch.app, name="batch")
app.add_typer(message.app, name="message")
app.add_typer(report.app, name="report")
app.add_typer(provider.app, name="provider")
app.add_typer(host_key.app, name="host-key")
app.add_typer(database.app, name="db")


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Answer what stands before a command."""
    if version:
        typer.echo(f"postern {__version__}")
        raise typer.Exit
