"""What `postern doctor` looks at on this machine and where its settings lead, but for the database.

Each check tells what it found and, where that is not well, what to do. It changes nothing but a probe of its own in
the blob store, and knows no time limit; the doctor keeps it.
"""

import asyncio
import os
import platform
import uuid
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from keys.keyring import CHECKED
from postern import __version__
from postern.cli.findings import Line, Status, age, clock, left_in, modified, room
from postern.errors import PosternError
from postern.misspelled import misspelled_settings
from postern.secret import fingerprint, load_secret, source_of_secret
from postern.settings import GateSettings, Settings, StoreSettings, WorkerSettings
from postern.sms.simulation import Simulation, simulation_of
from postern.times import utc_now

if TYPE_CHECKING:
    from dispatch.twilio_check import Remark

_RESERVE = 500_000_000  # bytes that should stay free under a home that has no gate
_SPOOL_PATIENCE = timedelta(minutes=2)
_KEYRING_PATIENCE = timedelta(minutes=2)  # intake looks twice a second, and says so every ten seconds
_PROVIDERS = {
    Simulation.ALL: "the simulator: nothing is really sent",
    Simulation.NUMBERS: "{provider}; messages to the simulator's numbers are simulated",
    Simulation.NONE: "{provider}",
}


def versions() -> list[Line]:
    """Of Postern and of Python."""
    return [Line(check="version", detail=f"Postern {__version__}, Python {platform.python_version()}")]


def home(settings: Settings) -> list[Line]:
    """Whether home can be written, and how much room there is."""
    if not settings.home.exists():
        return [Line(check="home", detail=f"{settings.home} is not there yet; it is made on first start")]
    if not os.access(settings.home, os.W_OK | os.X_OK):
        advice = "Give it to the user that the role runs as"
        return [Line(check="home", status=Status.WRONG, detail=f"{settings.home} cannot be written", advice=advice)]
    reserve = settings.disk_reserve if isinstance(settings, GateSettings) else _RESERVE
    return [room("disk of home", settings.home, reserve)]


def names_of_settings(settings: Settings) -> list[Line]:
    """Whether there are variables that look like settings and are none; nothing where all is well."""
    found = misspelled_settings(settings.home)
    if not found:
        return []
    detail = ". ".join(map(str, found))
    advice = f"Mend the name, or take it out of the environment or {settings.home / 'postern.env'}: nobody reads it"
    return [Line(check="settings", status=Status.WRONG, detail=detail, advice=advice)]


def secret_files(settings: Settings) -> list[Line]:
    """Whether what is secret under home is for its owner only."""
    lines = []
    for name in ("secret.key", "postern.env"):
        path = settings.home / name
        if not path.is_file():
            continue
        mode = path.stat().st_mode & 0o777
        wide = mode & 0o077
        lines.append(
            Line(
                check=name,
                status=Status.WRONG if wide else Status.OK,
                detail=f"mode {mode:04o}",
                advice=f"chmod 600 {path}" if wide else "",
            )
        )
    return lines


def secret_key(settings: StoreSettings) -> list[Line]:
    """Whether there is a key that can be used, and which: all workers and webs need the same. None is made."""
    source = source_of_secret(settings.home)
    if source is None:
        return [Line(check="secret key", detail="not there yet; it is made on first start")]
    secret = load_secret(settings.home)
    return [Line(check="secret key", detail=f"from {source}, fingerprint {fingerprint(secret)}")]


def spool(settings: GateSettings) -> list[Line]:
    """What the gate handed over and intake has not taken, and the room for more."""
    folder = settings.spool_folder
    if not folder.exists():
        return [Line(check="spool", detail=f"{folder} is not there yet; it is made on first start")]
    intake = "See that intake runs on this host and reaches database and blob store; its log says what it waits for"
    aside = f"Look into {folder / 'quarantine'}: what was found, each with the reason beside it; then remove it"
    return [
        room("disk of the spool", folder, settings.disk_reserve),
        left_in("spool", "uploads", folder / "accepted", _SPOOL_PATIENCE, intake),
        left_in("spool events", "events", folder / "events", _SPOOL_PATIENCE, intake),
        left_in("quarantine", "entries", folder / "quarantine", None, aside),
    ]


def keyring(settings: GateSettings) -> list[Line]:
    """Whether the gate knows any keys, and when intake last made sure that they are the right ones."""
    path, checked = settings.gate_folder / "keyring.json", settings.gate_folder / CHECKED
    if path.is_file():
        at = max(modified(each) for each in (path, checked) if each.exists())
        detail = f"written {age(modified(path))} ago, compared with the database {age(at)} ago"
        if utc_now() - at <= _KEYRING_PATIENCE:
            return [Line(check="keyring", detail=detail)]
        detail += ": keys that were enrolled or revoked since are not known here"
        advice = "See that intake runs on this host and reaches the database; its log says what it waits for"
        return [Line(check="keyring", status=Status.WARNING, detail=detail, advice=advice)]
    if not settings.gate_folder.exists():
        return [Line(check="keyring", detail="not there yet; intake writes it when it first runs")]
    advice = "Start intake on this host: it writes the keyring from the database"
    return [Line(check="keyring", status=Status.WARNING, detail="not there yet: nobody can log in", advice=advice)]


def blob_store(settings: StoreSettings) -> list[Line]:
    """Put a probe into the blob store, read it, remove it; and compare clocks."""
    from storage.blobs import blobs_from

    where = settings.blob_url if settings.bucket else str(settings.blob_folder)
    if not settings.bucket and not settings.blob_folder.exists():
        return [Line(check="blobs", detail=f"{where} is not there yet; it is made on first use")]
    blobs, key, content = blobs_from(settings), f"probes/{uuid.uuid4()}", os.urandom(1024)
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        blobs.put(key, Path(file.name))
    try:
        with blobs.open(key) as stored:
            if stored.read() != content:
                raise PosternError("The store handed out other bytes than it was given.")
    finally:
        blobs.delete(key)
    lines = [Line(check="blobs", detail=f"{where}: put, read and removed a probe")]
    before = utc_now()
    told = blobs.now()
    # HTTP's Date has whole seconds: the time is within the second that it names.
    return lines if told is None else [*lines, clock("clock of the blob store", before, told, timedelta(seconds=1))]


def mail(settings: WorkerSettings) -> list[Line]:
    """Greet the mail server and log in; no mail is sent."""
    from notifier.courier import courier_from

    where = asyncio.run(courier_from(settings).check())
    return [Line(check="mail", detail=where)]


def provider(settings: StoreSettings) -> list[Line]:
    """Which provider messages go to; a worker's is asked whether it takes the service's own credentials."""
    simulation = simulation_of(settings.provider, settings.environment)
    detail = _PROVIDERS[simulation].format(provider=settings.provider)
    if simulation is Simulation.ALL or not isinstance(settings, WorkerSettings):
        return [Line(check="provider", detail=detail)]
    remark = asyncio.run(_asked_of_twilio(settings))
    status = Status.WARNING if remark.advice else Status.OK
    status = status if remark.is_usable else Status.WRONG
    return [Line(check="provider", status=status, detail=f"{detail}. {remark.said}", advice=remark.advice)]


async def _asked_of_twilio(settings: WorkerSettings) -> "Remark":
    from dispatch.twilio_accounts import account_of_service
    from dispatch.twilio_check import check_account
    from dispatch.twilio_http import Connections

    connections = Connections(now=utc_now)
    try:
        return await check_account(account_of_service(settings), connections, settings.twilio_url)
    finally:
        await connections.close()
