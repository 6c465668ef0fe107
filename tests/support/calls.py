"""What a clerk is told to call in tests: functions of a module that its process can import, too."""

import os
import signal
import time

import sqlalchemy as sa

from postern.errors import TransientError
from storage.database import Database


def number_of(database: Database, number: int, *, seconds: float = 0.0) -> int:
    """Ask the database for a number, after a while."""
    time.sleep(seconds)
    with database.read() as connection:
        found: int = connection.execute(sa.text("SELECT :number + 0"), {"number": number}).scalar_one()
    return found


def echo(_database: Database, text: str) -> str:
    """Return it; print something, too."""
    print("a library says something")
    return text


def process(_database: Database) -> int:
    """The id of the process that this runs in."""
    return os.getpid()


def is_away(_database: Database) -> None:
    """A database that does not answer."""
    raise TransientError("The database did not answer: it is away")


def meet_a_bug(_database: Database, number: str) -> None:
    """A bug, with a number in its message."""
    raise KeyError(number)


def names_of_variables(_database: Database) -> list[str]:
    """What the process has in its environment."""
    return list(os.environ)


def die(_database: Database) -> None:
    """Take the process along."""
    os.kill(os.getpid(), signal.SIGKILL)


class Riddle:
    """Can be pickled, and not be read again."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def not_understood(_database: Database) -> Riddle:
    """An answer that nobody can read."""
    return Riddle()
