"""The clerk's process (`storage.clerk`): calls the functions of the ledger that standard input names.

It holds nothing but connections. A worker's signals are not for it; it leaves, at once, when standard input ends, and
the kernel ends it with its worker. What it was at is then as with any worker that dies: committed, or not.
"""

import ctypes
import os
import pickle
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import IO, Any

import storage.ledger.claiming  # what it will be asked for: the first call need not wait for that
import storage.ledger.recording  # noqa: F401 - the same
from postern.collector import settle
from postern.errors import TransientError
from storage.clerk import AWAY, BUG, DONE, HEADER, READY
from storage.database import Database

_AT_ONCE = 8  # calls, each with a connection; most of their time they wait for the database's server
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class _Answers:
    """Standard output, for answers only."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # whatever a library prints must not look like an answer
        self._lock = Lock()

    def write(self, answer: Any) -> None:
        pickled = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._file.write(HEADER.pack(len(pickled)) + pickled)
            self._file.flush()


def main() -> None:
    """Call what is asked for until standard input ends."""
    _end_with(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    questions, answers = sys.stdin.buffer, _Answers()
    database = Database(pickle.loads(_next(questions) or b""))  # noqa: S301 - our own worker wrote it
    pool = ThreadPoolExecutor(_AT_ONCE)
    settle()
    answers.write(READY)
    while question := _next(questions):
        number, call = pickle.loads(question)  # noqa: S301 - the same
        pool.submit(_answer, database, answers, number, call)
    os._exit(0)


def _end_with(worker: int) -> None:
    """Be killed when the worker ends, however it does (prctl(2)); the end of standard input is a moment later."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it ended before
        os._exit(0)


def _next(questions: IO[bytes]) -> bytes | None:
    header = questions.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    return questions.read(size)


def _answer(database: Database, answers: _Answers, number: int, call: bytes) -> None:
    try:
        function, arguments, keywords = pickle.loads(call)  # noqa: S301 - the same
        answers.write((number, DONE, function(database, *arguments, **keywords)))
    except TransientError as error:
        answers.write((number, AWAY, str(error)))
    except Exception as error:  # noqa: BLE001 - a bug; whoever asked must hear of it
        # Where and what kind; not the message, which may hold values of messages.
        where = "".join(traceback.format_tb(error.__traceback__))
        answers.write((number, BUG, f"Traceback (most recent call last):\n{where}{type(error).__name__}"))


if __name__ == "__main__":
    main()
