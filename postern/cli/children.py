"""Child processes that run roles: started, started again when they die, stopped in order.

A child that dies comes back, after a pause that grows while it keeps dying.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from postern.logs import get_logger

PATIENCE = 60.0  # seconds for a child to stop, and for all to start

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds before a dead child comes back
_HEALTHY = 30.0  # seconds after which a child's death is its first again

log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Child:
    """A role in a process of its own."""

    role: str
    environ: Mapping[str, str]
    descriptors: Sequence[int]  # that it inherits
    leads_group: bool = True  # of processes; else it is in ours, and dies where that is killed
    process: asyncio.subprocess.Process | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


async def keep(child: Child) -> None:
    """Start a role, and start it again whenever it dies, until it is told to stop; then stop it in order."""
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE
    while not child.stopping.is_set():
        started = loop.time()
        try:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "postern", child.role,
                env=child.environ, stdin=asyncio.subprocess.DEVNULL,
                pass_fds=child.descriptors, start_new_session=child.leads_group,
            )  # fmt: skip
            status: int | str = await _ended(child, child.process)
        except OSError as error:
            status = f"not started: {error.strerror}"
        if child.stopping.is_set():
            break
        pause = _FIRST_PAUSE if loop.time() - started > _HEALTHY else pause
        log.error("child.died", child=child.role, status=status, seconds=pause)
        await first(child.stopping, pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    log.info("child.stopped", child=child.role)


async def _ended(child: Child, process: asyncio.subprocess.Process) -> int:
    """Wait for a child's end; told to stop, ask it to leave, and after a while see to it."""
    ended, told = asyncio.create_task(process.wait()), asyncio.create_task(child.stopping.wait())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=PATIENCE)
    if not ended.done():
        log.critical("child.killed", pid=process.pid)
        if child.leads_group:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        else:
            process.kill()
    return await ended


async def first(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within so many seconds."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
