"""Leaves a job again that is missing, under the id that it had; one that was given up rests before, and starts once."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from pipeline.workflow import Pipeline
from postern.logs import get_logger
from storage.job_records import DeadJob, JobRecords
from storage.jobs import JobKind

log = get_logger(__name__)


class LostJobs:
    """Compares what is wanted with the engine's jobs, and leaves what is missing."""

    def __init__(self, pipeline: Pipeline, records: JobRecords, *, rest: timedelta, most: int) -> None:
        """Take what it works with.

        Args:
            pipeline: ledger, jobs and the clock.
            records: the engine's jobs.
            rest: before a job that was given up may take along one more worker.
            most: of a kind at a time.
        """
        self._pipeline = pipeline
        self._records = records
        self._rest = rest
        self._most = most

    def subjects(self, *kinds: JobKind) -> set[str]:
        """What the jobs of some kinds that wait or run are about."""
        return {subject_of(job_id) for kind in kinds for job_id in self._records.live(kind)}

    def leave_all(self, kind: JobKind, wanted: Mapping[str, str], dead: Iterable[DeadJob]) -> int:
        """Leave those of the wanted jobs, by their ids, that neither wait nor run."""
        live = self._records.live(kind) if wanted else set()
        given_up = {job.id: job for job in dead}
        count = 0
        for job_id, subject in wanted.items():
            job = given_up.get(job_id)
            if job_id not in live and not (job is not None and self.rests(job)) and count < self._most:
                count += self.leave(kind, job_id, subject, is_dead=job is not None)
        return count

    def leave(self, kind: JobKind, job_id: str, subject: str, *rest: object, is_dead: bool = False) -> int:
        """Leave one job, whatever was left of it before."""
        self._records.forget([job_id])
        with self._pipeline.database.write() as connection:
            self._pipeline.jobs.enqueue(connection, kind, job_id, subject, *rest)
        return self.left(kind, job_id, is_dead=is_dead)

    def left(self, kind: JobKind, job_id: str, *, is_dead: bool) -> int:
        """Note that a job was left again."""
        if is_dead:
            self._records.give_one_start([job_id])
        log.warning("job.left_again", job=job_id, kind=kind.name)
        return 1

    def rests(self, job: DeadJob) -> bool:
        """Whether it is too early to let a job that was given up take along one more worker."""
        return self._pipeline.now() - job.died_at < self._rest


def by_subject(dead: Iterable[DeadJob], kind: JobKind) -> dict[str, DeadJob]:
    """The jobs of a kind that were given up, by what they are about."""
    return {subject_of(job.id): job for job in dead if job.kind == kind.name}


def subject_of(job_id: str) -> str:
    """The upload, notice or batch that a job is about: `chunk:<batch id>:<row>`, `<upload id>`, `<upload id>:2`."""
    return next((part for part in job_id.split(":") if "_" in part), job_id)
