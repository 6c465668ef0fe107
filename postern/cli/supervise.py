"""`postern serve`: all roles on this machine, each a child in its own process group.

A child that dies comes back, after a pause that grows while it keeps dying. SIGTERM stops them in the order in which
an upload goes through them, so that what the gate still accepts is still taken in: gate, intake, worker, web.
The children hold one end of a pipe; should this process be killed, they see its end and leave by themselves.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from postern.cli.output import console, refusals
from postern.cli.roles import LIFELINE
from postern.errors import PosternError
from postern.logs import get_logger, set_up_logs
from postern.running import announcement
from postern.settings import GateSettings, ServeSettings

ROLES = ("gate", "intake", "worker", "web")  # in the order of stopping
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds before a dead child comes back
_HEALTHY = 30.0  # seconds after which a child's death is its first again
_PATIENCE = 60.0  # seconds for a child to stop, and for all to start
_PLAIN = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")  # what the gate gets besides its own settings

log = get_logger(__name__)


def serve() -> None:
    """Run everything on this machine: gate, intake, worker and web, supervised."""
    with refusals():
        settings = ServeSettings.load()
        set_up_logs("serve", settings.log_level)
        settings.run_folder.mkdir(parents=True, exist_ok=True)
        with (settings.run_folder / "serve.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PosternError(f"Another postern serve runs on {settings.home}.") from None
            asyncio.run(_serve(settings))


@dataclass(slots=True, kw_only=True)
class _Child:
    role: str
    environ: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


async def _serve(settings: ServeSettings) -> None:
    _migrate(settings)
    read_end, write_end = os.pipe()
    settings = _with_ports(settings)
    children = {role: _Child(role=role, environ=_environ(role, settings, read_end)) for role in ROLES}
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    keepers = {role: asyncio.create_task(_keep(child, read_end)) for role, child in children.items()}
    try:
        await _say_ready(settings, children, told)
        await told.wait()
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


def _with_ports(settings: ServeSettings) -> ServeSettings:
    """Settle on free ports where 0 was asked for, so that a child that comes back listens where it did before."""
    changes: dict[str, object] = {}
    if settings.sftp_port == 0:
        changes["sftp_port"] = _free_port(settings.sftp_host)
    if settings.http_port == 0:
        changes["http_port"] = _free_port(settings.http_host)
    if "public_url" not in settings.model_fields_set:
        host = "127.0.0.1" if settings.http_host == "0.0.0.0" else settings.http_host  # noqa: S104 - a comparison
        changes["public_url"] = f"http://{host}:{changes.get('http_port', settings.http_port)}"
    return settings.model_copy(update=changes)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
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


async def _keep(child: _Child, lifeline: int) -> None:
    """Start a role, and start it again whenever it dies, until it is told to stop; then stop it in order."""
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    while not child.stopping.is_set():
        started = loop.time()
        try:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "postern", child.role,
                env=child.environ, stdin=asyncio.subprocess.DEVNULL, pass_fds=[lifeline], start_new_session=True,
            )  # fmt: skip
            status: int | str = await _ended(child.process, child.stopping)
        except OSError as error:
            status = f"not started: {error.strerror}"
        if child.stopping.is_set():
            break
        pause = _FIRST_PAUSE if loop.time() - started > _HEALTHY else pause
        log.error("child.died", child=child.role, status=status, seconds=pause)
        await _first(child.stopping, pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    log.info("child.stopped", child=child.role)


async def _ended(process: asyncio.subprocess.Process, stopping: asyncio.Event) -> int:
    """Wait for a child's end; told to stop, ask it to leave, and after a while see to it."""
    ended, told = asyncio.create_task(process.wait()), asyncio.create_task(stopping.wait())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=_PATIENCE)
    if not ended.done():
        log.critical("child.killed", pid=process.pid)
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
    return await ended


def _is_ready(settings: ServeSettings, child: _Child) -> bool:
    """Whether it is this very child that says so, and not one of another time."""
    said = announcement(settings.run_folder, child.role)
    return said is not None and child.process is not None and said["pid"] == child.process.pid


async def _say_ready(settings: ServeSettings, children: Mapping[str, _Child], told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while not all(_is_ready(settings, child) for child in children.values()):
        if loop.time() > deadline:
            raise PosternError("Not all roles came up; the log lines above say why.")
        if await _first(told, 0.05):
            return
    console.print(f"Postern is ready, home {settings.home}", markup=False)
    console.print(f"  upload   sftp -P {settings.sftp_port} -i KEY CAMPAIGN_ID@{_reachable(settings.sftp_host)}")
    console.print(f"  reports  {settings.public_url}")
    sys.stdout.flush()


def _reachable(host: str) -> str:
    return "localhost" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - a comparison


async def _first(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within so many seconds."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
