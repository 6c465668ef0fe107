"""The clerk: calls of the ledger in a process of their own, which may die, and does not outlive its worker."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.calls import die, echo, is_away, meet_a_bug, names_of_variables, not_understood, number_of, process
from support.waiting import until, until_async

import storage.clerk
import storage.engine
from postern.errors import PosternError, ProcessEndedError, TransientError
from storage.clerk import Clerk, ClerkFailedError
from storage.engine import again_and_again

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
    slow = asyncio.create_task(clerk.call(number_of, 1, seconds=2))
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
    assert {type(one) for one in ended} == {ProcessEndedError}
    assert await asyncio.gather(*(clerk.call(number_of, number) for number in range(3))) == [0, 1, 2]
    assert clerk.pid not in {None, before}


async def test_whoever_waits_no_more_is_left_alone(clerk: Clerk) -> None:
    """A call that was cancelled takes none of the others along when its answer comes."""
    call = asyncio.create_task(clerk.call(number_of, 1, seconds=0.3))
    await asyncio.sleep(0.1)
    call.cancel()
    assert await clerk.call(number_of, 2, seconds=0.5) == 2


async def test_calls_that_come_together_start_one(database_url: str) -> None:
    """One process for all, also where the one that was there has just died."""
    clerk = Clerk(database_url)
    assert len(set(await asyncio.gather(*(clerk.call(process) for _ in range(20))))) == 1
    before = clerk.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until_async(lambda: clerk.pid is None, "the end to be noticed")
    (after,) = set(await asyncio.gather(*(clerk.call(process) for _ in range(20))))
    assert after != before
    await clerk.__aexit__()
    assert not is_running(after)


async def test_a_start_that_is_cancelled_leaves_nobody_behind(database_url: str) -> None:
    """The next call starts another one."""
    clerk = Clerk(database_url)
    call = asyncio.create_task(clerk.call(number_of, 1))
    await until_async(children, "a process")
    (first,) = children()
    call.cancel()
    await until_async(lambda: not is_running(first), "the process to end")
    assert await clerk.call(number_of, 2) == 2
    await clerk.__aexit__()
    assert children() == []
    gc.collect()  # nothing of either is left open


async def test_an_answer_that_is_not_understood(clerk: Clerk) -> None:
    """Nobody waits for ever: the process is replaced, and whoever called hears of it."""
    other = asyncio.create_task(clerk.call(number_of, 1, seconds=30))
    with pytest.raises(ProcessEndedError):
        await asyncio.wait_for(clerk.call(not_understood), 10)
    with pytest.raises(ProcessEndedError):
        await asyncio.wait_for(other, 10)
    assert await clerk.call(number_of, 2) == 2


async def test_a_question_that_is_not_understood(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug, which hurts nobody else."""
    ours = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", ours)
    exec("def nowhere_else(database): return 1", ours.__dict__)
    with pytest.raises(ClerkFailedError, match="ModuleNotFoundError"):
        await asyncio.wait_for(clerk.call(ours.nowhere_else), 10)
    assert await clerk.call(number_of, 2) == 2


async def test_one_that_starts_while_it_is_to_leave(database_url: str) -> None:
    """Nobody would end it; whoever called hears of it."""
    clerk = Clerk(database_url)
    call = asyncio.create_task(clerk.call(number_of, 1))
    await until_async(children, "a process")
    (first,) = children()
    os.kill(first, signal.SIGSTOP)  # it has not said yet that it is there
    await clerk.__aexit__()
    os.kill(first, signal.SIGCONT)
    with pytest.raises(TransientError, match="has left"):
        await asyncio.wait_for(call, 30)
    assert not is_running(first)
    gc.collect()  # nothing of it is left open


async def test_leaving_takes_no_for_ever(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a process that does not answer; and nobody starts another one afterwards."""
    monkeypatch.setattr(storage.clerk, "_PATIENCE", 0.3)
    async with Clerk(database_url) as clerk:
        assert clerk.pid is not None
        os.kill(clerk.pid, signal.SIGSTOP)
        call = asyncio.create_task(clerk.call(number_of, 1))
        await asyncio.sleep(0.1)
    with pytest.raises(ProcessEndedError):
        await call
    with pytest.raises(TransientError, match="has left"):
        await clerk.call(number_of, 1)
    assert children() == []


async def test_it_is_told_no_settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them secrets."""
    monkeypatch.setenv("POSTERN_SECRET_KEY", "secret")
    async with Clerk(database_url) as clerk:
        assert not [name for name in await clerk.call(names_of_variables) if name.startswith("POSTERN_")]


async def test_what_ends_its_process_is_given_up(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many as a job may take along; others go on."""
    monkeypatch.setattr(storage.engine, "_LONGEST_PAUSE", 0.01)
    with pytest.raises(PosternError, match="ends the processes"):
        await again_and_again(lambda: clerk.call(die))
    assert await again_and_again(lambda: clerk.call(number_of, 3)) == 3


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
    with pytest.raises(TransientError, match=r"status (1|-9) when it was started"):
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


def children() -> list[int]:
    """The clerks of this process that run."""
    found = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [pid for pid in found if is_running(pid) and b"clerk_process" in command_of(pid)]


def command_of(pid: int) -> bytes:
    """Of a process that may be gone by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended (proc(5), stat)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
