"""The engine: durable workflows and queues by DBOS Transact, and all that we know of DBOS.

A job is enqueued in the transaction that makes it necessary, so that neither exists without the other. A worker
that dies leaves its jobs pending; they are run again by the next worker (`storage.takeover`), from their beginning.
So every job is written to be done twice: it asks the ledger what is left to do, and each transition there happens
once. This module hides DBOS; nothing else imports it.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer
from typing_extensions import override

from postern.errors import PosternError, ProcessEndedError, TransientError
from postern.logs import get_logger
from storage.database import Database, server_url
from storage.job_starts import forgive_what_runs
from storage.jobs import JobBoard, JobKind, Queue

APPLICATION = "postern"
VERSION = "postern-1"  # raised by hand when a workflow changes shape; otherwise an upgrade would strand what is pending
# A job that took its worker along five times is given up, so that it cannot kill them all (`pipeline.reconciler` does
# the rest). An orderly stop does not count, nor does a restart of PostgreSQL.
MAX_RECOVERIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds
PATIENCE = 120.0  # seconds of trouble after which a job of a narrow queue lets the others go first
_POLL = {
    Queue.FILES: 0.2,
    Queue.WORKBOOKS: 0.5,
    Queue.OTP: 0.1,
    Queue.SINGLE: 0.2,
    Queue.BATCH: 0.2,
    Queue.NOTICES: 0.5,
    Queue.INDEXES: 0.5,
    Queue.DECISIONS: 0.2,
    Queue.DOUBTS: 0.5,
}  # seconds; start latency is about this
_WORKERS = {
    Queue.FILES: 1,
    Queue.WORKBOOKS: 1,
    Queue.OTP: 200,
    Queue.SINGLE: 200,
    Queue.BATCH: 200,
    Queue.NOTICES: 20,
    Queue.INDEXES: 4,
    Queue.DECISIONS: 4,
    Queue.DOUBTS: 200,
}  # at once in one process
# Of a campaign (a batch, for doubts) at once, in all processes, so that one that waits does not hold up the others. Of
# its chunks: one that is sent, and those whose last messages are not answered yet.
_OF_ONE = {Queue.OTP: 20, Queue.SINGLE: 20, Queue.BATCH: 8, Queue.DOUBTS: 10}

T = TypeVar("T")

log = get_logger(__name__)
_stopping: asyncio.Event | None = None  # set while this process is told to stop


class Jobs(JobBoard):
    """Leaves jobs for workers. Connects when first used; the tables must have been migrated."""

    def __init__(self, database_url: str) -> None:
        self._client = DBOSClient(
            system_database_url=server_url(database_url),
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )

    @override
    def enqueue(
        self, connection: sa.Connection, kind: JobKind, job_id: str, *arguments: Any, partition: str | None = None
    ) -> None:
        options: dict[str, Any] = {
            "workflow_name": kind.name,
            "queue_name": kind.queue.value,
            "workflow_id": job_id,
            "app_version": VERSION,
        }
        if partition is not None:
            options["queue_partition_key"] = partition
        self._client.enqueue_in_transaction(connection, options, *arguments)  # type: ignore[arg-type] # a TypedDict built in steps

    def close(self) -> None:
        """Close its connections."""
        self._client.destroy()


class Engine:
    """Runs jobs in this process. Register workflows first, then launch."""

    def __init__(self, database_url: str, *, executor_id: str) -> None:
        self._database_url = database_url
        self._executor_id = executor_id
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": server_url(database_url),
            "application_version": VERSION,
            "executor_id": executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            "max_executor_threads": 32,
        }
        DBOS(config=config)
        self._when_launched: list[Callable[[], None]] = []

    @property
    def executor_id(self) -> str:
        """Who this process is among the workers."""
        return self._executor_id

    def when_launched(self, call: Callable[[], None]) -> None:
        """Call this once jobs are being taken."""
        self._when_launched.append(call)

    def register(
        self,
        kind: JobKind,
        workflow: Callable[..., Coroutine[Any, Any, bool | None]],
        *,
        recoveries: int = MAX_RECOVERIES,
    ) -> None:
        """Say how a kind of job is done, before `launch`.

        Args:
            kind: of the job.
            workflow: does it; returns False where its work is left undone.
            recoveries: after so many it is given up.
        """
        DBOS.workflow(name=kind.name, max_recovery_attempts=recoveries)(workflow)

    async def launch(self, queues: Sequence[Queue]) -> None:
        """Start taking jobs from these queues. What this executor left pending is run again."""
        global _stopping  # noqa: PLW0603 - one engine a process, as DBOS is
        _stopping = asyncio.Event()
        DBOS.listen_queues([queue.value for queue in queues])
        DBOS.launch()
        for queue in Queue:
            await DBOS.register_queue_async(
                queue.value,
                worker_concurrency=_WORKERS[queue],
                partition_concurrency=_OF_ONE.get(queue),
                polling_interval_sec=_POLL[queue],
                on_conflict="always_update",
            )
        for call in self._when_launched:
            call()

    async def stop(self, timeout: float) -> None:
        """Take no more jobs; wait up to `timeout` seconds for those that run. The others stay pending."""
        if _stopping is not None:
            _stopping.set()
        await asyncio.to_thread(self._stop, int(timeout))

    def recover(self, executor_id: str) -> int:
        """Run again what a dead executor left pending; returns how many jobs that was.

        The public way (`resume`) would reset the count of recoveries, and a job that kills its worker would do so
        for ever; so this is the one private call into DBOS, and a test holds it.
        """
        if _stopping is not None and _stopping.is_set():
            return 0  # left to a worker that stays
        return len(DBOS._recover_pending_workflows([executor_id]))  # noqa: SLF001

    def _stop(self, timeout: int) -> None:
        DBOS.destroy(workflow_completion_timeout_sec=timeout)
        try:
            self._forgive_pending_jobs()
        except TransientError as error:
            log.warning("engine.jobs_not_forgiven", error=str(error))

    def _forgive_pending_jobs(self) -> None:
        """Begin to count anew for jobs that this worker leaves pending.

        They did not kill it. Otherwise a job that waits (for a mail server, say) would be given up after as many
        upgrades as it may be recovered.
        """
        database = Database(self._database_url)
        try:
            with database.write() as connection:
                forgive_what_runs(connection, self._executor_id)
        finally:
            database.dispose()


def this_job() -> str | None:
    """The id of the job that runs here; None outside of any."""
    return DBOS.workflow_id


async def persistently(function: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking function in a thread, and again while it raises `TransientError`, with growing pauses.

    A job waits so for a database or a provider that is away, for as long as it takes; the worker may die meanwhile,
    and the next one waits on.

    Raises:
        asyncio.CancelledError: see `pause`.
    """
    return await _repeatedly(lambda: asyncio.to_thread(function, *arguments), math.inf)


async def again_and_again(call: Callable[[], Awaitable[T]]) -> T:
    """The same for what is awaited, made anew for each try.

    Raises:
        asyncio.CancelledError: see `pause`.
        PosternError: processes that were asked ended as often as a job may take its worker along.
    """
    return await _repeatedly(call, math.inf)


async def patiently(function: Callable[..., object], *arguments: Any, patience: float = PATIENCE) -> bool:
    """Do the work of a whole job as `persistently` does, but for so many seconds of trouble at most.

    What cannot be done may be about this job alone, one blob that cannot be read, say; in a queue of few at once it
    must not hold up all others. The job then ends with its work undone, and `pipeline.reconciler` leaves it again, at
    the end of its queue.

    Returns:
        whether it went through.

    Raises:
        asyncio.CancelledError: see `pause`.
    """
    try:
        await _repeatedly(lambda: asyncio.to_thread(function, *arguments), patience)
    except TransientError as error:
        log.warning("job.left_for_later", job=DBOS.workflow_id, error=str(error))
        return False
    return True


async def _repeatedly(call: Callable[[], Awaitable[T]], patience: float) -> T:
    seconds, since, ends = _FIRST_PAUSE, math.inf, 0
    while True:
        try:
            return await call()
        except TransientError as error:
            since = min(since, time.monotonic())
            if time.monotonic() - since >= patience:
                raise
            ends += isinstance(error, ProcessEndedError)
            if ends > MAX_RECOVERIES:
                raise PosternError("It may be what ends the processes that are asked to do it.") from error
            log.warning("job.waits", error=str(error), seconds=seconds)
        await pause(seconds * random.uniform(0.5, 1))  # noqa: S311 - not all at once
        seconds = min(2 * seconds, _LONGEST_PAUSE)


async def pause(seconds: float) -> None:
    """Let a job wait.

    Raises:
        asyncio.CancelledError: the worker is told to stop. The job stays pending, and the next worker runs it.
    """
    if _stopping is None or seconds <= 0:  # one turn for others; `wait_for` would take several, in Python 3.11
        await asyncio.sleep(seconds)
    elif not _stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_stopping.wait(), seconds)
    if _stopping is not None and _stopping.is_set():
        raise asyncio.CancelledError


def migrate_engine(database_url: str) -> None:
    """Make or upgrade the engine's own tables."""
    DBOS.migrate(database_url)
