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
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial

from pipeline import workbook_job
from pipeline.lost_jobs import LostJobs, by_subject, subject_of
from pipeline.standing_batches import StandingBatches
from pipeline.workflow import Pipeline, give_up
from postern.errors import TransientError
from postern.logs import get_logger
from storage.job_records import DeadJob, JobRecords
from storage.jobs import INDEX_MESSAGES, MAKE_WORKBOOK, PROCESS_UPLOAD, SEND_NOTICE
from storage.ledger import unfinished
from storage.takeover import alone

_MOST = 500  # of a kind at a time
_MANY = 20_000  # ids of a kind, of which those without a job are looked for
_REST = timedelta(minutes=15)  # before a job that was given up may kill one more worker
_WORKBOOKS = timedelta(days=1)  # so far back are workbooks looked for

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
        self._most = most
        self._lost = LostJobs(pipeline, records, rest=rest, most=most)
        self._batches = StandingBatches(pipeline, records, self._lost, most=most)
        self._workbooks_behind = ""  # uploads with higher ids come next
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
                self._batches.retries,
                self._batches.sending,
                self._batches.stopped,
                self._batches.held,
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
        live = self._lost.subjects(PROCESS_UPLOAD) if found else set()
        given_up = by_subject(dead, PROCESS_UPLOAD)
        count = 0
        for upload_id in [upload_id for upload_id in found if upload_id not in live][: self._most]:
            if upload_id in given_up:
                count += self._end(partial(give_up, self._pipeline), given_up[upload_id])
            else:
                count += self._lost.leave(PROCESS_UPLOAD, upload_id, upload_id)
        return count

    def _notices(self, before: datetime, dead: list[DeadJob]) -> int:
        found = unfinished.pending_notices(self._pipeline.database, before=before, most=_MANY)
        # A mail that is sent again has a job of its own: `<notice id>:<number of the retry>`.
        live = {subject_of(job_id) for job_id in self._records.live(SEND_NOTICE)} if found else set()
        given_up = by_subject(dead, SEND_NOTICE)
        wanted = {
            given_up[notice_id].id if notice_id in given_up else notice_id: notice_id
            for notice_id in found
            if notice_id not in live
        }
        return self._lost.leave_all(SEND_NOTICE, wanted, dead)

    def _indexes(self, before: datetime, dead: list[DeadJob]) -> int:
        found = unfinished.unindexed_batches(self._pipeline.database, before=before, most=_MANY)
        return self._lost.leave_all(INDEX_MESSAGES, {f"index:{batch_id}": batch_id for batch_id in found}, dead)

    def _workbooks(self, before: datetime, dead: list[DeadJob]) -> int:
        pipeline = self._pipeline
        binder = workbook_job.Bookbinder(settings=pipeline.settings, database=pipeline.database, blobs=pipeline.blobs)
        given_up = by_subject(dead, MAKE_WORKBOOK)
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
            count += self._lost.leave(MAKE_WORKBOOK, job_id, wanted[job_id])
        return count

    def _forget_what_is_over(self, dead: Iterable[DeadJob]) -> None:
        """Forget jobs that died after all was done, or about what another one has done; a workbook's has its end."""
        rested = [job for job in dead if job.kind != MAKE_WORKBOOK.name and not self._lost.rests(job)]
        for job in rested[: self._most]:
            if unfinished.is_finished(self._pipeline.database, subject_of(job.id)):
                self._records.forget([job.id])
                log.info("job.forgotten", job=job.id, kind=job.kind)

    def _end(self, bring_to_an_end: Callable[[str], object], job: DeadJob) -> int:
        """Bring to an end what a job that was given up was about, and forget the job."""
        try:
            bring_to_an_end(subject_of(job.id))
        except TransientError:
            raise
        except Exception as error:  # one that cannot be ended must not hold up the others
            log.critical("reconciler.stuck", job=job.id, exc_info=error)
            return 0
        self._records.forget([job.id])
        return 1
