"""`postern serve`: all roles on this machine, each a child in its own process group.

A child that dies comes back, after a pause that grows while it keeps dying. SIGTERM stops them in the order in which
an upload goes through them, so that what the gate still accepts is still taken in: gate, intake, worker, web.
The children hold one end of a pipe; should this process be killed, they see its end and leave by themselves.
"""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from postern.cli.addresses import in_url, listener_at
from postern.cli.children import PATIENCE, Child, first, keep
from postern.cli.output import console, refusals
from postern.cli.roles import LIFELINE, warn_of_misspelled
from postern.errors import PosternError
from postern.logs import set_up_logs
from postern.running import announcement
from postern.settings import GateSettings, ServeSettings
from sftpd.sockets import address_of, close_all, descriptors, handed_down, passed_by_systemd

ROLES = ("gate", "intake", "worker", "web")  # in the order of stopping
_PLAIN = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")  # what the gate gets besides its own settings


def serve() -> None:
    """Run everything on this machine: gate, intake, worker and web, supervised."""
    with refusals():
        settings = ServeSettings.load()
        set_up_logs("serve", settings.log_level)
        warn_of_misspelled(settings.home)
        settings.run_folder.mkdir(parents=True, exist_ok=True)
        with (settings.run_folder / "serve.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PosternError(f"Another postern serve runs on {settings.home}.") from None
            asyncio.run(_serve(settings))


async def _serve(settings: ServeSettings) -> None:
    _migrate(settings)
    read_end, write_end = os.pipe()
    listeners = passed_by_systemd()  # the gate's
    settings = _with_ports(settings, listeners)
    children = {
        role: Child(role=role, environ=_environ(role, settings, read_end), descriptors=[read_end]) for role in ROLES
    }
    if listeners:
        gate = children["gate"]
        gate.environ = {**gate.environ, **handed_down(listeners)}
        gate.descriptors = [read_end, *descriptors(listeners)]
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    keepers = {role: asyncio.create_task(keep(child)) for role, child in children.items()}
    try:
        await _say_ready(settings, children, told)
        await told.wait()
        close_all(listeners)
        for role in ROLES:
            children[role].stopping.set()
            await keepers[role]
    finally:
        os.close(write_end)
        os.close(read_end)


def _migrate(settings: ServeSettings) -> None:
    from storage.database import Database
    from storage.migrate import ensure_migrated

    database = Database(settings.database)
    ensure_migrated(database)
    database.dispose()


def _with_ports(settings: ServeSettings, listeners: Sequence[socket.socket]) -> ServeSettings:
    """Settle on free ports where 0 was asked for, so that a child that comes back listens where it did before."""
    changes: dict[str, object] = {}
    if listeners:
        changes["sftp_host"], changes["sftp_port"] = address_of(listeners)
    elif settings.sftp_port == 0:
        changes["sftp_port"] = _free_port(settings.sftp_host)
    if settings.http_port == 0:
        changes["http_port"] = _free_port(settings.http_host)
    if "public_url" not in settings.model_fields_set:
        changes["public_url"] = f"http://{in_url(settings.http_host)}:{changes.get('http_port', settings.http_port)}"
    return settings.model_copy(update=changes)


def _free_port(host: str) -> int:
    with listener_at(host, 0) as listener:
        port: int = listener.getsockname()[1]
        return port


def _environ(role: str, settings: ServeSettings, lifeline: int) -> dict[str, str]:
    environ = dict(os.environ)
    if role == "gate":
        allowed = {*_PLAIN, *GateSettings.variables()}
        environ = {name: value for name, value in environ.items() if name in allowed}
    else:
        environ["POSTERN_PUBLIC_URL"] = settings.public_url
    return environ | {
        "POSTERN_HOME": str(settings.home),
        "POSTERN_SFTP_PORT": str(settings.sftp_port),
        "POSTERN_HTTP_PORT": str(settings.http_port),
        LIFELINE: str(lifeline),
    }


def _is_ready(settings: ServeSettings, child: Child) -> bool:
    """Whether it is this very child that says so, and not one of another time."""
    said = announcement(settings.run_folder, child.role)
    return said is not None and child.process is not None and said["pid"] == child.process.pid


async def _say_ready(settings: ServeSettings, children: Mapping[str, Child], told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not all(_is_ready(settings, child) for child in children.values()):
        if loop.time() > deadline:
            raise PosternError("Not all roles came up; the log lines above say why.")
        if await first(told, 0.05):
            return
    console.print(f"Postern is ready, home {settings.home}", markup=False)
    console.print(f"  upload   sftp -P {settings.sftp_port} -i KEY CAMPAIGN_ID@{_dialled(settings.sftp_host)}")
    console.print(f"  reports  {settings.public_url}")
    sys.stdout.flush()


def _dialled(host: str) -> str:
    return "localhost" if host in {"0.0.0.0", "::"} else in_url(host)  # noqa: S104 - a comparison
