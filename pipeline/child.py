"""The process that parses: reads one request a line on standard input, answers one line on standard output.

It gets paths and rules, no credentials, and it may be killed at any time: it changes nothing but the files that it
was told to write.
"""

import errno
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.ruleset import from_json
from pipeline.sheet import fits_workbook
from pipeline.source import map_file
from pipeline.validate import validate

_TROUBLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EAGAIN,
}  # fmt: skip
_NUMBER = re.compile(r"\(os error (\d+)\)")


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until standard input ends."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not look like an answer
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answered(answer, json.loads(line))), file=answers, flush=True)


def _leave_with(parent: int) -> None:
    """End when the worker is gone: nobody would watch this process's memory and time any more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answered(answer: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return answer(request)
    except Exception as error:  # noqa: BLE001 - a bug must reach the worker's log, not end the process silently
        if isinstance(error, OSError) and _is_trouble(error):
            return {"refused": error.strerror or type(error).__name__}
        # Where and what kind; not the message, which may hold values of the file.
        where = "".join(traceback.format_tb(error.__traceback__))
        return {"bug": f"Traceback (most recent call last):\n{where}{type(error).__name__}"}


def _is_trouble(error: OSError) -> bool:
    """Whether it is the machine's trouble, such as a full disk, and no fault of the file or of ours.

    polars raises `OSError` with the number in the text only.
    """
    number = _NUMBER.search(str(error))
    return (error.errno or (int(number[1]) if number else 0)) in _TROUBLE


def _judge(request: dict[str, Any]) -> dict[str, Any]:
    data = map_file(Path(request["data"]))
    report, messages = (None if request[name] is None else Path(request[name]) for name in ("report", "messages"))
    outcome = validate(data, from_json(request["rules"]), report=report, messages=messages)
    return {
        "verdict": outcome.verdict.as_json(),
        "firstRow": outcome.first_row,
        "lastRow": outcome.last_row,
        "fitsWorkbook": not outcome.verdict.is_valid and fits_workbook(data),
    }


if __name__ == "__main__":
    serve(_judge)
