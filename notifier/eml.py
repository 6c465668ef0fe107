"""Delivers mails as `.eml` files in a folder: the embedded default, for a laptop and for a first look.

A file appears whole and durable or not at all. Its name is made from the mail's Date and Message-ID, so the
same notice delivered twice is still one file. It tells nobody and deletes nothing.
"""

import asyncio
import os
import re
import tempfile
from contextlib import suppress
from copy import deepcopy
from datetime import UTC
from email.message import EmailMessage
from email.policy import default as unix_lines
from pathlib import Path

from notifier.courier import TemporaryMailError


class EmlCourier:
    """Writes `<created>-<kind>-<upload id>.eml` into a folder that it makes when it first needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def deliver(self, mail: EmailMessage, *, recipient: str) -> None:
        delivered = deepcopy(mail)
        delivered["Delivered-To"] = recipient  # the envelope, which To need not repeat
        # LF, as in a Maildir: CRLF is for the wire (RFC 5321, 2.3.8), and would spoil `grep -x` on the result line.
        contents = delivered.as_bytes(policy=unix_lines)
        try:
            await asyncio.to_thread(_write, self._folder / file_name(mail), contents)
        except OSError as error:
            raise TemporaryMailError(f"The mail folder cannot be written: {error.strerror}.") from error

    async def check(self) -> str:
        """Make sure that the folder can be written, where it is there already.

        Raises:
            TemporaryMailError: it cannot.
        """
        if self._folder.exists() and not os.access(self._folder, os.W_OK | os.X_OK):
            raise TemporaryMailError(f"The mail folder {self._folder} cannot be written.")
        return f"files in {self._folder}"


def file_name(mail: EmailMessage) -> str:
    """`20261120T133509Z-accepted-upload_….eml`; nothing in it but letters, digits, `_`, `-` and the last dot."""
    created = mail["Date"].datetime.astimezone(UTC)
    identity = str(mail["Message-ID"]).strip("<>").partition("@")[0]
    return f"{created:%Y%m%dT%H%M%SZ}-{re.sub('[^A-Za-z0-9_]+', '-', identity)}.eml"


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name of its own, so that two workers that deliver the same notice do not write into one file.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename is durable only when the folder's entry is.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
