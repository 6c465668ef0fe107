"""What a session of the drop box does with each request: one gate, one map of errors, one log line at the end.

Every request comes through `perform`: it refuses what the table of operations refuses, turns what goes
wrong into a status whose text is a sentence of ours, and never lets an exception's own text out. This class
has no method for what is refused, and does not inherit from `asyncssh.SFTPServer`, whose methods work on
the real file system: a hole in the table would lead nowhere.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import asyncssh
from asyncssh.constants import FXF_APPEND, FXF_CREAT, FXF_WRITE

from postern.logs import get_logger
from postern.model import IdKind, new_id
from sftpd.listing import entry, file_attributes, folder_attributes
from sftpd.operations import Operation
from sftpd.paths import UploadName, is_folder, real_path, shown
from sftpd.records import Client
from sftpd.refusals import GateRefusal, RefusalCode, refuse
from sftpd.seams import GarbledPacketError
from sftpd.session_uploads import SessionUploads, Terms
from sftpd.uploads import Upload

MAX_FOLDERS = 64  # that a session's mkdir is remembered for

_log = get_logger(__name__)

Result = TypeVar("Result")

# Codes of version 3 only; the clients that show a status's text show the sentence, the others the code's name.
_STATUSES: dict[RefusalCode, Callable[[str], asyncssh.SFTPError]] = {
    RefusalCode.NAME_IS_FOLDER: asyncssh.SFTPFailure,
    RefusalCode.NOT_FOUND: asyncssh.SFTPNoSuchFile,
    RefusalCode.READING: asyncssh.SFTPPermissionDenied,
    RefusalCode.NAME_NOT_CSV: asyncssh.SFTPPermissionDenied,
    RefusalCode.UNSUPPORTED: asyncssh.SFTPOpUnsupported,
}


class DropBox:
    """The service behind one SFTP session. asyncssh calls the methods that are named after its operations."""

    def __init__(
        self,
        channel: "asyncssh.SSHServerChannel[bytes]",
        client: Client,
        terms: Terms,
        *,
        check_upload: Callable[[str], None],
        on_exit: Callable[["DropBox"], None],
    ) -> None:
        self._channel = channel
        self._names = terms.names
        self._metrics = terms.metrics
        self._campaign_id = client.campaign_id
        self._check_upload = check_upload
        self._on_exit = on_exit
        self._is_ending = False
        self._folders: set[bytes] = set()  # that this session made
        self._log = _log.bind(session=secrets.token_hex(4), campaign_id=client.campaign_id)
        self._uploads = SessionUploads(client, terms, self._log)
        self._log.info("session.opened", enrolment_id=client.enrolment_id, fingerprint=client.key_fingerprint)

    @property
    def unfinished(self) -> int:
        """How many files of this session are neither accepted nor abandoned."""
        return self._uploads.unfinished

    @property
    def is_receiving(self) -> bool:
        """Whether a file is open, so that more of it has to come."""
        return self._uploads.is_receiving

    async def perform(self, operation: Operation, serve: Callable[[], Awaitable[Result]]) -> Result:
        """Judge one request, carry it out with `serve`, and map what goes wrong to a status."""
        try:
            _judge(operation)
            result = await serve()
        except (GarbledPacketError, asyncssh.SFTPEOFError):
            raise  # asyncssh's own two fixed words: a garbled packet, the end of a listing
        except asyncssh.SFTPError as error:
            self._log.info("operation.refused", operation=operation.name, code=error.code)
            raise
        except GateRefusal as refusal:
            raise await self._refused(operation, refusal) from None
        except Exception as error:  # noqa: BLE001 - a client never sees the text of a bug; the log has all of it
            raise await self._refused(operation, self._fault(operation, error)) from None
        if not operation.is_quiet:
            self._log.info("operation.done", operation=operation.name)
        return result

    def session_ends(self) -> None:
        """From now on files are closed by the teardown: nothing is accepted any more."""
        self._is_ending = True

    # Files

    async def open(self, path: bytes, flags: int, _attributes: asyncssh.SFTPAttrs) -> Upload:
        if not flags & FXF_WRITE:
            raise refuse(RefusalCode.READING)
        name = self._names.read(path)
        if flags & FXF_APPEND or not flags & FXF_CREAT:
            raise refuse(RefusalCode.RESUMING, name=name.text)
        self._check_upload(self._campaign_id)
        return await self._uploads.begin(name)

    def write(self, upload: Upload, offset: int, data: bytes) -> int:
        upload.write(offset, data)
        return len(data)

    async def close(self, upload: Upload) -> None:
        if self._is_ending:
            await self._uploads.drop(upload)
        else:
            await self._uploads.finish(upload)

    async def fsync(self, upload: Upload) -> None:
        await upload.flush()

    def fstat(self, upload: Upload) -> asyncssh.SFTPAttrs:
        return file_attributes(self._uploads.sight_of(upload))

    def fsetstat(self, upload: Upload, attributes: asyncssh.SFTPAttrs) -> None:
        if attributes.size is not None:
            upload.announce(attributes.size)  # scp, lftp: "this is how large it is"; held against what came

    # Names

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        if is_folder(path) or real_path(path) in self._folders:
            return folder_attributes()
        return file_attributes(await self._uploads.sight(self._named(path)))

    async def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return await self.stat(path)

    def setstat(self, _path: bytes, _attributes: asyncssh.SFTPAttrs) -> None:
        """Times and modes are nobody's business here, but sshj, rclone and WinSCP fail where this is refused."""

    def lsetstat(self, _path: bytes, _attributes: asyncssh.SFTPAttrs) -> None:
        """As `setstat`."""

    def mkdir(self, path: bytes, _attributes: asyncssh.SFTPAttrs) -> None:
        """Every folder is there already; one with a name like a file's is from now on, for this session."""
        if len(self._folders) < MAX_FOLDERS:
            self._folders.add(real_path(path))

    def rmdir(self, _path: bytes) -> None:
        """And stays."""

    def realpath(self, path: bytes) -> bytes:
        return real_path(path)

    async def scandir(self, _path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        for folder in (".", ".."):
            yield entry(folder, folder_attributes())
        for name, sight in sorted((await self._uploads.sights()).items()):
            yield entry(name, file_attributes(sight))

    async def remove(self, path: bytes) -> None:
        await self._uploads.remove(self._named(path))

    async def rename(self, old_path: bytes, new_path: bytes) -> None:
        await self._uploads.rename(self._named(old_path), new_path)

    async def posix_rename(self, old_path: bytes, new_path: bytes) -> None:
        await self.rename(old_path, new_path)

    async def exit(self) -> None:
        """The end of the session, whichever it is. Without an exit status scp reports a failure."""
        try:
            await self._uploads.leave()
        finally:
            self._channel.exit(0)
            self._on_exit(self)
            self._log.info("session.closed")

    def _named(self, path: bytes) -> UploadName:
        name = self._names.find(path)
        if name is None:
            raise refuse(RefusalCode.NOT_FOUND, name=shown(path.decode("utf-8", "backslashreplace")))
        return name

    async def _refused(self, operation: Operation, refusal: GateRefusal) -> asyncssh.SFTPError:
        if not refusal.reported:  # pipelined writes meet the same refusal again and again
            refusal.reported = True
            self._metrics.refused(refusal.code)
            self._log.info("operation.refused", operation=operation.name, code=refusal.code, size=refusal.size)
            self._say(refusal)
            await self._uploads.tell(refusal)
        return _STATUSES.get(refusal.kind, asyncssh.SFTPFailure)(str(refusal))

    def _say(self, refusal: GateRefusal) -> None:
        """Write the reason to standard error, too: OpenSSH prints only "Failure" of a status."""
        if refusal.kind is not RefusalCode.NOT_FOUND and not self._channel.is_closing():
            self._channel.write_stderr(f"{refusal}\n".encode())

    def _fault(self, operation: Operation, error: Exception) -> GateRefusal:
        support_id = new_id(IdKind.SUPPORT)
        self._log.error("operation.fault", operation=operation.name, support_id=support_id, exc_info=error)
        return refuse(RefusalCode.FAULT, support_id=support_id)


def _judge(operation: Operation) -> None:
    """The gate of policy: before anything of a request is read."""
    if operation.refusal is not None:
        raise refuse(operation.refusal, operation=operation.name)
