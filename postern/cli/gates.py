"""A gate of several processes. This one is the first of them; it also holds the lock, and starts the others.

Each has a number. One of the others that dies comes back under its number and clears away what it left itself; what
its siblings are receiving lies in other folders. They inherit the lock and the listening socket. Should this process
be killed, they see the end of a pipe and drain; until the last of them is gone no other gate starts here and sweeps.
No process is there only to watch: it would take as much memory as one that serves.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence

from postern.cli.children import PATIENCE, Child, first, keep
from postern.cli.roles import LIFELINE
from postern.errors import PosternError
from postern.logs import get_logger
from postern.running import announced, announcement
from postern.settings import GateSettings
from sftpd.members import member_name
from sftpd.server import prepare_home, serve_member, sole_gate
from sftpd.sockets import address_of, close_all, descriptors, handed_down, open_listeners

MEMBER = "POSTERN_GATE_MEMBER"  # the number of one that was started by the first

log = get_logger(__name__)


async def run_members(settings: GateSettings, stop: asyncio.Event) -> None:
    """Run a gate's processes, this one among them, until `stop` is set, then let all of them drain.

    Raises:
        PosternError: another gate runs here, the port is taken, or a process does not come up.
    """
    with sole_gate(settings.gate_folder) as lock, _lifeline() as lifeline:
        await asyncio.to_thread(prepare_home, settings)
        listeners = open_listeners(settings)
        host, port = address_of(listeners)
        environ = os.environ | handed_down(listeners) | {LIFELINE: str(lifeline)}
        children = [
            Child(
                role="gate",
                environ=environ | {MEMBER: str(number)},
                descriptors=[lifeline, lock, *descriptors(listeners)],
                leads_group=False,
            )
            for number in range(2, settings.gate_processes + 1)
        ]
        keepers = [asyncio.create_task(keep(child)) for child in children]
        serving = asyncio.create_task(serve_member(settings, 1, listeners, stop))
        serving.add_done_callback(lambda _serving: stop.set())  # also where it cannot serve
        try:
            await _ready(settings, children, stop)
            if not stop.is_set():
                with announced(settings.run_folder, "gate", host=host, port=port):
                    log.info("gate.shared", host=host, port=port, processes=settings.gate_processes)
                    await stop.wait()
        finally:
            stop.set()
            close_all(listeners)  # else clients would still be let in and wait for nobody
            for child in children:
                child.stopping.set()
            await asyncio.gather(*keepers)
            await serving


async def _ready(settings: GateSettings, children: Sequence[Child], stop: asyncio.Event) -> None:
    """Wait until all processes listen, or `stop` is set."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not all(_listens(settings, number, pid) for number, pid in enumerate([os.getpid(), *map(_pid, children)], 1)):
        if loop.time() > deadline:
            raise PosternError("Not all processes of the gate came up; the log lines above say why.")
        if await first(stop, 0.05):
            return


def _pid(child: Child) -> int | None:
    return None if child.process is None else child.process.pid


def _listens(settings: GateSettings, number: int, pid: int | None) -> bool:
    said = announcement(settings.run_folder, member_name(number))
    return said is not None and said["pid"] == pid


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """The end of a pipe for the children; its own end goes with this process."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(write_end)
        os.close(read_end)
