"""`postern host-key …`."""

import typer

from postern.cli.output import Json, print_table, refusals, show
from postern.settings import GateSettings

app = typer.Typer(no_args_is_help=True, help="Host keys: how clients know this gate.")


@app.command("show")
def show_(as_json: Json = False) -> None:
    """Show the gate's host keys; they are made if there are none yet."""
    from sftpd.hostkeys import describe_host_keys

    with refusals(as_json):
        settings = GateSettings.load()
        found = describe_host_keys(settings.gate_folder / "host_keys")
    documents = [{"type": key.type, "fingerprint": key.fingerprint, "publicKey": key.public_line} for key in found]
    rows = [(key["type"], key["fingerprint"], key["publicKey"]) for key in documents]
    show(
        documents,
        as_json=as_json,
        otherwise=lambda: print_table(("type", "fingerprint", "public key"), rows, empty="There are none."),
    )
