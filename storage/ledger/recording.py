"""What a worker writes down of its hand-overs, all at once."""

from collections.abc import Collection, Sequence
from datetime import datetime

from storage.database import Database
from storage.job_starts import forgive
from storage.ledger.putting_back import put_back
from storage.ledger.results import Result, write_results


def record(
    database: Database,
    results: Sequence[tuple[str, Result]],
    waits: Collection[tuple[str, str]],
    jobs: Collection[str],
    *,
    now: datetime,
) -> None:
    """Write what came of hand-overs, in one transaction. Doing it twice changes nothing more.

    Args:
        database: the database.
        results: tokens of claims, and what came of attempts.
        waits: tokens of claims, and attempts that were certainly not handed over.
        jobs: those that this shows to get on; see `forgive`.
        now: the time.
    """
    with database.write() as connection:
        write_results(connection, results, now=now)
        put_back(connection, waits, now=now)
        forgive(connection, jobs)
