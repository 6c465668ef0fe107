"""What the engine's rows say of jobs: which wait or run, which are given up, and which are over and can go.

The engine itself is asked by its client, never by its tables, but for one count (`give_one_start`). Nobody but
`pipeline.reconciler`, `pipeline.retention` and what shows an operator the state of things needs any of this: programs
leave jobs and do them.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer
from dbos import error as dbos_errors

from postern.errors import TransientError
from storage.database import Database, server_url
from storage.engine import APPLICATION, MAX_RECOVERIES
from storage.job_starts import count_starts
from storage.jobs import JobKind

_LIVE = ["ENQUEUED", "PENDING", "DELAYED"]
_DEAD = ["MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"]
_OVER = ["SUCCESS", "CANCELLED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadJob:
    """A job that the engine has given up: it killed its workers, or ended with a bug."""

    id: str
    kind: str  # the name of its workflow
    starts: int
    died_at: datetime
    has_killed: bool  # else it ended with an exception


class JobRecords:
    """The engine's memory. Connects when first used."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)
        self._client = DBOSClient(
            system_database_url=server_url(database_url),
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )

    def live(self, kind: JobKind) -> set[str]:
        """The ids of the jobs of a kind that wait or run."""
        with _translated():
            found = self._client.list_workflows(name=kind.name, status=_LIVE, load_input=False, load_output=False)
        return {job.workflow_id for job in found}

    def dead(self, *kinds: JobKind) -> list[DeadJob]:
        """The jobs that are given up, of some kinds or of all, oldest first."""
        names = [kind.name for kind in kinds] or None
        with _translated():
            found = self._client.list_workflows(name=names, status=_DEAD, load_input=False, load_output=False)
        return [
            DeadJob(
                id=job.workflow_id,
                kind=job.name,
                starts=job.recovery_attempts or 0,
                died_at=datetime.fromtimestamp((job.completed_at or job.updated_at or 0) / 1000, UTC),
                has_killed=job.status == _DEAD[0],
            )
            for job in found
        ]

    def known(self, job_ids: Collection[str]) -> set[str]:
        """Which of these jobs there are, in whatever state, but for those that ended with their work undone."""
        if not job_ids:
            return set()
        with _translated():
            found = self._client.list_workflows(workflow_ids=list(job_ids), load_input=False)
        return {job.workflow_id for job in found if job.output is not False}

    def forget(self, job_ids: Collection[str]) -> None:
        """Remove those of these jobs that are over or given up, so that they can be left again under the same id."""
        self._remove(self._listed(job_ids, [*_OVER, *_DEAD]))

    def forget_over(self, before: datetime, *, most: int) -> int:
        """Remove up to so many jobs that were done before that time; returns how many."""
        with _translated():
            found = self._client.list_workflows(
                status=_OVER, completed_before=before.isoformat(), limit=most, load_input=False, load_output=False
            )
        self._remove([job.workflow_id for job in found])
        return len(found)

    def give_one_start(self, job_ids: Collection[str]) -> None:
        """Let jobs that were given up before, and are left again, take along one worker at most."""
        with self._database.write() as connection:
            count_starts(connection, job_ids, MAX_RECOVERIES)

    def _listed(self, job_ids: Collection[str], status: list[str] | None = None) -> list[str]:
        if not job_ids:
            return []
        with _translated():
            found = self._client.list_workflows(
                workflow_ids=list(job_ids), status=status, load_input=False, load_output=False
            )
        return [job.workflow_id for job in found]

    def _remove(self, job_ids: list[str]) -> None:
        if job_ids:
            with _translated():
                self._client.delete_workflows(job_ids)

    def close(self) -> None:
        """Close its connections."""
        self._client.destroy()
        self._database.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, dbos_errors.DBOSException) as error:
        raise TransientError(f"The engine's tables did not answer: {type(error).__name__}") from error
