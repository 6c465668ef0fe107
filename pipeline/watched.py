"""A process of its own for dangerous or heavy work: watched for memory and time, replaced when used up or killed.

Spawned, never forked (polars has threads), with an environment that holds no credentials. It reads one request a
line and answers one line (`pipeline.child.serve`). What kills it fails alone.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from postern.errors import PosternError, TransientError

_REQUESTS = 100  # after so many a fresh process takes over
_LOOK = 0.1  # seconds between two looks at memory and time
_START_TIMEOUT = 60.0  # seconds
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR")  # what a process sees of ours
# Its allocator keeps freed memory by arena, by default four for each core; with one a fifth less is resident. And
# where threads of ours work side by side, a pool of threads under each only costs time.
_POLARS = {"_RJEM_MALLOC_CONF": "narenas:1", "POLARS_MAX_THREADS": "1"}


class ProcessFailedError(PosternError):
    """The process did not answer, or met a bug; a fault of ours, whatever the file is. Says what happened."""


def spawn(module: str) -> subprocess.Popen[str]:
    """Start a module as a process that reads requests on standard input."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _POLARS,
    )


class WatchedProcess:
    """Does one request at a time; safe to call from several threads, which then wait."""

    def __init__(self, module: str, *, name: str, timeout: float, memory: int) -> None:
        """Take what runs in it, and its limits.

        Args:
            module: run with `python -m`.
            name: what people call it, such as `validating`.
            timeout: seconds for one request.
            memory: MiB of resident memory.
        """
        self._module = module
        self._name = name
        self._timeout = timeout
        self._memory = memory << 20
        self._child: subprocess.Popen[str] | None = None
        self._requests = 0
        self._is_stopped = False
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Start the process before it is needed."""
        with self._lock:
            try:
                self._ready_child()
            except BaseException:
                self._end()
                raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Have something done, and wait for the answer.

        Raises:
            ProcessFailedError: the process died, took too long or too much memory, or met a bug.
            TransientError: it was stopped, or the system refused to start it, or something that it wanted to do.
        """
        answer = None
        with self._lock:
            try:
                answer = self._ask(request)
            except (OSError, ValueError, ProcessFailedError) as error:
                if self._is_stopped:
                    raise TransientError(f"The {self._name} process was stopped.") from error
                raise ProcessFailedError(f"The {self._name} process was lost: {error}") from error
            finally:
                if answer is None:
                    self._end()  # what it may still answer must not be taken for the answer to the next request
            self._requests += 1
            if self._requests >= _REQUESTS:
                self._end()
        if "refused" in answer:
            raise TransientError(f"The system refused something to the {self._name} process: {answer['refused']}.")
        if "bug" in answer:
            raise ProcessFailedError(answer["bug"])
        return answer

    def stop(self) -> None:
        """Let whoever waits for an answer wait no longer; for good."""
        self._is_stopped = True

    def close(self) -> None:
        """End the process, once it has answered."""
        with self._lock:
            self._end()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        child = self._ready_child()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
        return self._wait(child, child.stdout, self._timeout)

    def _ready_child(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        try:
            child = spawn(self._module)
        except OSError as error:  # no process or memory to be had now
            raise TransientError(f"The {self._name} process cannot be started: {error.strerror}.") from error
        self._child, self._requests = child, 0
        assert child.stdout is not None
        self._wait(child, child.stdout, _START_TIMEOUT)
        return child

    def _wait(self, child: subprocess.Popen[str], answers: IO[str], timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            while not selector.select(min(_LOOK, max(0.0, deadline - time.monotonic()))):
                if self._is_stopped:
                    raise ProcessFailedError("it was stopped")
                if time.monotonic() > deadline:
                    raise ProcessFailedError(f"no answer within {timeout:g} s")
                if _resident(child.pid) > self._memory:
                    raise ProcessFailedError(f"it took more than {self._memory >> 20} MiB of memory")
        line = answers.readline()
        if not line:
            status = child.wait()
            if status == -signal.SIGBUS:  # a page of a mapped file that the disk did not give
                raise TransientError(f"The {self._name} process could not read its file.")
            raise ProcessFailedError(f"it ended with status {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self._child = None


def _resident(pid: int) -> int:
    """Bytes of resident memory of a process (proc(5), statm); 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
