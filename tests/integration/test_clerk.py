"""The clerk: calls of the ledger in a process of their own, which may die, and does not outlive its worker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.calls import echo, is_away, meet_a_bug, number_of, process
from support.waiting import until

from postern.errors import TransientError
from storage.clerk import Clerk, ClerkFailedError

pytest_plugins = ["support.databases"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`support.calls` is found by other processes, too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
async def clerk(database_url: str) -> AsyncIterator[Clerk]:
    """One that runs."""
    async with Clerk(database_url) as clerk:
        yield clerk


async def test_calls_run_elsewhere_side_by_side(clerk: Clerk) -> None:
    """Each gets its own answer, whichever comes first; what a library prints is none."""
    slow = asyncio.create_task(clerk.call(number_of, 1, seconds=0.5))
    quick = [clerk.call(number_of, number) for number in range(2, 40)]
    assert await asyncio.gather(*quick) == list(range(2, 40))
    assert not slow.done()
    assert await slow == 1
    large = "x" * 5_000_000
    assert await clerk.call(echo, large) == large
    assert await clerk.call(process) == clerk.pid != os.getpid()


async def test_what_a_call_raises(clerk: Clerk) -> None:
    """Trouble is trouble here, too; a bug says where, and no values."""
    with pytest.raises(TransientError, match="it is away"):
        await clerk.call(is_away)
    with pytest.raises(ClerkFailedError, match=r"(?s)in meet_a_bug.*KeyError$") as raised:
        await clerk.call(meet_a_bug, "6591234567")
    assert "6591234567" not in str(raised.value)
    assert await clerk.call(number_of, 7) == 7


async def test_one_that_dies_is_replaced(clerk: Clerk) -> None:
    """Whatever it was at may have been done or not; the next call finds another one."""
    before = clerk.pid
    assert before is not None
    calls = [asyncio.create_task(clerk.call(number_of, number, seconds=30)) for number in range(3)]
    await clerk.call(number_of, 1)
    os.kill(before, signal.SIGKILL)
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert {type(one) for one in ended} == {TransientError}
    assert "ended with status -9" in str(ended[0])
    assert await asyncio.gather(*(clerk.call(number_of, number) for number in range(3))) == [0, 1, 2]
    assert clerk.pid not in {None, before}


async def test_whoever_waits_no_more_is_left_alone(clerk: Clerk) -> None:
    """A call that was cancelled takes none of the others along when its answer comes."""
    call = asyncio.create_task(clerk.call(number_of, 1, seconds=0.3))
    await asyncio.sleep(0.1)
    call.cancel()
    assert await clerk.call(number_of, 2, seconds=0.5) == 2


async def test_signals_of_its_worker_are_not_for_it(database_url: str) -> None:
    """A stop reaches the whole group of processes; calls under way are answered first, then it leaves."""
    async with Clerk(database_url) as clerk:
        call = asyncio.create_task(clerk.call(number_of, 5, seconds=0.5))
        pid = clerk.pid
        assert pid is not None
        await asyncio.sleep(0.1)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
    assert await call == 5
    assert not is_running(pid)
    assert clerk.pid is None


async def test_one_that_cannot_start_is_told(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with its status."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TransientError, match="status 1 when it was started"):
        async with Clerk(database_url):
            pass
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(TransientError, match="No such file"):
        async with Clerk(database_url):
            pass


WORKER = """
import asyncio, sys
from storage.clerk import Clerk

async def main():
    async with Clerk(sys.argv[1]) as clerk:
        print(clerk.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_it_does_not_outlive_its_worker(sqlite_url: str, tmp_path: Path) -> None:
    """Also one that was killed."""
    command = [sys.executable, "-c", WORKER, sqlite_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert is_running(pid)
        worker.kill()
    until(lambda: not is_running(pid), "the clerk to leave", 10)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended (proc(5), stat)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
