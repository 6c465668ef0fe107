"""Runs one client through one case against the gate, and says what came of it."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from clients.cases import CASES, FILES, MIDDLE, PARTIAL, Case, Ending, Task
from clients.catalogue import PACKAGES, Client
from clients.gate import PATIENCE, Gate, Login
from clients.orders import CLASSES, JSCH, PROGRAMS, Order, Run
from clients.proxy import Mishap, Proxy

GRACE = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An upload, held against the file that was put."""

    name: str
    size: int
    is_whole: bool
    is_start: bool  # whether it is the file's first bytes
    upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was seen of a client in a case."""

    statuses: tuple[int, ...]  # exit statuses; negative for a signal
    output: str  # standard output and error of the last run
    accepted: tuple[Accepted, ...]
    refusals: tuple[str, ...]  # what the owner is told


def run_case(gate: Gate, client: Client, case: Case) -> Result:
    """Let a client do what the case wants, for a campaign that nobody used before."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(gate, Mishap.SLOW, MIDDLE).serving()) if case.signal else None
        login = gate.login(port=proxy.port if proxy else 0)
        earlier = _put_before(gate, client, login) if case.task is Task.RESUME else 0
        statuses, output = [], ""
        for _ in range(case.runs):
            with started(gate, client.order(login, order_of(gate, case))) as process:
                if proxy is not None and case.signal is not None:
                    assert proxy.reached.wait(PATIENCE), "the client did not come to the middle of its put"
                    os.killpg(process.pid, case.signal)
                output = ended(process) if case.signal else finished(process)
            statuses.append(process.returncode)
    gate.settle()
    return Result(
        statuses=tuple(statuses),
        output=_plain(output, login),
        accepted=accepted(gate, login, case)[earlier:],
        refusals=tuple(gate.refusals(login.user)),
    )


def compile_programs(folder: Path) -> None:
    """Make what is no script ready to run."""
    if which("javac") and JSCH.exists():
        source = PROGRAMS / "Put.java"
        subprocess.run(["javac", "-cp", JSCH, "-d", folder / CLASSES, source], check=True, capture_output=True)


def accepted(gate: Gate, login: Login, case: Case) -> tuple[Accepted, ...]:
    """The uploads of a campaign, held against the case's file."""
    content = FILES[case.content]
    return tuple(
        Accepted(
            name=sidecar.file_name,
            size=len(data),
            is_whole=data == content,
            is_start=content.startswith(data),
            upload_id=sidecar.upload_id,
        )
        for sidecar, data in gate.accepted(login.user)
    )


def wrong(client: Client, name: str, result: Result) -> list[str]:
    """What of a result is not as it must be."""
    case, ending = CASES[name], ending_of(client, name)
    found = [] if _is_right(ending, case, result) else [f"exit status {result.statuses}, accepted {result.accepted}"]
    if ending is Ending.REFUSED and (case.sentence in result.output) == (name in client.silent_on):
        found.append(f"the reason is {'' if name in client.silent_on else 'not '}printed")
    if case.is_told != bool(result.refusals):
        found.append(f"the owner is told {result.refusals}")
    return found


def ending_of(client: Client, name: str) -> Ending:
    """What must come of a client's case."""
    return client.endings.get(name, CASES[name].ending)


def _is_right(ending: Ending, case: Case, result: Result) -> bool:
    names = [each.name for each in result.accepted]
    match ending:
        case Ending.ACCEPTED:
            whole = all(each.is_whole for each in result.accepted)
            return whole and names == [case.name] * case.runs and not any(result.statuses)
        case Ending.PART:
            return names == [case.name] and result.accepted[0].is_start and not result.accepted[0].is_whole
        case Ending.EITHER:
            return len(names) <= 1 and all(each.is_start for each in result.accepted)
        case _:
            return not names and all(result.statuses)


def order_of(gate: Gate, case: Case) -> Order:
    """What a client is to do in a case."""
    return Order(
        task=case.task,
        local=str(gate.folder / case.content / case.name),
        name=case.name,
        folder=case.folder,
        partial=PARTIAL if case.task is Task.RENAME else "",
    )


@contextmanager
def started(gate: Gate, run: Run) -> Iterator["subprocess.Popen[bytes]"]:
    """A client in its own process group, on which nothing is left at the end of the block."""
    with tempfile.TemporaryFile() as lines:
        lines.write("".join(f"{line}\n" for line in run.lines).encode())
        lines.seek(0)
        process = subprocess.Popen(
            run.argv,
            stdin=lines,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ_of(gate.folder),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def finished(process: "subprocess.Popen[bytes]") -> str:
    """What a client printed until its end."""
    output, _ = process.communicate(timeout=PATIENCE)
    return output.decode("utf-8", "replace")


def ended(process: "subprocess.Popen[bytes]") -> str:
    """What a client printed that was told to end; one that does not is killed after a while."""
    try:
        output, _ = process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return output.decode("utf-8", "replace")


def _put_before(gate: Gate, client: Client, login: Login) -> int:
    """Put the file that a later put could go on with; how many uploads that made."""
    with started(gate, client.order(login, order_of(gate, CASES["put"]))) as process:
        output = finished(process)
    assert process.returncode == 0, output
    return len(gate.accepted(login.user))


def environ_of(home: Path) -> dict[str, str]:
    """A batch job's environment: no agent, no settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "JAVA_HOME"}}
    return kept | {"HOME": str(home), "NODE_PATH": str(PACKAGES / "node_modules")}


def _plain(output: str, login: Login) -> str:
    """What a client printed, with the names that the documentation gives to what is a scratch value here."""
    for found, shown in (
        (login.user, "CAMPAIGN_ID"),
        *((f"{login.folder}/{name}/", "") for name in FILES),
        (f"{login.folder}/", ""),
        (f"{PROGRAMS}/", ""),
        (f"[{login.host}]:{login.port}", "HOST"),
        (f"{login.host}:{login.port}", "HOST"),
        (login.host, "HOST"),
    ):
        output = output.replace(found, shown)
    return "\n".join(line.rstrip() for line in output.replace("\r", "\n").splitlines() if line.strip())
