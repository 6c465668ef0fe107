"""What the reconciler compares of batches: chains of chunks that stand, retries on their way, what was stopped.

A worker remembers which batches it need not look at again, and where it goes on in the next pass; so a pass stays
small however many batches there are.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from pipeline.lost_jobs import LostJobs, by_subject, subject_of
from pipeline.workflow import Pipeline
from storage.job_records import DeadJob, JobRecords
from storage.jobs import END_UNSENT, ENQUEUE_RETRIES, SEND_AGAIN, SEND_CHUNK, SEND_OTP, SEND_SINGLE, SETTLE_DOUBTS
from storage.ledger import unfinished
from storage.ledger.batches import enqueue_chunk_after

_BATCHES = timedelta(days=30)
# Each sees to what its batch still has to send, or to settle; who leaves another comes before that one.
_SENDING = (ENQUEUE_RETRIES, SEND_AGAIN, SEND_CHUNK, SEND_OTP, SEND_SINGLE, SETTLE_DOUBTS)


class StandingBatches:
    """Compares batches with the jobs that send or end their messages."""

    def __init__(self, pipeline: Pipeline, records: JobRecords, lost: LostJobs, *, most: int) -> None:
        """Take what it works with.

        Args:
            pipeline: ledger, jobs and the clock.
            records: the engine's jobs.
            lost: leaves them again.
            most: of a kind at a time.
        """
        self._pipeline = pipeline
        self._records = records
        self._lost = lost
        self._most = most
        self._places: dict[str, int | None] = {}  # batches below this number come next; None: from the last one on
        self._sent: dict[str, datetime] = {}  # batches of which nothing is left, and as of when
        self._ended: set[str] = set()  # batches that were stopped, and of which nothing waits any more

    def retries(self, before: datetime, dead: list[DeadJob]) -> int:
        """What was set back to be retried is enqueued; which others were to follow, the lost job alone knew."""
        found = unfinished.retried_batches(self._pipeline.database, before=before, most=self._most)
        live = self._lost.subjects(ENQUEUE_RETRIES) if found else set()
        given_up = by_subject(dead, ENQUEUE_RETRIES)
        count = 0
        for batch_id, number in found:
            job = given_up.get(batch_id)
            if batch_id not in live and not (job is not None and self._lost.rests(job)):
                self._records.forget([job.id] if job is not None else [])
                job_id = f"retry:{batch_id}:{number}"
                count += self._lost.leave(ENQUEUE_RETRIES, job_id, batch_id, 0, "", is_dead=job is not None)
        return count

    def sending(self, before: datetime, dead: list[DeadJob]) -> int:
        """Chains of chunks that stand still go on at the first row that is not sent."""
        found = unfinished.sending_batches(
            self._pipeline.database,
            after=self._pipeline.now() - _BATCHES,
            before=before,
            below=self._places.get("sending"),
            most=10 * self._most,
        )
        standing = [batch for batch in found if self._sent.get(batch.id) != batch.updated_at]
        live = self._lost.subjects(*_SENDING) if standing else set()
        standing = [batch for batch in standing if batch.id not in live]
        return sum(
            self._go_on(batch, _senders_given_up(batch, dead)) for batch in self._part("sending", found, standing)
        )

    def stopped(self, before: datetime, dead: list[DeadJob]) -> int:
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
        ending, sending = (self._lost.subjects(END_UNSENT), self._lost.subjects(*_SENDING)) if part else (set(), set())
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
        return count + self._lost.leave_all(END_UNSENT, wanted, dead)

    def held(self, before: datetime, dead: list[DeadJob]) -> int:
        """What is held of a deleted campaign is dropped; its deletion has dropped only the first few."""
        found = unfinished.deleted_with_held(self._pipeline.database, before=before, most=self._most)
        live = self._lost.subjects(END_UNSENT) if found else set()
        wanted = {f"end:{campaign_id}": campaign_id for campaign_id in found if campaign_id not in live}
        return self._lost.leave_all(END_UNSENT, wanted, dead)

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
        if any(self._lost.rests(job) for job in given_up):
            return 0
        job_id = f"chunk:{batch.id}:{row}"
        records.forget([job_id, *(job.id for job in given_up)])
        enqueue_chunk_after(pipeline.database, pipeline.jobs, batch.id, row - 1, batch.rate)
        return self._lost.left(SEND_CHUNK, job_id, is_dead=bool(given_up))

    def _settle(self, batch: unfinished.OpenBatch, rows: tuple[int, int], given_up: list[DeadJob]) -> int:
        """Leave a chunk for these rows of a stopped batch: it asks about what is in doubt, and sends nothing."""
        if any(self._lost.rests(job) for job in given_up):
            return 0
        job_id = f"chunk:{batch.id}:{rows[0]}"
        self._records.forget([job_id, *(job.id for job in given_up)])
        with self._pipeline.database.write() as connection:
            self._pipeline.jobs.enqueue(connection, SEND_CHUNK, job_id, batch.id, *rows, partition=batch.campaign_id)
        return self._lost.left(SEND_CHUNK, job_id, is_dead=bool(given_up))


def _senders_given_up(batch: unfinished.OpenBatch, dead: Iterable[DeadJob]) -> list[DeadJob]:
    names = [kind.name for kind in _SENDING]
    return [job for job in dead if job.kind in names and subject_of(job.id) == batch.id]
