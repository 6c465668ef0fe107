"""How puts of real clients end when the client or the network does not let them: only a CLOSE makes an upload.

Killed clients stand in the matrix; here are broken networks, clients that give up in good order, and kills at
any moment.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from clients.cases import FILES, IS_FULL, MIDDLE, Case, Task
from clients.catalogue import CLIENTS, Client
from clients.gate import PATIENCE, Gate
from clients.matrix import Accepted, accepted, ended, finished, order_of, started
from clients.proxy import Mishap, Proxy
from support.spools import upload_folders

KILLS = int(os.environ.get("POSTERN_CLIENT_KILLS", "10"))
PUT = Case(title="put", content="middling")
CANCEL = Case(title="cancel", content="middling", task=Task.CANCEL)
BLOCKS = {"sftp": 261_120, "dbclient": 261_120, "paramiko": 32_768, "jsch": 32_597}  # bytes of a write
NETWORKED = ["sftp", "curl", "rclone", "paramiko"] if IS_FULL else ["sftp", "curl"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate that soon gives up on a client that says nothing; not sooner than a client starts on a busy machine."""
    gate = Gate(tmp_path_factory.mktemp("impatient"), POSTERN_IDLE_TIMEOUT="5")
    gate.prepare(len(NETWORKED))
    with gate.serving():
        yield gate


def put_through(gate: Gate, client: Client, mishap: Mishap, after: int) -> tuple[int | None, tuple[Accepted, ...]]:
    """Put a file through a broken network: the client's exit status, None if it waits, and the uploads."""
    with Proxy(gate, mishap, after).serving() as proxy:
        login = gate.login(port=proxy.port)
        with started(gate, client.order(login, order_of(gate, PUT))) as process:
            assert proxy.reached.wait(PATIENCE), finished(process)
            if mishap is Mishap.SILENT:
                gate.settle()
                return process.poll(), accepted(gate, login, PUT)
            finished(process)
    gate.settle()
    return process.returncode, accepted(gate, login, PUT)


@pytest.mark.parametrize("client", NETWORKED)
@pytest.mark.parametrize("mishap", [Mishap.CUT, Mishap.FLIPPED, Mishap.HALF_CLOSED])
def test_a_broken_connection_leaves_nothing(
    require: Callable[[str], Client], gate: Gate, client: str, mishap: Mishap
) -> None:
    """A reset, a byte that fails its MAC, an end of the client's half: no upload, and the client fails."""
    status, uploads = put_through(gate, require(client), mishap, MIDDLE)
    assert (status == 0, uploads) == (False, ())


@pytest.mark.parametrize("client", NETWORKED)
def test_a_pulled_cable_leaves_nothing(require: Callable[[str], Client], impatient: Gate, client: str) -> None:
    """Nothing comes any more and nobody says so: the gate gives the connection up."""
    _status, uploads = put_through(impatient, require(client), Mishap.SILENT, MIDDLE)
    assert uploads == ()


@pytest.mark.parametrize("client", ["sftp", "paramiko", "jsch"])
def test_a_client_that_gives_up_in_good_order_leaves_the_start_of_its_file(
    require: Callable[[str], Client], gate: Gate, client: str
) -> None:
    """Ctrl-C, a local file that cannot be read on, "cancel": a CLOSE like any other."""
    upload = given_up(gate, require(client))
    assert upload.is_start
    assert not upload.is_whole


@pytest.mark.parametrize("client", BLOCKS)
def test_the_record_of_a_file_that_was_cut_off_shows_it(
    require: Callable[[str], Client], gate: Gate, client: str
) -> None:
    """Every write was one whole block, the last one too: with no line end after the last record, a file to be held."""
    upload = given_up(gate, require(client))
    record = gate.record(upload.upload_id)
    assert record["write_block"] == BLOCKS[client]
    assert upload.size % BLOCKS[client] == 0
    assert record["is_cut_off"] is (FILES[PUT.content][upload.size - 1 : upload.size] != b"\n")


@pytest.mark.parametrize("client", ["sftp", "curl", "paramiko"])
def test_the_record_of_a_whole_file_shows_its_last_write(
    require: Callable[[str], Client], gate: Gate, client: str
) -> None:
    """The last write of a file is a shorter one."""
    login = gate.login()
    with started(gate, require(client).order(login, order_of(gate, PUT))) as process:
        assert finished(process) is not None
    (upload,) = accepted(gate, login, PUT)
    assert upload.is_whole
    record = gate.record(upload.upload_id)
    assert (record["write_block"], record["is_cut_off"]) == (0, False)


def given_up(gate: Gate, client: Client) -> Accepted:
    """The upload that a client leaves which gives up in the middle of its put: by SIGINT, or as its library does."""
    cancels = client in (CLIENTS["paramiko"], CLIENTS["jsch"])
    case = CANCEL if cancels else PUT
    with Proxy(gate, Mishap.SLOW, MIDDLE).serving() as proxy:
        login = gate.login(port=proxy.port)
        with started(gate, client.order(login, order_of(gate, case))) as process:
            if not cancels:
                assert proxy.reached.wait(PATIENCE)
                os.killpg(process.pid, signal.SIGINT)
            finished(process)
    gate.settle()
    (upload,) = accepted(gate, login, case)
    return upload


SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
KILLED = ["sftp", "scp", "curl", "lftp", "psftp", "pscp", "rclone", "paramiko", "asyncssh", "foreign"]


def test_clients_killed_at_any_moment_leave_a_whole_file_or_nothing(
    require: Callable[[str], Client], gate: Gate
) -> None:
    """Random clients, signals and moments. Only a client that closed in order after SIGINT may leave a part.

    Whoever exits with 0 without having been interrupted left the whole file, and nobody leaves it twice.
    """
    dice = random.Random(int(os.environ.get("POSTERN_SEED", "1")))
    usual = {name: duration(gate, require(name)) for name in KILLED}
    seen: Counter[str] = Counter()
    for number in range(KILLS):
        name, sent = dice.choice(KILLED), dice.choice(SIGNALS)
        if number % 2:
            moment = dice.uniform(0, usual[name])
            status, uploads = killed_after(gate, CLIENTS[name], sent, moment)
        else:
            moment = dice.randrange(len(FILES[PUT.content]))
            status, uploads = killed_at(gate, CLIENTS[name], sent, moment)
        what = f"kill {number}: {name}, {sent.name} after {moment} s or bytes, exit status {status}, {uploads}"
        assert len(uploads) <= 1, what
        assert all(upload.is_start for upload in uploads), what
        if sent is not signal.SIGINT:
            assert all(upload.is_whole for upload in uploads), what
            assert status != 0 or uploads, what
        seen[_word(uploads)] += 1
    assert upload_folders(gate.spool.incoming) == []
    print(f"{KILLS} kills: {dict(seen)}")


def killed_after(
    gate: Gate, client: Client, sent: signal.Signals, seconds: float
) -> tuple[int | None, tuple[Accepted, ...]]:
    """A put whose client gets a signal after a time, if it still runs: its exit status and the uploads."""
    login = gate.login()
    with started(gate, client.order(login, order_of(gate, PUT))) as process:
        time.sleep(seconds)
        _end(process, sent)
    gate.settle()
    return process.returncode, accepted(gate, login, PUT)


def killed_at(gate: Gate, client: Client, sent: signal.Signals, after: int) -> tuple[int | None, tuple[Accepted, ...]]:
    """The same, after a number of bytes on the wire."""
    with Proxy(gate, Mishap.SLOW, after).serving() as proxy:
        login = gate.login(port=proxy.port)
        with started(gate, client.order(login, order_of(gate, PUT))) as process:
            assert proxy.reached.wait(PATIENCE), finished(process)
            _end(process, sent)
    gate.settle()
    return process.returncode, accepted(gate, login, PUT)


def _end(process: "subprocess.Popen[bytes]", sent: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, sent)
    ended(process)


def duration(gate: Gate, client: Client) -> float:
    """How long a put that nobody disturbs takes, in seconds."""
    start = time.monotonic()
    login = gate.login()
    with started(gate, client.order(login, order_of(gate, PUT))) as process:
        output = finished(process)
    assert process.returncode == 0, output
    return time.monotonic() - start


def _word(uploads: tuple[Accepted, ...]) -> str:
    if not uploads:
        return "nothing"
    return "whole" if uploads[0].is_whole else "a part"
