"""How many messages a second go through claim, call and record, against bare HTTP to the same provider.

    python -P bench/dispatch.py [--rounds 3] [--messages 20000] [--only PostgreSQL]

Every way in turn, round after round, against one stub in a process of its own, with bare aiohttp, two hundred requests
at once, before and after each, since machines change their pace: a worker, or two, with one campaign, and with four; on
SQLite and on PostgreSQL; with nothing else in the database and with a million sent messages. No rate holds anybody up.
All messages are there before the first is sent, and PostgreSQL has cleared up after the way before. Counted from the
first to the last message that arrives; a way counts when all is recorded as sent, which is looked at when all arrived.
Prints a table in Markdown; fails where a message comes twice, or where something takes more than two minutes.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path

import aiohttp
import sqlalchemy as sa

sys.path.append(str(Path(__file__).resolve().parents[1]))  # -P leaves it out; last, so that it hides nothing

from bench.installation import until
from bench.postgresql import find_binaries, postgresql
from postern.collector import settle
from postern.model import BatchStatus, Campaign, Channel, IdKind, Language, MessageStatus, new_id
from postern.running import announcement
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import SEND_CHUNK
from storage.ledger.campaigns import create_campaign
from storage.migrate import migrate
from storage.tables import attempts, batches, messages

_ROOT = Path(__file__).resolve().parents[1]
_AT_ONCE = 200
_RATE = 10_000.0  # messages a second
_CHUNK = 5_000
_OLD = 1_000_000
_CAMPAIGNS = {1: "one campaign", 4: "four campaigns"}
_TEXT = "Immigration\n\n---\n\nDear Emily\n\n---\n\nThis is an automated message sent by the Singapore Government."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--messages", type=int, default=20_000, help="messages of a way and round")
    parser.add_argument("--only", default="", metavar="TEXT", help="only ways whose name begins with it")
    options = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, {options.rounds} rounds.\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="postern-bench-") as name,
        _stub() as stub,
        _databases(Path(name), options.only) as urls,
    ):
        ways: dict[str, Callable[[], float]] = {}
        for title, url in urls.items():
            for workers, campaigns in product((1, 2), _CAMPAIGNS):
                if workers > 1 and not url.startswith("postgresql"):
                    continue  # SQLite is for one
                what = f"{_CAMPAIGNS[campaigns]}{', two workers' * (workers > 1)}"
                home = Path(name) / "home"
                ways[f"{title}, {what}"] = partial(
                    _worker, home, url, stub, options.messages, campaigns, workers=workers
                )
        ways = {title: way for title, way in ways.items() if title.startswith(options.only)}
        if not ways:
            parser.error(f"no way's name begins with {options.only!r}")
        found: dict[str, list[tuple[float, float]]] = {title: [] for title in ways}
        for _ in range(options.rounds):
            before = asyncio.run(_bare(stub, options.messages // 2))
            for title, way in ways.items():
                rate, after = way(), asyncio.run(_bare(stub, options.messages // 2))
                found[title].append((rate, (before + after) / 2))
                print(
                    f"  {title}: {rate:,.0f} a second, bare {before:,.0f} and {after:,.0f}", file=sys.stderr, flush=True
                )
                before = after
    print("| way | messages a second | bare HTTP | of it | lowest and highest |\n|---|---|---|---|---|")
    for title, pairs in found.items():
        ratios = [rate / bare for rate, bare in pairs]
        rate, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"{min(ratios):.0%}, {max(ratios):.0%}"
        print(f"| {title} | {rate:,.0f} | {bare:,.0f} | {statistics.median(ratios):.0%} | {spread} |")


@contextmanager
def _stub() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(_ROOT / "bench" / "dispatch_stub.py"), str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        until("the stub to listen", lambda: _is_up(url))
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_up(url: str) -> bool:
    try:
        _arrived(url)
    except OSError:
        return False
    return True


def _arrived(stub: str, *, and_begin_anew: bool = False) -> tuple[int, float]:
    request = urllib.request.Request(stub, method="DELETE" if and_begin_anew else "GET")
    with urllib.request.urlopen(request, timeout=10) as answer:
        told = json.load(answer)
    return told["count"], told["seconds"]


@contextmanager
def _databases(folder: Path, only: str) -> Iterator[dict[str, str]]:
    urls = {"SQLite": f"sqlite:///{folder}/new.db", "SQLite, a million sent": f"sqlite:///{folder}/old.db"}
    binaries = find_binaries()
    if binaries is None:
        print("No PostgreSQL here: SQLite only.\n")
        yield _filled(urls, only)
        return
    with postgresql(binaries) as server:
        urls["PostgreSQL"] = server
        old = server.rpartition("/")[0] + "/old"
        with sa.create_engine(
            sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        ).connect() as connection:
            connection.execute(sa.text("CREATE DATABASE old"))
        urls["PostgreSQL, a million sent"] = old
        yield _filled(urls, only)


def _filled(every: dict[str, str], only: str) -> dict[str, str]:
    """Those that are needed for ways whose name begins so."""
    urls = {title: url for title, url in every.items() if title.startswith(only) or only.startswith(title)}
    for title, url in urls.items():
        database = Database(url)
        migrate(database)
        if title.endswith("sent"):
            _send_a_million(database)
            _settle(database)
        database.dispose()
    return urls


def _settle(database: Database) -> None:
    """Do what PostgreSQL would do by and by, so that it does not while something is measured."""
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM (ANALYZE)"))
            connection.execute(sa.text("CHECKPOINT"))


def _new_campaign(database: Database) -> str:
    campaign = Campaign(
        id=new_id(IdKind.CAMPAIGN),
        name="Passports",
        agency="Immigration",
        channel=Channel.PUBLIC,
        templates={Language.ENGLISH: "Dear {{name}}"},
        parameters=("name",),
        rate=_RATE,
        created_at=datetime.now(UTC),
        template_id=new_id(IdKind.TEMPLATE),
        template_body_ids={Language.ENGLISH: new_id(IdKind.TEMPLATE_BODY)},
    )
    create_campaign(database, campaign, actor="bench")
    return campaign.id


def _add_batch(connection: sa.Connection, campaign_id: str, count: int) -> tuple[str, int]:
    now, batch_id = datetime.now(UTC), new_id(IdKind.BATCH)
    number = connection.execute(sa.select(sa.func.coalesce(sa.func.max(batches.c.number), 0) + 1)).scalar_one()
    connection.execute(
        batches.insert().values(
            id=batch_id, number=number, campaign_id=campaign_id, status=BatchStatus.MESSAGES_ENQUEUED.value,
            total=count, first_row=2, last_row=count + 1, is_indexed=True, enqueued_at=now, created_at=now,
            updated_at=now,
        )
    )  # fmt: skip
    return batch_id, number


def _rows(number: int, first: int, last: int, status: MessageStatus) -> list[dict[str, object]]:
    return [
        {
            "batch": number, "row": row, "recipient": f"659{row:07}", "language": "english",
            "values": '{"name": "Emily"}', "segments": 1, "latest_status": status.value,
            "num_attempts": int(status is not MessageStatus.ENQUEUED),
        }
        for row in range(first, last + 1)
    ]  # fmt: skip


def _send_a_million(database: Database) -> None:
    """Messages with an attempt each, all delivered."""
    campaign_id, now = _new_campaign(database), datetime.now(UTC)
    with database.write() as connection:
        _batch_id, number = _add_batch(connection, campaign_id, _OLD)
    for first in range(2, _OLD + 2, 20_000):
        rows = _rows(number, first, first + 19_999, MessageStatus.SUCCESS)
        with database.write() as connection:
            connection.execute(messages.insert(), rows)
            connection.execute(
                attempts.insert(),
                [
                    {
                        "id": new_id(IdKind.ATTEMPT), "batch": number, "row": row["row"], "number": 1,
                        "status": MessageStatus.SUCCESS.value, "claim": f"old{first}", "provider": "twilio",
                        "external_id": f"SM{row['row']}", "inferred": False, "created_at": now, "updated_at": now,
                        "sent_at": now, "delivered_at": now,
                    }
                    for row in rows
                ],
            )  # fmt: skip


def _enqueue(database: Database, jobs: Jobs, count: int, campaigns: int) -> list[str]:
    added: dict[str, str] = {}
    for _ in range(campaigns):
        campaign_id = _new_campaign(database)
        with database.write() as connection:
            batch_id, number = _add_batch(connection, campaign_id, count)
            connection.execute(messages.insert(), _rows(number, 2, count + 1, MessageStatus.ENQUEUED))
        added[batch_id] = campaign_id
    last = min(_CHUNK, count) + 1
    with database.write() as connection:
        for batch_id, campaign_id in added.items():
            jobs.enqueue(connection, SEND_CHUNK, f"chunk:{batch_id}:2", batch_id, 2, last, partition=campaign_id)
    return [*added]


def _worker(home: Path, url: str, stub: str, count: int, campaigns: int, *, workers: int = 1) -> float:
    """Let workers send, and tell how many messages a second arrived."""
    database, jobs = Database(url), Jobs(url)
    _settle(database)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")},
        "PYTHONPATH": str(_ROOT),
        "POSTERN_SECRET_KEY": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=",
        "POSTERN_DATABASE_URL": url,
        "POSTERN_PROVIDER": "twilio",
        "POSTERN_TWILIO_URL": stub,
        "POSTERN_TWILIO_ACCOUNT_SID": f"AC{'1' * 32}",
        "POSTERN_TWILIO_API_KEY_SID": f"SK{'1' * 32}",
        "POSTERN_TWILIO_API_KEY_SECRET": "secret",
        "POSTERN_TWILIO_MESSAGING_SERVICE_SID": f"MG{'1' * 32}",
        "POSTERN_TWILIO_RATE": str(_RATE),
    }
    command = [sys.executable, "-m", "postern", "worker", "--queues", "batch,doubts"]
    with tempfile.TemporaryFile() as log:
        running = [
            subprocess.Popen(
                command, env={**environ, "POSTERN_HOME": f"{home}{one}"}, cwd=_ROOT, stdout=log, stderr=log
            )
            for one in range(workers)
        ]
        try:
            until("the workers to run", lambda: all(_runs(Path(f"{home}{one}")) for one in range(workers)))
            _arrived(stub, and_begin_anew=True)
            sent = _enqueue(database, jobs, count // campaigns, campaigns)
            until("all messages to arrive", lambda: _arrive(stub, count // campaigns * campaigns))
            until("all messages to be sent", lambda: _is_sent(database, sent))
        except BaseException:
            log.seek(0)
            print(log.read().decode()[-2_000:], file=sys.stderr)
            raise
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait()
    arrived, seconds = _arrived(stub)
    assert arrived == count // campaigns * campaigns, arrived
    jobs.close()
    database.dispose()
    return arrived / seconds


def _runs(home: Path) -> bool:
    return announcement(home / "run", "worker") is not None


def _arrive(stub: str, count: int) -> bool:
    time.sleep(0.5)
    return _arrived(stub)[0] >= count


def _is_sent(database: Database, batch_ids: list[str]) -> bool:
    query = (
        sa.select(sa.func.count())
        .select_from(messages.join(batches, batches.c.number == messages.c.batch))
        .where(batches.c.id.in_(batch_ids), messages.c.latest_status != MessageStatus.SENT.value)
    )
    with database.read() as connection:
        unsent: int = connection.execute(query).scalar_one()
    return unsent == 0


async def _bare(stub: str, count: int) -> float:
    """What the same requests take with nothing around them, in an interpreter that is set as a worker's is."""
    settle()
    _arrived(stub, and_begin_anew=True)
    left = iter(range(count))
    auth = {"Authorization": aiohttp.encode_basic_auth("SK1", "secret")}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:
        url = f"{stub}/2010-04-01/Accounts/AC1/Messages.json"

        async def send() -> None:
            for number in left:
                form = {
                    "To": f"+659{number:07}", "MessagingServiceSid": f"MG{'1' * 32}", "Body": _TEXT,
                    "StatusCallback": f"http://127.0.0.1:8080/webhooks/twilio/attempt_{number:036}/{'0' * 43}",
                }  # fmt: skip
                async with session.post(url, data=form, headers=auth) as one:
                    assert (await one.json())["sid"]

        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
    arrived, seconds = _arrived(stub)
    assert arrived == count
    return arrived / seconds


if __name__ == "__main__":
    main()
