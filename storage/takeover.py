"""Who runs jobs, and who takes over when a worker dies.

SQLite: one worker process, by an exclusive file lock, under a fixed executor id; the next one to start runs what
the last one left. PostgreSQL: every worker holds a session-level advisory lock on its own executor id; kill -9
closes the session, which frees the lock, and within half a second another worker takes the lock and the work. Where
its whole host vanishes, the server notices within some ten seconds (`storage.database`).
A worker that lost its lock session may have been taken over already, so it exits at once (status 70): a process
that was frozen must not go on as if nothing had happened.
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from postern.errors import PosternError
from postern.logs import get_logger
from storage.database import Database
from storage.job_starts import forgive_before_restart

SQLITE_EXECUTOR = "worker"
LOST_LOCK_STATUS = 70  # EX_SOFTWARE of sysexits.h: the supervisor starts a fresh worker
_CHECK_INTERVAL = 0.3  # seconds; a campaign stands still for so long, and may catch up with 0.25 s of its rate

log = get_logger(__name__)


@contextmanager
def sqlite_worker_lock(path: Path) -> Iterator[str]:
    """Be the only worker on this SQLite database.

    Yields:
        the executor id.

    Raises:
        PosternError: another worker runs already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PosternError(
                f"Another worker runs on this database already ({path} is locked). SQLite takes one worker; "
                "use PostgreSQL (POSTERN_DATABASE_URL) for more."
            ) from None
        yield SQLITE_EXECUTOR


@contextmanager
def alone(database: Database, task: str) -> Iterator[bool]:
    """Whether this worker is the one to do a task now; no other one does it until the block ends.

    On SQLite there is one worker anyway. On PostgreSQL a session's lock tells, which goes with its holder. No
    transaction is open meanwhile: a task may take long, and one that is idle keeps the server from tidying up.
    """
    if database.is_sqlite:
        yield True
        return
    with database.session() as session:
        query = sa.text("SELECT pg_try_advisory_lock(hashtextextended(:task, 1))")
        is_ours = session.execute(query, {"task": task}).scalar_one()
        try:
            yield is_ours
        finally:
            if is_ours:  # the end of the session would do, a moment later
                session.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:task, 1))"), {"task": task})


def is_alive(database: Database, executor_id: str) -> bool:
    """Whether another worker lives, as far as its lock tells: a frozen one does, one on a vanished host soon does not.

    On SQLite none does.
    """
    if database.is_sqlite or not executor_id:
        return False
    # Shared: many may ask about one that is dead at once.
    query = sa.text("SELECT pg_try_advisory_xact_lock_shared(hashtextextended(:id, 0))")
    with database.write() as connection:
        return not connection.execute(query, {"id": executor_id}).scalar_one()


class Membership:
    """A worker's seat among the workers on one PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self.executor_id = f"worker-{uuid.uuid4()}"
        # One connection of its own, without a pool: the lock lives and dies with this session.
        engine = sa.create_engine(database.engine.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._session = engine.connect()
        self._left = threading.Event()
        self._watcher: threading.Thread | None = None
        if not self._try_lock(self.executor_id):
            raise PosternError(f"The executor id {self.executor_id} is taken.")

    def watch(self, recover: Callable[[str], int]) -> None:
        """Watch over the others, and over our own session, from a thread.

        Args:
            recover: runs again what an executor left pending; returns how many jobs.
        """
        self._watcher = threading.Thread(target=self._watch, args=(recover,), name="takeover", daemon=True)
        self._watcher.start()

    def leave(self) -> None:
        """Give the seat up; only after this worker runs nothing any more."""
        self._left.set()
        if self._watcher is not None:
            self._watcher.join()  # a session is one thread's at a time
        self._session.close()

    def _watch(self, recover: Callable[[str], int]) -> None:
        while not self._left.wait(_CHECK_INTERVAL):
            try:
                self._take_over_the_dead(recover)
            except Exception as error:  # noqa: BLE001 - whatever it was: unwatched, this worker must not go on
                log.critical("worker.lock_session_lost", error=str(error))
                os._exit(LOST_LOCK_STATUS)

    def _take_over_the_dead(self, recover: Callable[[str], int]) -> None:
        for executor_id in self._executors_with_work():
            if executor_id == self.executor_id or not self._try_lock(executor_id):
                continue
            forgive_before_restart(self._session, executor_id)
            jobs = recover(executor_id)
            log.warning("worker.taken_over", executor=executor_id, jobs=jobs)
            self._session.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:id, 0))"), {"id": executor_id})

    def _executors_with_work(self) -> list[str]:
        rows = self._session.execute(
            sa.text("SELECT DISTINCT executor_id FROM dbos.workflow_status WHERE status = 'PENDING'")
        )
        return [row.executor_id for row in rows if row.executor_id]

    def _try_lock(self, executor_id: str) -> bool:
        taken: bool = self._session.execute(
            sa.text("SELECT pg_try_advisory_lock(hashtextextended(:id, 0))"), {"id": executor_id}
        ).scalar_one()
        return taken
