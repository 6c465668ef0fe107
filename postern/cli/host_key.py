"""`postern host-key …`."""

from typing import TYPE_CHECKING, Annotated

import typer

from postern.cli.output import Json, console, print_table, refusals, show
from postern.settings import GateSettings

if TYPE_CHECKING:
    from sftpd.hostkeys import HostKey

_STANDARD_PORT = 22

app = typer.Typer(no_args_is_help=True, help="Host keys: how clients know this gate.")


@app.command("show")
def show_(as_json: Json = False) -> None:
    """Show the gate's host keys; they are made if there are none yet."""
    from sftpd.hostkeys import describe_host_keys

    with refusals(as_json):
        settings = GateSettings.load()
        found = describe_host_keys(settings.host_key_folder)
    show([_document(key) for key in found], as_json=as_json, otherwise=lambda: _for_people(found, settings.sftp_port))


@app.command()
def rotate(
    finish: Annotated[bool, typer.Option("--finish", help="Use the next keys from now on.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Drop the next keys.")] = False,
    as_json: Json = False,
) -> None:
    """Replace the host keys: first announce the next ones beside those in use, later use them.

    A gate that runs follows within a second. OpenSSH clients note the next keys at their next login
    (UpdateHostKeys); tell the owners of other clients before you finish.
    """
    from sftpd import hostkeys

    if finish and cancel:
        raise typer.BadParameter("choose one of --finish and --cancel")
    with refusals(as_json):
        settings = GateSettings.load()
        folder = settings.host_key_folder
        if finish:
            hostkeys.finish_rotation(folder)
        elif cancel:
            hostkeys.cancel_rotation(folder)
        else:
            hostkeys.begin_rotation(folder)
        found = hostkeys.describe_host_keys(folder)
    show([_document(key) for key in found], as_json=as_json, otherwise=lambda: _for_people(found, settings.sftp_port))


def _document(key: "HostKey") -> dict[str, str]:
    return {
        "type": key.type,
        "state": key.state,
        "fingerprint": key.fingerprint,
        "publicKey": key.public_line,
        "sshfp": key.sshfp,
    }


def _for_people(keys: list["HostKey"], port: int) -> None:
    print_table(
        ("type", "state", "fingerprint"),
        [(key.type, key.state, key.fingerprint) for key in keys],
        empty="There are none.",
    )
    console.print("\nFor known_hosts, with the name that clients use for this host:")
    for key in keys:
        host = "HOST" if port == _STANDARD_PORT else f"[HOST]:{port}"
        console.print(f"{host} {key.public_line}", markup=False, soft_wrap=True)
    console.print("\nFor the DNS (RFC 4255), where the zone is signed:")
    for key in keys:
        console.print(f"HOST. IN SSHFP {key.sshfp}", markup=False, soft_wrap=True)
