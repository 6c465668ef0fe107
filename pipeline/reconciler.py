"""The reconciler: whatever is not finished has somebody at it, or gets somebody.

The engine never loses a job that it was left. This is for the day when it does, all the same: its rows were deleted,
restored from an older copy, or a job was given up because its workers kept dying. Now and then one of the workers
compares the ledger with the engine's jobs. What is open for a while and has no job gets the same one again, which is
harmless: every job asks the ledger what is left to do.

Jobs that are given up are an alarm, each (`job.dead`). An upload then fails with a support id, a workbook gets the
empty blob that says that there is none. Mails and messages must not be lost: after a rest their job may take along
one more worker, and so on, until somebody mends it. What died when nothing was left to be done is forgotten.

What a worker remembers, and where it goes on in the next pass, keeps a pass small however much there is.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from pipeline import workbook_job
from pipeline.workflow import Pipeline, give_up
from postern.errors import TransientError
from postern.logs import get_logger
from storage.job_records import DeadJob, JobRecords
from storage.jobs import (
    END_UNSENT,
    ENQUEUE_RETRIES,
    INDEX_MESSAGES,
    MAKE_WORKBOOK,
    PROCESS_UPLOAD,
    SEND_AGAIN,
    SEND_CHUNK,
    SEND_NOTICE,
    JobKind,
)
from storage.ledger import unfinished
from storage.ledger.batches import enqueue_chunk_after
from storage.takeover import alone

_MOST = 500  # of a kind at a time
_MANY = 20_000  # ids of a kind, of which those without a job are looked for
_REST = timedelta(minutes=15)  # before a job that was given up may kill one more worker
_WORKBOOKS = timedelta(days=1)  # so far back are workbooks looked for
_BATCHES = timedelta(days=30)
_SENDING = (SEND_CHUNK, SEND_AGAIN, ENQUEUE_RETRIES)  # each sees to what its batch still has to send

log = get_logger(__name__)


class Reconciler:
    """Compares the ledger with the engine's jobs; remembers what it need not look at again."""

    def __init__(
        self, pipeline: Pipeline, records: JobRecords, *, grace: timedelta, rest: timedelta = _REST, most: int = _MOST
    ) -> None:
        """Take what it works with.

        Args:
            pipeline: ledger, jobs, blobs and the clock.
            records: the engine's jobs.
            grace: what is younger is left to the way that everything goes.
            rest: before a job that was given up may take along one more worker.
            most: of a kind at a time.
        """
        self._pipeline = pipeline
        self._records = records
        self._grace = grace
        self._rest = rest
        self._most = most
        self._places: dict[str, int | None] = {}  # batches below this number come next; None: from the last one on
        self._workbooks_behind = ""  # uploads with higher ids come next
        self._sent: dict[str, datetime] = {}  # batches of which nothing is left, and as of when
        self._ended: set[str] = set()  # batches that were stopped, and of which nothing waits any more
        self._told: set[tuple[str, datetime]] = set()  # dead jobs that an alarm was given for

    def reconcile(self) -> int:
        """Compare once, unless another worker is just at it.

        Returns:
            how many jobs were left again or brought to an end.

        Raises:
            TransientError: the database is away.
        """
        with alone(self._pipeline.database, "reconciler") as is_ours:
            if not is_ours:
                return 0
            dead = self._records.dead()
            self._give_alarm(dead)
            before = self._pipeline.now() - self._grace
            compare = (
                self._uploads,
                self._notices,
                self._retries,
                self._batches,
                self._stopped,
                self._indexes,
                self._workbooks,
            )
            count = sum(each(before, dead) for each in compare)
            self._forget_what_is_over(dead)
            return count

    async def keep_on(self, seconds: float, stop: asyncio.Event) -> None:
        """Compare every so many seconds, until told to stop."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), seconds)
            except TimeoutError:
                await asyncio.to_thread(self._reconcile_in_peace)

    def _reconcile_in_peace(self) -> None:
        try:
            self.reconcile()
        except TransientError as error:
            log.warning("reconciler.waits", error=str(error))
        except Exception as error:  # a bug here must not take a working worker along
            log.critical("reconciler.failed", exc_info=error)

    def _give_alarm(self, dead: Iterable[DeadJob]) -> None:
        for job in dead:
            if (job.id, job.died_at) not in self._told:
                self._told.add((job.id, job.died_at))
                log.critical("job.dead", job=job.id, kind=job.kind, starts=job.starts, has_killed=job.has_killed)

    def _uploads(self, before: datetime, dead: list[DeadJob]) -> int:
        found = unfinished.open_uploads(self._pipeline.database, before=before, most=_MANY)
        live = self._subjects(PROCESS_UPLOAD) if found else set()
        given_up = _by_subject(dead, PROCESS_UPLOAD)
        count = 0
        for upload_id in [upload_id for upload_id in found if upload_id not in live][: self._most]:
            if upload_id in given_up:
                count += self._end(partial(give_up, self._pipeline), given_up[upload_id])
            else:
                count += self._leave(PROCESS_UPLOAD, upload_id, upload_id)
        return count

    def _notices(self, before: datetime, dead: list[DeadJob]) -> int:
        found = unfinished.pending_notices(self._pipeline.database, before=before, most=_MANY)
        # A mail that is sent again has a job of its own: `<notice id>:<number of the retry>`.
        live = {_subject(job_id) for job_id in self._records.live(SEND_NOTICE)} if found else set()
        given_up = _by_subject(dead, SEND_NOTICE)
        wanted = {
            given_up[notice_id].id if notice_id in given_up else notice_id: notice_id
            for notice_id in found
            if notice_id not in live
        }
        return self._leave_all(SEND_NOTICE, wanted, dead)

    def _indexes(self, before: datetime, dead: list[DeadJob]) -> int:
        found = unfinished.unindexed_batches(self._pipeline.database, before=before, most=_MANY)
        return self._leave_all(INDEX_MESSAGES, {f"index:{batch_id}": batch_id for batch_id in found}, dead)

    def _workbooks(self, before: datetime, dead: list[DeadJob]) -> int:
        pipeline = self._pipeline
        binder = workbook_job.Bookbinder(settings=pipeline.settings, database=pipeline.database, blobs=pipeline.blobs)
        given_up = _by_subject(dead, MAKE_WORKBOOK)
        count = sum(self._end(partial(workbook_job.give_up, binder), job) for job in given_up.values())
        lately = unfinished.rejected_lately(
            pipeline.database,
            after=pipeline.now() - _WORKBOOKS,
            before=before,
            behind=self._workbooks_behind,
            most=self._most,
        )
        self._workbooks_behind = lately[-1][0] if len(lately) == self._most else ""
        wanted = {
            f"workbook:{upload_id}": upload_id
            for upload_id, has_workbook in lately
            if has_workbook and upload_id not in given_up
        }
        for job_id in wanted.keys() - self._records.known(wanted):
            count += self._leave(MAKE_WORKBOOK, job_id, wanted[job_id])
        return count

    def _retries(self, before: datetime, dead: list[DeadJob]) -> int:
        """What was set back to be retried is enqueued; which others were to follow, the lost job alone knew."""
        found = unfinished.retried_batches(self._pipeline.database, before=before, most=self._most)
        live = self._subjects(ENQUEUE_RETRIES) if found else set()
        given_up = {_subject(job.id): job for job in dead if job.kind == ENQUEUE_RETRIES.name}
        count = 0
        for batch_id, number in found:
            job = given_up.get(batch_id)
            if batch_id not in live and not (job is not None and self._rests(job)):
                job_id = f"retry:{batch_id}:{number}"
                count += self._leave(ENQUEUE_RETRIES, job_id, batch_id, 0, "", is_dead=job is not None)
        return count

    def _batches(self, before: datetime, dead: list[DeadJob]) -> int:
        """Chains of chunks that stand still go on at the first row that is not sent."""
        found = unfinished.sending_batches(
            self._pipeline.database,
            after=self._pipeline.now() - _BATCHES,
            before=before,
            below=self._places.get("sending"),
            most=10 * self._most,
        )
        standing = [batch for batch in found if self._sent.get(batch.id) != batch.updated_at]
        live = self._subjects(*_SENDING) if standing else set()
        standing = [batch for batch in standing if batch.id not in live]
        return sum(
            self._go_on(batch, _senders_given_up(batch, dead)) for batch in self._part("sending", found, standing)
        )

    def _part(
        self, what: str, found: Sequence[unfinished.OpenBatch], open_ones: Sequence[unfinished.OpenBatch]
    ) -> Sequence[unfinished.OpenBatch]:
        """The batches to look at in this pass, of those found that may be open; the next pass goes on behind them."""
        part = open_ones[: self._most]
        if len(open_ones) > self._most:
            self._places[what] = part[-1].number
        else:
            self._places[what] = found[-1].number if len(found) == 10 * self._most else None
        return part

    def _go_on(self, batch: unfinished.OpenBatch, given_up: list[DeadJob]) -> int:
        pipeline, records = self._pipeline, self._records
        row = unfinished.first_unsent_row(pipeline.database, batch.number)
        if row is None:
            self._sent[batch.id] = batch.updated_at
            return 0
        if any(self._rests(job) for job in given_up):
            return 0
        job_id = f"chunk:{batch.id}:{row}"
        records.forget([job_id, *(job.id for job in given_up)])
        enqueue_chunk_after(pipeline.database, pipeline.jobs, batch.id, row - 1, batch.rate)
        return self._left(SEND_CHUNK, job_id, is_dead=bool(given_up))

    def _stopped(self, before: datetime, dead: list[DeadJob]) -> int:
        """What waits of a batch that was cancelled, or of a deleted campaign, ends; what is in doubt is settled."""
        database = self._pipeline.database
        found = unfinished.stopped_batches(
            database,
            after=self._pipeline.now() - _BATCHES,
            before=before,
            below=self._places.get("stopped"),
            most=10 * self._most,
        )
        part = self._part("stopped", found, [batch for batch in found if batch.id not in self._ended])
        ending, sending = (self._subjects(END_UNSENT), self._subjects(*_SENDING)) if part else (set(), set())
        wanted, count = {}, 0
        for batch in part:
            is_waiting, doubts = unfinished.has_waiting(database, batch.number), None
            if batch.id not in sending:
                doubts = unfinished.rows_in_doubt(database, batch.number)
                if not is_waiting and doubts is None:
                    self._ended.add(batch.id)
            if is_waiting and not {batch.id, batch.campaign_id} & ending:
                wanted[f"end:{batch.id}"] = batch.id
            if doubts is not None:
                count += self._settle(batch, doubts, _senders_given_up(batch, dead))
        return count + self._leave_all(END_UNSENT, wanted, dead)

    def _settle(self, batch: unfinished.OpenBatch, rows: tuple[int, int], given_up: list[DeadJob]) -> int:
        """Leave a chunk for these rows of a stopped batch: it asks about what is in doubt, and sends nothing."""
        if any(self._rests(job) for job in given_up):
            return 0
        job_id = f"chunk:{batch.id}:{rows[0]}"
        self._records.forget([job_id, *(job.id for job in given_up)])
        with self._pipeline.database.write() as connection:
            self._pipeline.jobs.enqueue(connection, SEND_CHUNK, job_id, batch.id, *rows, partition=batch.campaign_id)
        return self._left(SEND_CHUNK, job_id, is_dead=bool(given_up))

    def _forget_what_is_over(self, dead: Iterable[DeadJob]) -> None:
        """Forget jobs that died after all was done, or about what another one has done; a workbook's has its end."""
        rested = [job for job in dead if job.kind != MAKE_WORKBOOK.name and not self._rests(job)]
        for job in rested[: self._most]:
            if unfinished.is_finished(self._pipeline.database, _subject(job.id)):
                self._records.forget([job.id])
                log.info("job.forgotten", job=job.id, kind=job.kind)

    def _subjects(self, *kinds: JobKind) -> set[str]:
        """What the jobs of some kinds that wait or run are about."""
        return {_subject(job_id) for kind in kinds for job_id in self._records.live(kind)}

    def _leave_all(self, kind: JobKind, wanted: Mapping[str, str], dead: Iterable[DeadJob]) -> int:
        """Leave those of the wanted jobs, by their ids, that neither wait nor run."""
        live = self._records.live(kind) if wanted else set()
        given_up = {job.id: job for job in dead}
        count = 0
        for job_id, subject in wanted.items():
            job = given_up.get(job_id)
            if job_id not in live and not (job is not None and self._rests(job)) and count < self._most:
                count += self._leave(kind, job_id, subject, is_dead=job is not None)
        return count

    def _leave(self, kind: JobKind, job_id: str, subject: str, *rest: object, is_dead: bool = False) -> int:
        self._records.forget([job_id])
        with self._pipeline.database.write() as connection:
            self._pipeline.jobs.enqueue(connection, kind, job_id, subject, *rest)
        return self._left(kind, job_id, is_dead=is_dead)

    def _left(self, kind: JobKind, job_id: str, *, is_dead: bool) -> int:
        if is_dead:
            self._records.give_one_start([job_id])
        log.warning("job.left_again", job=job_id, kind=kind.name)
        return 1

    def _end(self, bring_to_an_end: Callable[[str], object], job: DeadJob) -> int:
        """Bring to an end what a job that was given up was about, and forget the job."""
        try:
            bring_to_an_end(_subject(job.id))
        except TransientError:
            raise
        except Exception as error:  # one that cannot be ended must not hold up the others
            log.critical("reconciler.stuck", job=job.id, exc_info=error)
            return 0
        self._records.forget([job.id])
        return 1

    def _rests(self, job: DeadJob) -> bool:
        return self._pipeline.now() - job.died_at < self._rest


def _senders_given_up(batch: unfinished.OpenBatch, dead: Iterable[DeadJob]) -> list[DeadJob]:
    names = [kind.name for kind in _SENDING]
    return [job for job in dead if job.kind in names and _subject(job.id) == batch.id]


def _by_subject(dead: Iterable[DeadJob], kind: JobKind) -> dict[str, DeadJob]:
    return {_subject(job.id): job for job in dead if job.kind == kind.name}


def _subject(job_id: str) -> str:
    """The upload, notice or batch that a job is about: `chunk:<batch id>:<row>`, `<upload id>`, `<upload id>:2`."""
    return next((part for part in job_id.split(":") if "_" in part), job_id)
