"""How each role is put together: its settings, what it opens, what it runs, and how it stops.

The only place that imports programs side by side. Each function returns when `stop` is set and the role has
finished what it must not drop.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from postern.links import LinkSigner
from postern.logs import get_logger
from postern.running import announced
from postern.secret import load_secret
from postern.settings import GateSettings, IntakeSettings, WebSettings, WorkerSettings
from postern.times import utc_now

if TYPE_CHECKING:
    from storage.database import Database
    from storage.engine import Engine

log = get_logger(__name__)


async def run_gate(settings: GateSettings, stop: asyncio.Event) -> None:
    """The SFTP gate: alone, several processes, or one of them."""
    from postern.cli.gates import MEMBER, run_members
    from sftpd.server import serve_gate, serve_member

    number = os.environ.get(MEMBER)
    if number:
        await serve_member(settings, int(number), stop)
    elif settings.gate_processes > 1:
        await run_members(settings, stop)
    else:
        await serve_gate(settings, stop)


async def run_intake(settings: IntakeSettings, stop: asyncio.Event) -> None:
    """Spool → ledger, and ledger → keyring."""
    from pipeline.intake import Intake, keep_keyring, watch_spool
    from storage.blobs import LocalBlobs
    from storage.engine import Jobs
    from storage.spool import Spool

    database = _open_database(settings.database)
    spool = Spool(settings.spool_folder)
    spool.prepare()
    jobs = Jobs(settings.database)
    intake = Intake(
        settings=settings,
        database=database,
        blobs=LocalBlobs(settings.blob_folder),
        jobs=jobs,
        spool=spool,
        now=utc_now,
    )
    try:
        with announced(settings.run_folder, "intake"):
            await asyncio.gather(watch_spool(intake, stop), keep_keyring(intake, stop))
    finally:
        jobs.close()
        database.dispose()


async def run_worker(settings: WorkerSettings, queues: Sequence[str], stop: asyncio.Event) -> None:
    """Validation, batches, dispatch, notices."""
    from dispatch import workflow as dispatch
    from dispatch.simulator import Simulator
    from notifier import workflow as notifier
    from notifier.courier import courier_from
    from pipeline import workflow as pipeline
    from pipeline.validator import Validator
    from storage.blobs import LocalBlobs
    from storage.engine import Jobs
    from storage.jobs import Queue

    secret = load_secret(settings.home)
    database = _open_database(settings.database)
    jobs = Jobs(settings.database)
    simulator = Simulator(database, environment=settings.environment, now=utc_now)
    validator = Validator(timeout=settings.validation_timeout, memory=settings.validation_memory)
    async with _engine(settings, database) as engine:
        pipeline.register(
            engine,
            pipeline.Pipeline(
                settings=settings,
                database=database,
                blobs=LocalBlobs(settings.blob_folder),
                jobs=jobs,
                validator=validator,
                links=LinkSigner(secret),
                now=utc_now,
            ),
        )
        dispatch.register(
            engine,
            dispatch.Dispatch(settings=settings, database=database, jobs=jobs, provider=simulator, now=utc_now),
        )
        courier = courier_from(settings)
        notifier.register(engine, notifier.Notifier(settings=settings, database=database, courier=courier, now=utc_now))
        await asyncio.to_thread(validator.warm_up)
        await engine.launch([Queue(name) for name in queues] or list(Queue))
        with announced(settings.run_folder, "worker"):
            await simulator.deliver_receipts(stop)
        await engine.stop(settings.drain_timeout)
    validator.close()


@contextlib.asynccontextmanager
async def _engine(settings: WorkerSettings, database: "Database") -> AsyncIterator["Engine"]:
    """An engine under an executor id that no other live process has."""
    from storage.engine import Engine
    from storage.takeover import Membership, sqlite_worker_lock

    if database.is_sqlite:
        with sqlite_worker_lock(Path(f"{database.path}.worker")) as executor_id:
            shutil.rmtree(settings.scratch_folder, ignore_errors=True)  # what a killed worker left; there is no other
            yield Engine(settings.database, executor_id=executor_id)
        return
    membership = Membership(database)
    engine = Engine(settings.database, executor_id=membership.executor_id)
    engine.when_launched(lambda: membership.watch(engine.recover))
    try:
        yield engine
    finally:
        membership.leave()


async def run_web(settings: WebSettings, stop: asyncio.Event) -> None:
    """Reports, health, metrics."""
    import uvicorn

    from storage.blobs import LocalBlobs
    from web.app import create_app

    database = _open_database(settings.database)
    app = create_app(database, LocalBlobs(settings.blob_folder), LinkSigner(load_secret(settings.home)), utc_now)
    with socket.create_server((settings.http_host, settings.http_port)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        with announced(settings.run_folder, "web", host=settings.http_host, port=port):
            log.info("web.listening", host=settings.http_host, port=port)
            await asyncio.wait([asyncio.create_task(stop.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    database.dispose()


def _open_database(url: str) -> "Database":
    from storage.database import Database
    from storage.migrate import ensure_migrated

    database = Database(url)
    ensure_migrated(database)
    return database
