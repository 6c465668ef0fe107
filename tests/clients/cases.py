"""What is asked of every client, and what must come of it: the contract, said once for all clients. Pure.

Where the contract leaves a client a choice, or a client's own oddity decides, the catalogue says so beside the
client (`endings`, `silent_on`), and the matrix holds it to that.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from signal import Signals

IS_FULL = os.environ.get("POSTERN_CLIENTS_SIZE") == "full"
LIMIT = 30_000_000 if IS_FULL else 3_000_000  # bytes; the gate's default, or one that slow clients reach sooner

NAME = "recipients.csv"
PARTIAL = f"{NAME}.part"
FOLDER = "upload"


class Task(StrEnum):
    """What a client does in a case."""

    PUT = "put"
    RENAME = "rename"  # put under a temporary name, then rename
    TIMES = "times"  # put and set times and modes
    SYNC = "sync"  # put and ask for an fsync
    RESUME = "resume"  # go on after what the server has
    CANCEL = "cancel"  # give up in the middle, in good order
    OLD_SCP = "old scp"  # the protocol from before SFTP


class Ending(StrEnum):
    """What must come of a case."""

    ACCEPTED = "accepted"  # exit status 0, and every put is an upload with exactly its bytes
    REFUSED = "refused"  # another exit status, no upload, the reason told to the client
    NOTHING = "nothing"  # another exit status, no upload, nobody told
    PART = "part"  # the client closed a truncated file in good order: an upload of its first bytes
    EITHER = "either"  # whether it closed in order hangs on the moment: nothing, or an upload of its first bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One column of the matrix."""

    title: str
    task: Task = Task.PUT
    content: str = "good"  # which of `FILES`
    name: str = NAME
    folder: str = ""
    runs: int = 1
    ending: Ending = Ending.ACCEPTED
    sentence: str = ""  # what the gate says of a refusal
    is_told: bool = False  # whether the owner hears of the refusal
    signal: Signals | None = None  # what the client gets in the middle
    is_long: bool = False  # only with `POSTERN_CLIENTS_SIZE=full`


def _ended(sent: Signals, *, is_long: bool = False) -> Case:
    return Case(title=sent.name, content="middling", ending=Ending.NOTHING, signal=sent, is_long=is_long)


CASES = {
    "put": Case(title="put"),
    "again": Case(title="put again", runs=2),
    "folder": Case(title="into a folder", folder=FOLDER),
    "rename": Case(title="temporary name, then rename", task=Task.RENAME),
    "times": Case(title="times and modes kept", task=Task.TIMES),
    "sync": Case(title="with fsync", task=Task.SYNC),
    "empty": Case(title="0 bytes", content="empty"),
    "most": Case(title="a byte under the limit", content="most"),
    "large": Case(
        title="too large",
        content="large",
        ending=Ending.REFUSED,
        sentence=f"is too large: a file must be smaller than {LIMIT:,} bytes",
        is_told=True,
    ),
    "name": Case(
        title="recipients.txt",
        name="recipients.txt",
        ending=Ending.REFUSED,
        sentence="is not a .csv file; only files whose name ends in .csv are taken here.",
        is_told=True,
    ),
    "resume": Case(
        title="resume",
        task=Task.RESUME,
        content="longer",
        ending=Ending.REFUSED,
        sentence="cannot be continued or changed here; put the whole file again.",
    ),
    "old_scp": Case(title="the protocol before SFTP", task=Task.OLD_SCP, ending=Ending.REFUSED),
    "killed": _ended(Signals.SIGKILL),
    "terminated": _ended(Signals.SIGTERM, is_long=True),
    "hung_up": _ended(Signals.SIGHUP, is_long=True),
    "interrupted": _ended(Signals.SIGINT, is_long=True),
}

GOOD = b"recipient,language\n6599999999,english\n"
FILES = {  # what is in the local files
    "good": GOOD,
    "longer": GOOD + b"6588888888,english\n",  # what `resume` goes on with
    "empty": b"",
    "most": (GOOD + b"6599999999,english\n" * (LIMIT // 19))[: LIMIT - 2] + b"\n",
    "large": b"x" * LIMIT,
    "middling": GOOD + b"6599999999,english\n" * 149_990,  # below either limit
}
MIDDLE = 400_000  # bytes on the wire after which a client with the middling file is in the middle
