"""One file on its way in: open, then complete or abandoned.

Complete means proved: every byte from the first to the last was written, no write failed, and the size is
the one that the client announced if it did. Only then are bytes and record put on disk and the upload is
accepted; whatever else happens, nothing of it stays in the spool. A CLOSE is no proof of anything but that
the client closed. Writes are synchronous: a write is 255 KiB at most and ends in the page cache, where a
thread would cost more than the write. What waits for the disk runs in a thread. This module knows no
client and answers none.
"""

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from functools import partial

from postern.logs import get_logger
from postern.model import IdKind, new_id
from sftpd.cut_off import looks_cut_off
from sftpd.paths import UploadName
from sftpd.refusals import GateRefusal, RefusalCode, refuse
from storage.spool import Spool, shared
from storage.spool_records import Sidecar

MAX_PIECES = 64  # pieces written ahead of a gap; pipelining clients write in order, so one is rare
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_log = get_logger(__name__)


class Upload:
    """An open file of a session. Used by one task at a time: a session's requests are served in turn.

    Raises:
        GateRefusal: there is no room for it on the disk, or the disk is broken.
    """

    def __init__(self, spool: Spool, name: UploadName, *, limit: int) -> None:
        self.id = new_id(IdKind.UPLOAD)
        self.name = name
        self.size = 0  # bytes from the first on without a gap
        self._announced: int | None = None  # the size that the client said the file has
        self._limit = limit
        self._spool = spool
        self._ahead: dict[int, int] = {}  # start → end of what was written past a gap
        self._write_block: int | None = None  # bytes of every write so far; 0 once two of them differ
        self.is_cut_off = False  # known once it is sealed
        self._digest = hashlib.sha256()
        self._is_digest_true = True  # as long as the bytes came in order
        self._failure: GateRefusal | None = None
        self._descriptor = -1
        self._begin()

    def write(self, offset: int, data: bytes) -> None:
        """Take a block.

        Raises:
            GateRefusal: this block or an earlier one cannot be taken; the whole upload is lost.
        """
        self._check()
        try:
            self._admit(offset, len(data))
            _write_all(self._descriptor, data, offset)
        except OSError as error:
            raise self.spoil(self._trouble(error)) from error
        self._account(offset, data)
        self._note(len(data))

    @property
    def write_block(self) -> int:
        """Bytes of each write, the last one too; 0 where they differ or there was none.

        A client that is interrupted closes in good order what it has sent, and that ends with a whole block.
        """
        return self._write_block or 0

    def _note(self, length: int) -> None:
        if self._write_block is None:
            self._write_block = length
        elif length != self._write_block:
            self._write_block = 0

    def announce(self, size: int) -> None:
        """Note the size that the client sets (scp does, before it closes)."""
        self._announced = size

    def spoil(self, failure: GateRefusal) -> GateRefusal:
        """Make sure that the upload can never be accepted; the first reason stays."""
        if self._failure is None:
            failure.size = self.size
            self._failure = failure
        return self._failure

    async def flush(self) -> None:
        """Put what has come so far on disk."""
        self._check()
        await self._off_loop(partial(os.fsync, self._descriptor))

    async def seal(self) -> None:
        """Prove that the file is whole, and put its bytes on disk.

        Raises:
            GateRefusal: it is not, or they cannot be.
        """
        self._check()
        if self._ahead:
            self.spoil(self._incomplete(f"there is a gap after byte {self.size:,}"))
        elif self._announced not in {None, self.size}:
            self.spoil(self._too_short())
        self._check()
        await self._off_loop(self._settle)

    async def accept(self, sidecar: Sidecar) -> None:
        """Hand a sealed upload over; when this returns it survives a power cut.

        Raises:
            GateRefusal: nothing was accepted.
        """
        self._check()
        await self._off_loop(partial(self._spool.accept, sidecar))

    async def abandon(self) -> None:
        """Remove everything. Doing it twice is harmless."""
        self.spoil(refuse(RefusalCode.REMOVED, name=self.name.text))
        self._close()
        await asyncio.to_thread(self._spool.abandon, self.id)

    @property
    def sha256(self) -> str:
        """The digest of a sealed upload, lower-case hex."""
        return self._digest.hexdigest()

    def _begin(self) -> None:
        try:
            path = self._spool.begin(self.id)
            mode = shared(path.parent, 0o600)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        except OSError as error:
            self._spool.abandon(self.id)
            raise self.spoil(self._trouble(error)) from error

    def _check(self) -> None:
        if self._failure is not None:
            # The same refusal may be raised for hundreds of pipelined writes; its traceback must not grow.
            raise self._failure.with_traceback(None)

    def _admit(self, offset: int, length: int) -> None:
        if offset + length >= self._limit:
            raise self.spoil(refuse(RefusalCode.TOO_LARGE, name=self.name.text, limit=f"{self._limit:,}"))
        if offset > 0 and self.size == 0 and not self._ahead:
            raise self.spoil(refuse(RefusalCode.RESUMING, name=self.name.text))
        if len(self._ahead) >= MAX_PIECES:
            raise self.spoil(self._incomplete(f"there is a gap after byte {self.size:,}"))

    def _account(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if offset == self.size:
            self._digest.update(data)
            self.size = end
        else:
            self._is_digest_true = False
            if offset < self.size:
                self.size = max(self.size, end)
            else:
                self._ahead[offset] = max(end, self._ahead.get(offset, end))
        if self._ahead:
            self._join()

    def _join(self) -> None:
        """Move the end on over the pieces that it has reached."""
        for start, end in sorted(self._ahead.items()):
            if start > self.size:
                break
            self.size = max(self.size, end)
            del self._ahead[start]

    def _settle(self) -> None:
        os.fsync(self._descriptor)
        last_byte = os.pread(self._descriptor, 1, max(0, self.size - 1))
        self.is_cut_off = looks_cut_off(write_block=self.write_block, last_byte=last_byte)
        if not self._is_digest_true:
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                file.seek(0)
                self._digest = hashlib.file_digest(file, "sha256")
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _off_loop(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise self.spoil(self._trouble(error)) from error

    def _trouble(self, error: OSError) -> GateRefusal:
        if error.errno in _FULL:
            failure = refuse(RefusalCode.DISK_FULL, name=self.name.text)
        else:
            failure = refuse(RefusalCode.FAULT, name=self.name.text, support_id=new_id(IdKind.SUPPORT))
        _log.error("upload.disk_trouble", upload_id=self.id, errno=error.errno, reason=str(failure))
        return failure

    def _too_short(self) -> GateRefusal:
        if self._write_block is None:  # lftp's `put -c` finds the file whole here, and sends nothing of it
            return refuse(RefusalCode.RESUMING, name=self.name.text)
        return self._incomplete(f"{self.size:,} of {self._announced:,} bytes came")

    def _incomplete(self, found: str) -> GateRefusal:
        return refuse(RefusalCode.INCOMPLETE, name=self.name.text, found=found)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
