"""How often the engine has started a job: it is given up after so many starts, and this says which do not count.

The only column of the engine's tables that we write to.
"""

from collections.abc import Collection

import sqlalchemy as sa


def forgive(connection: sa.Connection, job_ids: Collection[str]) -> None:
    """Begin to count anew for jobs that got on: they did not kill their workers, whoever did.

    Args:
        connection: the transaction that writes down how far they got.
        job_ids: the jobs.
    """
    _set(connection, "0", "workflow_uuid = :id AND recovery_attempts > 1", job_ids)


def forgive_what_runs(connection: sa.Connection, executor_id: str) -> None:
    """The same for all jobs that a worker leaves pending, because it was told to stop."""
    _set(connection, "0", "status = 'PENDING' AND executor_id = :id", [executor_id])


def forgive_before_restart(connection: sa.Connection, executor_id: str) -> None:
    """Count no death for jobs of a worker that ran when PostgreSQL itself went down: it took the worker along."""
    _set(
        connection,
        "greatest(recovery_attempts - 1, 0)",
        "status = 'PENDING' AND executor_id = :id "
        "AND to_timestamp(started_at_epoch_ms / 1000.0) < pg_postmaster_start_time()",
        [executor_id],
    )


def count_starts(connection: sa.Connection, job_ids: Collection[str], starts: int) -> None:
    """Count so many starts more than there were."""
    _set(connection, f"recovery_attempts + {starts:d}", "workflow_uuid = :id", job_ids)


def _set(connection: sa.Connection, value: str, condition: str, subjects: Collection[str]) -> None:
    table = "workflow_status" if connection.dialect.name == "sqlite" else "dbos.workflow_status"
    statement = sa.text(f"UPDATE {table} SET recovery_attempts = {value} WHERE {condition}")  # noqa: S608 - ours
    if subjects:
        connection.execute(statement, [{"id": subject} for subject in subjects])
