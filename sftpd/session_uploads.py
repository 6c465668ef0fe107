"""The uploads of one session: open → accepted, or waiting for a rename → accepted, or abandoned.

A file closed under a temporary name waits, whole and on disk, until it is renamed to a `.csv`; the end of
the session abandons it, and the owner is told. Whatever way a session ends, `leave` leaves nothing of it in
`incoming/`. This module knows no wire: its refusals are sentences, its answers values.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from sftpd.listing import Sight
from sftpd.metrics import Metrics
from sftpd.paths import NameRules, UploadName
from sftpd.recent import RecentUploads
from sftpd.records import Client, RefusedFile, refused_event, sidecar_of
from sftpd.refusals import GateRefusal, RefusalCode, refuse
from sftpd.uploads import Upload
from storage.spool import Spool
from storage.spool_records import Event

MAX_UNFINISHED = 16  # files of one session that are open or wait for their rename
MAX_EVENTS = 100  # refusals of one session that the owner is told of; the log has them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all sessions of a gate share."""

    spool: Spool
    recent: RecentUploads
    names: NameRules
    max_file_size: int
    zone: ZoneInfo
    clock: Callable[[], datetime]
    metrics: Metrics


class SessionUploads:
    """Used by one task at a time: a session's requests are served in turn."""

    def __init__(self, client: Client, terms: Terms, log: structlog.stdlib.BoundLogger) -> None:
        self._client = client
        self._terms = terms
        self._log = log
        self._open: set[Upload] = set()
        self._ending: set[Upload] = set()  # being accepted or abandoned; a gate that stops waits for them
        self._waiting: dict[str, Upload] = {}
        self._accepted: dict[str, Sight] = {}
        self._events_left = MAX_EVENTS

    @property
    def unfinished(self) -> int:
        """How many files of the session are neither accepted nor abandoned."""
        return len(self._open) + len(self._waiting) + len(self._ending)

    @property
    def is_receiving(self) -> bool:
        """Whether a file is open."""
        return bool(self._open)

    async def begin(self, name: UploadName) -> Upload:
        """Start an upload. One that waits under the same temporary name is overwritten, as in any folder."""
        earlier = self._waiting.pop(name.text, None)
        if earlier is not None:
            await self._abandon(earlier, "overwritten")
        if len(self._open) + len(self._waiting) >= MAX_UNFINISHED:
            raise refuse(RefusalCode.TOO_MANY_OPEN, limit=MAX_UNFINISHED, place="session")
        upload = Upload(self._terms.spool, name, limit=self._terms.max_file_size)
        self._open.add(upload)
        self._log.info("upload.opened", upload_id=upload.id)
        return upload

    async def finish(self, upload: Upload) -> None:
        """Take the client's CLOSE: accept a whole file, or let it wait for its rename."""
        self._ending.add(upload)
        self._open.discard(upload)
        try:
            await self._finish(upload)
        finally:
            self._ending.discard(upload)

    async def _finish(self, upload: Upload) -> None:
        try:
            await upload.seal()
        except GateRefusal as refusal:
            await self._abandon(upload, refusal.code)
            raise
        if upload.name.is_temporary:
            await self._wait(upload)
            self._log.info("upload.waiting", upload_id=upload.id, size=upload.size)
        else:
            await self._accept(upload)

    async def _wait(self, upload: Upload) -> None:
        """Let an upload wait under its temporary name, in place of another one that waits under it."""
        earlier = self._waiting.get(upload.name.text)
        self._waiting[upload.name.text] = upload
        if earlier is not None and earlier is not upload:
            await self._abandon(earlier, "overwritten")

    async def drop(self, upload: Upload) -> None:
        """Remove a file that the teardown closed, not the client."""
        self._open.discard(upload)
        await self._abandon(upload, "not_closed")

    async def rename(self, old: UploadName, new_path: bytes) -> None:
        """Rename: commits a waiting upload, changes nothing about an accepted one."""
        upload = self._unfinished(old.text)
        if upload is None:
            await self._rename_accepted(old, new_path)
            return
        upload.name = self._terms.names.read(new_path)
        if self._waiting.pop(old.text, None) is None:
            return  # still open: its CLOSE will find the new name
        self._ending.add(upload)
        try:
            await (self._wait(upload) if upload.name.is_temporary else self._accept(upload))
        finally:
            self._ending.discard(upload)

    async def remove(self, name: UploadName) -> None:
        """Remove: drops an unfinished upload, keeps an accepted one."""
        upload = self._unfinished(name.text)
        if upload in self._open:
            upload.spoil(refuse(RefusalCode.REMOVED, name=name.text))
        elif upload is not None:
            del self._waiting[name.text]
            await self._abandon(upload, "removed")
        else:
            await self.sight(name)

    async def sight(self, name: UploadName) -> Sight:
        """The upload of that name as the session sees it.

        Raises:
            GateRefusal: there is none.
        """
        found = self._own().get(name.text) or (await self.sights()).get(name.text)
        if found is None:
            raise refuse(RefusalCode.NOT_FOUND, name=name.text)
        return found

    def sight_of(self, upload: Upload) -> Sight:
        """An open upload as the session sees it."""
        return Sight(size=upload.size, seen_at=self._terms.clock())

    async def sights(self) -> dict[str, Sight]:
        """All that the session sees: its campaign's accepted uploads of the last 24 h, and its own."""
        return {**await self._terms.recent.of(self._client.campaign_id), **self._own()}

    async def leave(self) -> None:
        """End: abandon what is left, and tell the owner of files that were never renamed."""
        for upload in list(self._open):
            await self.drop(upload)
        for upload in list(self._waiting.values()):
            name = upload.name
            refusal = upload.spoil(refuse(RefusalCode.NEVER_RENAMED, name=name.text, final=name.final))
            self._terms.metrics.refused(refusal.code)
            await self._abandon(upload, refusal.code)
            await self.tell(refusal)
        self._waiting.clear()

    async def tell(self, refusal: GateRefusal) -> None:
        """Leave an event of a refusal that the owner has to hear of."""
        if not refusal.told or self._events_left <= 0:
            return
        self._events_left -= 1
        file = RefusedFile(name=refusal.name, size=refusal.size, reason=str(refusal))
        await self._write(refused_event(self._client, file, at=self._terms.clock(), zone=self._terms.zone))

    async def _write(self, event: Event) -> None:
        try:
            await asyncio.to_thread(self._terms.spool.tell, event)
        except OSError as error:
            # The client has its answer all the same; the log is what is left to say it with.
            self._log.error("event.lost", kind=event.kind, event_id=event.event_id, errno=error.errno)

    async def _accept(self, upload: Upload) -> None:
        at = self._terms.clock()
        sidecar = sidecar_of(self._client, upload, at=at, zone=self._terms.zone)
        try:
            await upload.accept(sidecar)
        except GateRefusal as refusal:
            await self._abandon(upload, refusal.code)
            raise
        self._accepted[upload.name.text] = Sight(size=upload.size, seen_at=at)
        self._terms.recent.forget(self._client.campaign_id)
        self._terms.metrics.accepted(upload.size)
        self._log.info("upload.accepted", upload_id=upload.id, size=upload.size, sha256=upload.sha256)

    async def _abandon(self, upload: Upload, why: str) -> None:
        await upload.abandon()
        self._terms.metrics.abandoned(why, upload.size)
        self._log.info("upload.abandoned", upload_id=upload.id, size=upload.size, why=why)

    async def _rename_accepted(self, old: UploadName, new_path: bytes) -> None:
        found = await self.sight(old)
        new = self._terms.names.find(new_path)
        if new is not None:
            self._accepted[new.text] = found  # so that the client finds what it believes to have renamed

    def _unfinished(self, text: str) -> Upload | None:
        if text in self._waiting:
            return self._waiting[text]
        return next((upload for upload in self._open if upload.name.text == text), None)

    def _own(self) -> dict[str, Sight]:
        unfinished = [*self._waiting.values(), *self._open]
        return self._accepted | {upload.name.text: self.sight_of(upload) for upload in unfinished}
