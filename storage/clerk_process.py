"""The clerk's process (`storage.clerk`): calls the functions of the ledger that standard input names.

It holds nothing but connections. A worker's signals are not for it; it leaves, at once, when standard input ends. What
it was at is then as with any worker that dies: committed, or not.
"""

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
from storage.clerk import AWAY, BUG, DONE, HEADER
from storage.database import Database

_AT_ONCE = 16  # calls; most of their time they wait for the database's server


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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    questions, answers = sys.stdin.buffer, _Answers()
    database = Database(pickle.loads(_next(questions) or b""))  # noqa: S301 - our own worker wrote it
    pool = ThreadPoolExecutor(_AT_ONCE)
    settle()
    answers.write("ready")
    while question := _next(questions):
        pool.submit(_answer, database, question, answers)
    os._exit(0)


def _next(questions: IO[bytes]) -> bytes | None:
    header = questions.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    return questions.read(size)


def _answer(database: Database, question: bytes, answers: _Answers) -> None:
    number, function, arguments, keywords = pickle.loads(question)  # noqa: S301 - see above
    try:
        answers.write((number, DONE, function(database, *arguments, **keywords)))
    except TransientError as error:
        answers.write((number, AWAY, str(error)))
    except Exception as error:  # noqa: BLE001 - a bug; whoever asked must hear of it
        # Where and what kind; not the message, which may hold values of messages.
        where = "".join(traceback.format_tb(error.__traceback__))
        answers.write((number, BUG, f"Traceback (most recent call last):\n{where}{type(error).__name__}"))


if __name__ == "__main__":
    main()
