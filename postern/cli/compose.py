"""How each role is put together: its settings, what it opens, what it runs, and how it stops.

The only place that imports programs side by side. Each function returns when `stop` is set and the role has
finished what it must not drop.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from postern.cli.addresses import listener_at
from postern.collector import settle
from postern.links import LinkSigner, Purpose
from postern.logs import get_logger
from postern.running import announced
from postern.secret import load_secret
from postern.settings import GateSettings, IntakeSettings, WebSettings, WorkerSettings
from postern.sms.simulation import Simulation, simulation_of
from postern.times import utc_now

if TYPE_CHECKING:
    from dispatch.accounts import Senders
    from dispatch.simulator import Simulator
    from storage.clerk import LedgerCalls
    from storage.database import Database
    from storage.engine import Engine

_TIMERS = 30.0  # seconds between two looks at messages whose final report is missing

log = get_logger(__name__)


async def run_gate(settings: GateSettings, stop: asyncio.Event) -> None:
    """The SFTP gate: alone, several processes, or one of them."""
    from postern.cli.gates import MEMBER, run_members
    from sftpd.server import serve_gate, serve_member
    from sftpd.sockets import open_listeners

    number = os.environ.get(MEMBER)
    if number:
        await serve_member(settings, int(number), open_listeners(settings), stop)
    elif settings.gate_processes > 1:
        await run_members(settings, stop)
    else:
        await serve_gate(settings, stop)


async def run_intake(settings: IntakeSettings, stop: asyncio.Event) -> None:
    """Spool → ledger, and ledger → keyring."""
    from pipeline.intake import Intake, keep_keyring, leave_soon, watch_spool
    from storage.blobs import blobs_from
    from storage.engine import Jobs
    from storage.spool import Spool

    database = _open_database(settings.database)
    spool = Spool(settings.spool_folder)
    spool.prepare()
    jobs = Jobs(settings.database)
    intake = Intake(
        settings=settings,
        database=database,
        blobs=blobs_from(settings),
        jobs=jobs,
        spool=spool,
        now=utc_now,
    )
    try:
        with announced(settings.run_folder, "intake"):
            await asyncio.gather(watch_spool(intake, stop), keep_keyring(intake, stop), leave_soon(intake, stop))
    finally:
        jobs.close()
        database.dispose()


async def run_worker(settings: WorkerSettings, queues: Sequence[str], stop: asyncio.Event) -> None:
    """Validation, batches, dispatch, notices."""
    from dispatch import decisions, doubts
    from dispatch import workflow as dispatch
    from dispatch.context import Dispatch
    from dispatch.simulator import Simulator
    from dispatch.timers import keep_asking
    from notifier import workflow as notifier
    from notifier.courier import courier_from
    from pipeline import workflow as pipeline
    from pipeline.scratch import sweep_scratch
    from pipeline.upkeep import keep_up
    from pipeline.validator import Validator
    from storage.blobs import blobs_from
    from storage.clock import ServerClock
    from storage.engine import Jobs
    from storage.jobs import Queue

    secret = load_secret(settings.home)
    database = _open_database(settings.database)
    clock = None if database.is_sqlite else ServerClock(database)  # workers of one SQLite share a machine
    now = clock or utc_now
    jobs = Jobs(settings.database)
    simulator = Simulator(database, environment=settings.environment, now=now)
    validator = Validator(timeout=settings.validation_timeout, memory=settings.validation_memory)
    work = pipeline.Pipeline(
        settings=settings,
        database=database,
        blobs=blobs_from(settings),
        jobs=jobs,
        validator=validator,
        links=LinkSigner(secret),
        now=utc_now,
    )
    async with (
        _ledger(settings, database, queues) as ledger,
        _senders(settings, database, simulator, secret) as senders,
        _engine(settings, database) as engine,
    ):
        sweep_scratch(settings)
        pipeline.register(engine, work)
        sending = Dispatch(
            settings=settings,
            database=database,
            ledger=ledger,
            jobs=jobs,
            senders=senders,
            now=now,
            worker="" if database.is_sqlite else engine.executor_id,
        )
        dispatch.register(engine, sending)
        decisions.register(engine, sending)
        doubts.register(engine, sending)
        courier = courier_from(settings)
        holds = LinkSigner(secret, Purpose.HOLD)
        notifier.register(
            engine,
            notifier.Notifier(settings=settings, database=database, courier=courier, links=holds, now=utc_now),
        )
        await asyncio.to_thread(validator.warm_up)
        try:
            await engine.launch([Queue(name) for name in queues] or list(Queue))
            settle()
            with announced(settings.run_folder, "worker"):
                await asyncio.gather(
                    simulator.deliver_receipts(stop),
                    keep_up(work, stop),
                    keep_asking(sending, _TIMERS, stop),
                    *([clock.keep_right(stop)] if clock else []),
                )
        finally:  # also where one of those breaks down: no job may go on without what this block holds
            await engine.stop(settings.drain_timeout)
    validator.close()


@contextlib.asynccontextmanager
async def _senders(
    settings: WorkerSettings, database: "Database", simulator: "Simulator", secret: bytes
) -> AsyncIterator["Senders"]:
    """The accounts that messages go by; in a load test the simulator takes them all."""
    from dispatch.accounts import simulated

    if simulation_of(settings.provider, settings.environment) is Simulation.ALL:
        yield simulated(simulator)
        return
    from dispatch.twilio_accounts import TwilioSenders
    from dispatch.twilio_http import Connections

    connections = Connections(now=utc_now)
    try:
        yield TwilioSenders(settings, database, simulator=simulator, connections=connections, secret=secret)
    finally:
        await connections.close()


@contextlib.asynccontextmanager
async def _ledger(
    settings: WorkerSettings, database: "Database", queues: Sequence[str]
) -> AsyncIterator["LedgerCalls"]:
    """A process of its own where messages are sent."""
    from storage.clerk import Clerk, InThread
    from storage.jobs import Queue

    if queues and not {Queue.BATCH, Queue.OTP, Queue.SINGLE} & set(queues):
        yield InThread(database)
        return
    async with Clerk(settings.database) as clerk:
        yield clerk


@contextlib.asynccontextmanager
async def _engine(settings: WorkerSettings, database: "Database") -> AsyncIterator["Engine"]:
    """An engine under an executor id that no other live process has."""
    from storage.engine import Engine
    from storage.takeover import Membership, sqlite_worker_lock

    if database.is_sqlite:
        with sqlite_worker_lock(Path(f"{database.path}.worker")) as executor_id:
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

    from storage.blobs import blobs_from
    from storage.engine import Jobs
    from web.app import create_app
    from web.holds import HoldDesk
    from web.webhooks import ReceiptDesk

    secret = load_secret(settings.home)
    database = _open_database(settings.database)
    jobs = Jobs(settings.database)
    holds = HoldDesk(
        database=database, jobs=jobs, links=LinkSigner(secret, Purpose.HOLD), zone=settings.timezone, now=utc_now
    )
    receipts = ReceiptDesk(
        database=database,
        public_url=settings.public_url,
        secret=secret,
        auth_token=settings.twilio_auth_token,
        sender_name=settings.twilio_sender_name,
        now=utc_now,
    )
    app = create_app(database, blobs_from(settings), LinkSigner(secret), utc_now, holds=holds, receipts=receipts)
    with listener_at(settings.http_host, settings.http_port) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        with announced(settings.run_folder, "web", host=settings.http_host, port=port):
            log.info("web.listening", host=settings.http_host, port=port)
            await asyncio.wait([asyncio.create_task(stop.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    jobs.close()
    database.dispose()


def _open_database(url: str) -> "Database":
    from storage.database import Database
    from storage.migrate import State, ensure_migrated

    database = Database(url)
    if ensure_migrated(database) is State.NEWER:
        log.warning("database.newer")  # which is as it should be for a while in an upgrade, and when it is taken back
    return database
