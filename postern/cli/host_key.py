"""`postern host-key …`."""

import typer

from postern.cli.output import Json, console, print_table, refusals, show
from postern.settings import GateSettings

_STANDARD_PORT = 22

app = typer.Typer(no_args_is_help=True, help="Host keys: how clients know this gate.")


@app.command("show")
def show_(as_json: Json = False) -> None:
    """Show the gate's host keys; they are made if there are none yet."""
    from sftpd.hostkeys import describe_host_keys

    with refusals(as_json):
        settings = GateSettings.load()
        found = describe_host_keys(settings.gate_folder / "host_keys")
    documents = [{"type": key.type, "fingerprint": key.fingerprint, "publicKey": key.public_line} for key in found]
    show(documents, as_json=as_json, otherwise=lambda: _for_people(documents, settings.sftp_port))


def _for_people(documents: list[dict[str, str]], port: int) -> None:
    print_table(
        ("type", "fingerprint"), [(key["type"], key["fingerprint"]) for key in documents], empty="There are none."
    )
    console.print("\nFor known_hosts, with the name that clients use for this host:")
    for key in documents:
        host = "HOST" if port == _STANDARD_PORT else f"[HOST]:{port}"
        console.print(f"{host} {key['publicKey']}", markup=False)
