"""The validating process, really: warm, killed for time and memory, replaced, and without credentials."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.waiting import until
from unit.pipeline_fixtures import GOOD, HEADER, ruleset

from pipeline.ruleset import to_json
from pipeline.validator import Validated, Validator
from pipeline.watched import ProcessFailedError, WatchedProcess
from postern.errors import TransientError
from postern.model import Language
from postern.sms.template import Frame

LARGE = HEADER + GOOD * 400_000  # far more than a moment's work


@pytest.fixture(scope="module")
def shared() -> Iterator[Validator]:
    """A warm validator with ordinary limits."""
    validator = Validator(timeout=60, memory=1024)
    validator.warm_up()
    yield validator
    validator.close()


def run(validator: Validator, folder: Path, content: str, name: str = "data") -> Validated:
    data = folder / f"{name}.csv"
    data.write_text(content, encoding="utf-8")
    return validator.validate(data, ruleset(), report=folder / f"{name}-report", messages=folder / f"{name}-messages")


def pid_of(validator: Validator) -> int:
    assert validator._process._child is not None
    return validator._process._child.pid


def wait_for_end(pid: int) -> None:
    """Wait until a child of ours has ended, and leave it to its parent to ask how, if that has not asked yet."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_good_file_is_judged(shared: Validator, tmp_path: Path) -> None:
    """The verdict, the bounds and the messages come back."""
    validated = run(shared, tmp_path, HEADER + "\n" + GOOD + GOOD)
    assert validated.verdict.is_valid
    assert (validated.verdict.total_rows, validated.first_row, validated.last_row) == (2, 3, 4)
    assert (tmp_path / "data-messages").exists()
    assert not (tmp_path / "data-report").exists()


def test_a_bad_file_is_judged(shared: Validator, tmp_path: Path) -> None:
    """Findings come through the pipe as they were; the report is where it should be."""
    validated = run(shared, tmp_path, HEADER + "x,english,陈,’\n")
    verdict = validated.verdict
    assert [(found.row, found.column, found.code) for found in verdict.first_errors] == [
        (2, "recipient", "recipient_invalid"),
        (2, "topic", "parameter_avoidable_character"),
    ]
    assert "U+2019" in verdict.first_errors[1].sentence
    assert (verdict.has_avoidable_character, verdict.has_unicode) == (True, True)
    assert "陈" in (tmp_path / "data-report").read_text(encoding="utf-8-sig")


def test_the_process_stays_warm(shared: Validator, tmp_path: Path) -> None:
    """One process judges file after file."""
    shared.warm_up()
    pid = pid_of(shared)
    for name in ("one", "two"):
        run(shared, tmp_path, HEADER + GOOD, name)
    assert pid_of(shared) == pid


def test_the_process_is_replaced_after_a_hundred_files(tmp_path: Path) -> None:
    """So that whatever a library leaks does not grow for ever."""
    validator = Validator(timeout=60, memory=1024)
    try:
        validator.warm_up()
        pid = pid_of(validator)
        for _ in range(99):
            run(validator, tmp_path, HEADER)
        assert pid_of(validator) == pid
        run(validator, tmp_path, HEADER)
        assert is_gone(pid)
        assert run(validator, tmp_path, HEADER + GOOD).verdict.is_valid
    finally:
        validator.close()


@pytest.mark.parametrize(
    ("content", "fits"),
    [(HEADER + "x,english,a,b\n", True), (HEADER + GOOD, False), ("", False), ("PK\x03\x04", False)],
)
def test_the_answer_says_whether_the_report_can_be_a_workbook(
    shared: Validator, tmp_path: Path, content: str, fits: bool
) -> None:
    """So that a mail offers none that cannot be made; a good file has no report."""
    assert run(shared, tmp_path, content).fits_workbook is fits


def test_a_stopped_process_is_waited_for_no_longer(tmp_path: Path) -> None:
    """Whoever waits is told to come again, and the process ends."""
    process = WatchedProcess("pipeline.child", name="validating", timeout=60, memory=4096)
    process.warm_up()
    assert process._child is not None
    pid, data = process._child.pid, tmp_path / "pipe"
    os.mkfifo(data)  # whose opening waits until somebody writes: for ever

    def ask() -> None:
        request = {"data": str(data), "report": "/dev/null", "messages": "/dev/null", "rules": to_json(ruleset())}
        with pytest.raises(TransientError, match="stopped"):
            process.ask(request)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        process.stop()
        asked.result()
    assert is_gone(pid)


def test_threads_wait_for_each_other(shared: Validator, tmp_path: Path) -> None:
    """Each gets the answer about its own file."""
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda rows: run(shared, tmp_path, HEADER + GOOD * rows, f"rows-{rows}"), range(1, 13))
    assert [validated.verdict.total_rows for validated in found] == list(range(1, 13))


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    """The file fails, the next one is for another process."""
    validator = Validator(timeout=0.01, memory=4096)
    try:
        validator.warm_up()
        pid = pid_of(validator)
        with pytest.raises(ProcessFailedError, match=r"no answer within 0\.01 s"):
            run(validator, tmp_path, LARGE)
        assert is_gone(pid)
        validator.warm_up()
        assert pid_of(validator) != pid
    finally:
        validator.close()


def test_a_process_that_takes_too_much_memory_is_killed(shared: Validator, tmp_path: Path) -> None:
    """Before the machine suffers; the next file is judged by another process."""
    run(shared, tmp_path, HEADER + GOOD)
    pages = int(Path(f"/proc/{pid_of(shared)}/statm").read_text(encoding="ascii").split()[1])
    validator = Validator(timeout=60, memory=(pages * os.sysconf("SC_PAGE_SIZE") >> 20) + 16)
    try:
        validator.warm_up()
        pid = pid_of(validator)
        with pytest.raises(ProcessFailedError, match="MiB of memory"):
            run(validator, tmp_path, LARGE)
        assert is_gone(pid)
        assert run(validator, tmp_path, HEADER + GOOD).verdict.total_rows == 1
    finally:
        validator.close()


def test_a_process_that_does_not_get_ready_answers_nothing_later(tmp_path: Path) -> None:
    """What a process may still say must never be taken for the verdict on the next file."""
    validator = Validator(timeout=60, memory=1)
    try:
        for rows in (1, 2, 3):
            with pytest.raises(ProcessFailedError, match="more than 1 MiB"):
                run(validator, tmp_path, HEADER + GOOD * rows)
            assert validator._process._child is None
        with pytest.raises(ProcessFailedError):
            validator.warm_up()
        assert validator._process._child is None
    finally:
        validator.close()


def test_a_process_that_died_idle_is_replaced(shared: Validator, tmp_path: Path) -> None:
    """No file fails for it."""
    shared.warm_up()
    pid = pid_of(shared)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert run(shared, tmp_path, HEADER + GOOD).verdict.is_valid
    assert pid_of(shared) != pid


@contextmanager
def dying_of(validator: Validator, number: signal.Signals) -> Iterator[None]:
    """Let the process die by a signal when it has its request; until then it is stopped."""
    validator.warm_up()
    pid = pid_of(validator)
    os.kill(pid, signal.SIGSTOP)

    def end() -> None:
        requests, waiting = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK), bytearray(4)
        until(lambda: fcntl.ioctl(requests, termios.FIONREAD, waiting) or any(waiting), "the request")
        os.close(requests)
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)

    killer = threading.Thread(target=end)
    killer.start()
    yield
    killer.join()


def test_a_process_that_dies_at_work_fails_its_file_only(tmp_path: Path) -> None:
    """As where the kernel kills it for memory."""
    validator = Validator(timeout=60, memory=4096)
    try:
        with dying_of(validator, signal.SIGKILL), pytest.raises(ProcessFailedError, match="ended with status -9"):
            run(validator, tmp_path, HEADER + GOOD)
        assert run(validator, tmp_path, HEADER + GOOD).verdict.is_valid
    finally:
        validator.close()


def test_a_disk_that_does_not_give_a_page_is_no_fault_of_the_file(tmp_path: Path) -> None:
    """The file is mapped, so the kernel says so by a signal; it is judged again later."""
    validator = Validator(timeout=60, memory=4096)
    try:
        with dying_of(validator, signal.SIGBUS), pytest.raises(TransientError, match="could not read its file"):
            run(validator, tmp_path, HEADER + GOOD)
        assert run(validator, tmp_path, HEADER + GOOD).verdict.is_valid
    finally:
        validator.close()


def test_a_bug_is_reported_and_the_process_goes_on(shared: Validator, tmp_path: Path) -> None:
    """With its traceback, for the log."""
    shared.warm_up()
    pid = pid_of(shared)
    data = tmp_path / "data.csv"
    data.write_text(HEADER + GOOD, encoding="utf-8")
    no_footer = dataclasses.replace(ruleset(), frame=Frame(header="", footers={Language.MALAY: ""}))
    with pytest.raises(ProcessFailedError, match=r"Traceback[\s\S]*KeyError"):
        shared.validate(data, no_footer, report=tmp_path / "report", messages=tmp_path / "messages")
    assert run(shared, tmp_path, HEADER + GOOD).verdict.is_valid
    assert pid_of(shared) == pid


def test_a_file_that_is_not_there_is_a_fault_of_ours(shared: Validator, tmp_path: Path) -> None:
    """Not a verdict."""
    with pytest.raises(ProcessFailedError, match="FileNotFoundError"):
        shared.validate(tmp_path / "none", ruleset(), report=tmp_path / "report", messages=tmp_path / "messages")


def test_the_process_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment, as the kernel shows it, has nothing of the worker's."""
    for name in ("POSTERN_SECRET_KEY", "POSTERN_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HOME"):
        monkeypatch.setenv(name, "hunter2")
    validator = Validator(timeout=60, memory=1024)
    try:
        validator.warm_up()
        environ = Path(f"/proc/{pid_of(validator)}/environ").read_bytes()
    finally:
        validator.close()
    names = {entry.partition(b"=")[0] for entry in environ.split(b"\0") if entry}
    assert names <= {b"PATH", b"LANG", b"LC_ALL", b"TMPDIR", b"POLARS_MAX_THREADS", b"_RJEM_MALLOC_CONF"}
    assert b"hunter2" not in environ


def test_the_process_has_no_files_of_the_worker(shared: Validator, tmp_path: Path) -> None:
    """A database or key that the worker has open is closed in it."""
    with (tmp_path / "secret").open("w", encoding="utf-8"):
        shared.close()
        shared.warm_up()
        open_files = [entry.readlink() for entry in Path(f"/proc/{pid_of(shared)}/fd").iterdir()]
    assert tmp_path / "secret" not in open_files


def test_a_closed_validator_leaves_no_process() -> None:
    """Closing twice is harmless, and it can start again."""
    validator = Validator(timeout=60, memory=1024)
    validator.warm_up()
    pid = pid_of(validator)
    validator.close()
    validator.close()
    assert is_gone(pid)


def test_what_is_printed_beside_the_answer_is_no_answer(tmp_path: Path) -> None:
    """The child's own protocol: ready, then a line for each request, until its input ends."""
    data = tmp_path / "data.csv"
    data.write_text(HEADER + GOOD, encoding="utf-8")
    request = {"data": str(data), "report": "/dev/null", "messages": str(tmp_path / "m"), "rules": to_json(ruleset())}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.child"],
        input=f"{json.dumps(request)}\n{json.dumps({**request, 'data': '/none'})}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    ready, first, second = (json.loads(line) for line in ended.stdout.splitlines())
    assert ready == {"ready": True}
    assert (first["verdict"]["isValid"], first["firstRow"], first["lastRow"]) == (True, 2, 2)
    assert set(second) == {"bug"}
