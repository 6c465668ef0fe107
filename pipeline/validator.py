"""Validation in a process of its own: warm, watched for memory and time, replaced when it is used up or killed.

Spawned, never forked (polars has threads), with an environment that holds no credentials. A file that kills it
fails alone.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.ruleset import Ruleset, to_json
from postern.errors import PosternError
from postern.model import Finding, Verdict

_FILES = 100  # after so many a fresh process takes over
_LOOK = 0.1  # seconds between two looks at memory and time
_START_TIMEOUT = 60.0  # seconds


class ValidationFailedError(PosternError):
    """The validating process did not answer; a fault of ours, whatever the file is. Says what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """The answer of the validating process."""

    verdict: Verdict
    first_row: int
    last_row: int


class Validator:
    """Runs one validation at a time in its process; safe to call from several threads, which then wait."""

    def __init__(self, *, timeout: float, memory: int) -> None:
        """Set the limits for one file: seconds, and MiB of resident memory."""
        self._timeout = timeout
        self._memory = memory << 20
        self._child: subprocess.Popen[str] | None = None
        self._files = 0
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Start the process before it is needed."""
        with self._lock:
            try:
                self._ready_child()
            except BaseException:
                self._end()
                raise

    def validate(self, data: Path, rules: Ruleset, *, report: Path, messages: Path) -> Validated:
        """Judge a file; see `pipeline.validate.validate`.

        Raises:
            ValidationFailedError: the process died, took too long or too much memory, or met a bug.
        """
        request = {"data": str(data), "report": str(report), "messages": str(messages), "rules": to_json(rules)}
        answer = None
        with self._lock:
            try:
                answer = self._ask(request)
            except (OSError, ValueError, ValidationFailedError) as error:
                raise ValidationFailedError(f"The validating process was lost: {error}") from error
            finally:
                if answer is None:
                    self._end()  # what it may still answer must not be taken for the answer about the next file
            self._files += 1
            if self._files >= _FILES:
                self._end()
        if "bug" in answer:
            raise ValidationFailedError(answer["bug"])
        return Validated(verdict=_verdict(answer["verdict"]), first_row=answer["firstRow"], last_row=answer["lastRow"])

    def close(self) -> None:
        """End the process."""
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
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ},
        )
        self._child, self._files = child, 0
        assert child.stdout is not None
        self._wait(child, child.stdout, _START_TIMEOUT)
        return child

    def _wait(self, child: subprocess.Popen[str], answers: IO[str], timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            while not selector.select(_LOOK):
                if time.monotonic() > deadline:
                    raise ValidationFailedError(f"no answer within {timeout:g} s")
                if _resident(child.pid) > self._memory:
                    raise ValidationFailedError(f"it took more than {self._memory >> 20} MiB of memory")
        line = answers.readline()
        if not line:
            raise ValidationFailedError(f"it ended with status {child.wait()}")
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


def _verdict(document: dict[str, Any]) -> Verdict:
    return Verdict(
        is_valid=document["isValid"],
        total_rows=document["totalRows"],
        num_rows=document["numRows"],
        num_errors=document["numErrors"],
        has_avoidable_character=document["fileHasAvoidableExpensiveCharacter"],
        has_unicode=document["fileHasUnicode"],
        by_code=document["byCode"],
        first_errors=[Finding(**finding) for finding in document["firstErrors"]],
        warnings=document["warnings"],
        first_warnings=[Finding(**finding) for finding in document["firstWarnings"]],
        rows_by_language=document["rowsByLanguage"],
        segments=document["segments"],
        local_segments=document["localSegments"],
        foreign_segments=document["foreignSegments"],
    )
