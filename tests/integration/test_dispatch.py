"""From an enqueued batch to final statuses, with the simulator and with providers that misbehave, on SQLite."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SIMULATOR,
    SimulatedClock,
    add_campaign,
    change,
    count,
    enqueued_batch,
    jobs_of,
    message_id,
    open_ids,
)
from support.waiting import until_async
from typing_extensions import override

import storage.engine
from dispatch import doubts
from dispatch.accounts import simulated
from dispatch.context import Dispatch
from dispatch.doubts import settle_all
from dispatch.provider import Accepted, Found, Handover, Outcome, Refused, Unknown
from dispatch.simulator import MAGIC_NUMBERS, Simulator
from dispatch.workflow import register, send_rows
from postern.errors import TransientError
from postern.model import BatchStatus, Environment, ErrorCode, ErrorType, MessageStatus
from postern.settings import WorkerSettings
from postern.sms.statuses import FINAL, shown_as
from postern.times import utc_now
from storage.clerk import InThread
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import SEND_CHUNK, JobKind
from storage.ledger import recording
from storage.ledger.claiming import Claim, claim
from storage.ledger.messages import Message, list_messages
from storage.ledger.receipts import Receipt, apply_receipts
from storage.tables import attempts, batches, campaigns, simulator_journal

pytest_plugins = ["support.databases"]

T = TypeVar("T")

FAST = 10_000.0  # messages a second
EVERY_ROW = (1, 1_000_000)


@dataclass
class Office:
    """A database with one campaign, and what sends its batches."""

    database: Database
    jobs: Jobs
    clock: SimulatedClock = field(default_factory=SimulatedClock)  # the simulator's
    environment: Environment = Environment.PRODUCTION

    def __post_init__(self) -> None:
        self.campaign = add_campaign(self.database, rate=FAST)
        self.simulator = Simulator(self.database, environment=self.environment, now=self.clock)

    def batch(self, *recipients: str) -> str:
        return enqueued_batch(self.database, self.jobs, self.campaign, recipients or [RECIPIENT])

    def dispatch(self, provider: Any = None) -> Dispatch:
        return Dispatch(
            settings=WorkerSettings(environment=self.environment),
            database=self.database,
            ledger=InThread(self.database),
            jobs=self.jobs,
            senders=simulated(provider or self.simulator),
            now=utc_now,
        )

    async def send(self, batch_id: str, provider: Any = None) -> list[Message]:
        """Send a batch; what its messages are then."""
        dispatch = self.dispatch(provider)
        await asyncio.wait_for(send_rows(dispatch, self.campaign, batch_id, EVERY_ROW), 20)
        in_doubt = open_ids(self.database, batch_id)
        await asyncio.wait_for(settle_all(dispatch, self.campaign, batch_id, in_doubt), 20)
        return self.messages(batch_id)

    def messages(self, batch_id: str) -> list[Message]:
        return list_messages(self.database, batch_id=batch_id, limit=10_000)

    def claim(self, batch_id: str) -> list[Handover]:
        """What a sender does before it dies: claim all, and hand over nothing yet."""
        claimed = claim(
            self.database, batch_id=batch_id, rows=EVERY_ROW, rate=FAST, most=100, account=SIMULATOR, now=NOW
        )
        return [
            Handover(attempt_id=one.attempt_id, message_id=one.message_id, recipient=one.recipient, text="x")
            for one in claimed.messages
        ]


@pytest.fixture
def office(sqlite_url: str) -> Iterator[Office]:
    """An office in production."""
    yield from opened(sqlite_url, Environment.PRODUCTION)


def opened(url: str, environment: Environment) -> Iterator[Office]:
    database, jobs = Database(url), Jobs(url)
    yield Office(database, jobs, environment=environment)
    jobs.close()
    database.dispose()


@dataclass
class Scripted:
    """A provider that answers from a script; an exception among the answers is raised."""

    sends: Callable[[Handover], Outcome | Exception] = lambda _handover: Accepted(external_id="external_1")
    knows: Found | Exception = field(default_factory=Found)
    name: str = "scripted"
    looks: tuple[float, ...] = (0.0, 0.05)
    handovers: list[Handover] = field(default_factory=list)
    asked: list[Handover] = field(default_factory=list)

    async def send(self, handover: Handover) -> Outcome:
        self.handovers.append(handover)
        return self._answer(self.sends(handover))

    async def find(self, handover: Handover, _since: datetime) -> Found:
        self.asked.append(handover)
        return self._answer(self.knows)

    def _answer(self, answer: T | Exception) -> T:
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Registry:
    """Takes the workflow that a program registers, so that it can be called here."""

    workflow: Callable[..., Coroutine[Any, Any, None]] | None = None

    def register(self, kind: JobKind, workflow: Callable[..., Coroutine[Any, Any, None]]) -> None:
        if kind is SEND_CHUNK:
            self.workflow = workflow


async def run_chunk(dispatch: Dispatch, batch_id: str, first_row: int, last_row: int) -> None:
    """Do the job that the engine would do."""
    registry = Registry()
    register(registry, dispatch)  # type: ignore[arg-type]
    assert registry.workflow is not None
    await asyncio.wait_for(registry.workflow(batch_id, first_row, last_row), 20)


def found(*candidates: Accepted | Refused) -> Found:
    return Found(candidates=candidates)


def outcome_of(message: Message) -> tuple[MessageStatus, ErrorCode | None]:
    return message.latest_status, message.attempts[-1].error_code


# The simulator


@pytest.mark.parametrize("environment", [Environment.PRODUCTION, Environment.TEST])
async def test_magic_numbers_fail_and_others_succeed(sqlite_url: str, environment: Environment) -> None:
    """As the table says, each with its error; a moment later every message is final."""
    for office in opened(sqlite_url, environment):
        batch_id = office.batch(*MAGIC_NUMBERS, RECIPIENT, "6580000000", "85223456789")
        expected = [(MessageStatus.FAILURE, code) for code in MAGIC_NUMBERS.values()]
        sent = await office.send(batch_id)
        assert [outcome_of(message) for message in sent] == expected + [(MessageStatus.SENT, None)] * 3
        assert office.simulator.report_due() == 0
        office.clock.advance(0.3)
        assert office.simulator.report_due() == 3
        found = office.messages(batch_id)
        assert [outcome_of(message) for message in found] == expected + [(MessageStatus.SUCCESS, None)] * 3
        assert all(message.latest_status in FINAL for message in found)
        assert {message.num_attempts for message in found} == {1}
        assert all(message.attempts[0].sent_at and message.attempts[0].external_id for message in found[-3:])


def test_the_table_of_magic_numbers_is_the_contract() -> None:
    """One number an error code, each of the right type."""
    assert MAGIC_NUMBERS == {
        "6511111111": "recipient_invalid",
        "6511112222": "recipient_unavailable",
        "6511113333": "content_invalid",
        "6511114444": "routing_error",
        "6511115555": "message_expired",
        "6511119999": "delivery_unknown_error",
        "6522222222": "server_unknown_error",
    }
    server = [code for code in MAGIC_NUMBERS.values() if code.type is ErrorType.SERVER_ERROR]
    assert server == [ErrorCode.SERVER_UNKNOWN_ERROR]


async def test_a_load_test_stays_pending(sqlite_url: str) -> None:
    """Every message is taken, magic numbers too, and left pending, however late it gets or often one looks."""
    for office in opened(sqlite_url, Environment.LOADTEST):
        batch_id = office.batch(*MAGIC_NUMBERS, RECIPIENT)
        await office.send(batch_id)
        office.clock.advance(100 * 3600)
        assert office.simulator.report_due() == 0
        found = await office.send(batch_id)
        assert {shown_as(message.latest_status) for message in found} == {"pending"}
        assert all(message.attempts[0].external_id and message.attempts[0].sent_at for message in found)
        assert count(office.database, simulator_journal) == len(found)


async def test_a_load_test_that_was_cut_off_stays_pending(sqlite_url: str) -> None:
    """What the journal has is found there, and is as pending as the rest."""
    for office in opened(sqlite_url, Environment.LOADTEST):
        batch_id = office.batch(RECIPIENT)
        (handover,) = office.claim(batch_id)
        await office.simulator.send(handover)
        (message,) = await office.send(batch_id)
        assert (shown_as(message.latest_status), message.attempts[0].error_code) == ("pending", None)
        assert message.attempts[0].external_id


async def test_deliveries_are_reported_bit_by_bit(office: Office) -> None:
    """So many at once, until none is due; a repeated report moves nothing."""
    batch_id = office.batch(*[RECIPIENT] * 600)
    await office.send(batch_id)
    office.clock.advance(1)
    assert [office.simulator.report_due() for _ in range(3)] == [500, 100, 0]
    assert {message.latest_status for message in office.messages(batch_id)} == {MessageStatus.SUCCESS}


async def test_deliveries_are_reported_until_told_to_stop(office: Office) -> None:
    """And then at once."""
    batch_id = office.batch(RECIPIENT)
    await office.send(batch_id)
    office.clock.advance(1)
    stop = asyncio.Event()
    reporting = asyncio.create_task(office.simulator.deliver_receipts(stop))
    await until_async(lambda: office.messages(batch_id)[0].latest_status is MessageStatus.SUCCESS, "the report")
    stop.set()
    await asyncio.wait_for(reporting, 5)


async def test_workers_that_report_the_same_deliveries_agree(postgresql_url: str) -> None:
    """Each worker has its simulator; none of them fails, and every message is final."""
    for office in opened(postgresql_url, Environment.PRODUCTION):
        batch_id = office.batch(*[RECIPIENT] * 300)
        await office.send(batch_id)
        office.clock.advance(1)
        with ThreadPoolExecutor(4) as threads:
            reports = [threads.submit(office.simulator.report_due) for _ in range(8)]
            assert max(report.result() for report in reports) == 300
        assert {message.latest_status for message in office.messages(batch_id)} == {MessageStatus.SUCCESS}


async def test_a_cancelled_sender_leaves_the_others_alone(office: Office) -> None:
    """Hand-overs are journalled together; one that nobody waits for any more is no obstacle."""
    handovers = office.claim(office.batch(RECIPIENT, RECIPIENT, RECIPIENT))
    first, *others = [asyncio.create_task(office.simulator.send(handover)) for handover in handovers]
    await asyncio.sleep(0)
    first.cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*others), 5)
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted]
    with pytest.raises(asyncio.CancelledError):
        await first


# Sending


async def test_the_whole_message_is_handed_over(office: Office) -> None:
    """Header, body with its values, footer; one hand-over a message, in the order of the rows."""
    provider = Scripted()
    batch_id = office.batch("6591111111", "6592222222")
    await office.send(batch_id, provider)
    assert [one.recipient for one in provider.handovers] == ["6591111111", "6592222222"]
    assert [one.message_id for one in provider.handovers] == [message_id(batch_id, 2), message_id(batch_id, 3)]
    parts = ["Immigration", "Dear Emily", "This is an automated message sent by the Singapore Government."]
    assert provider.handovers[0].text == "\n\n---\n\n".join(parts)


async def test_sending_again_sends_nothing(office: Office) -> None:
    """A chunk that is done twice hands nothing over twice."""
    batch_id = office.batch(*[RECIPIENT] * 5)
    before = await office.send(batch_id)
    assert await office.send(batch_id) == before
    assert (count(office.database, simulator_journal), count(office.database, attempts)) == (5, 5)


async def test_a_large_batch_is_sent_slice_by_slice(office: Office) -> None:
    """All of it, each message once."""
    provider = Scripted()
    batch_id = office.batch(*[RECIPIENT] * 450)
    found = await office.send(batch_id, provider)
    assert {message.latest_status for message in found} == {MessageStatus.SENT}
    assert len({handover.message_id for handover in provider.handovers}) == len(provider.handovers) == 450


async def test_a_batch_cancelled_meanwhile_is_sent_no_further(office: Office) -> None:
    """What is not handed over yet is not sent; it ends with its chunk."""
    batch_id = office.batch(*[RECIPIENT] * 900)

    def cancel(_handover: Handover) -> Outcome:
        change(office.database, batches, batch_id, status=BatchStatus.CANCELLED.value)
        return Accepted(external_id="external_1")

    found = await office.send(batch_id, Scripted(sends=cancel))
    counts = Counter(message.latest_status for message in found)
    assert set(counts) == {MessageStatus.SENT, MessageStatus.FAILURE}
    assert 1 <= counts[MessageStatus.SENT] <= 800  # what was on its way


async def test_the_next_chunk_is_left(office: Office) -> None:
    """Once, and nothing of it is sent yet; the last chunk leaves none."""
    batch_id = office.batch(*[RECIPIENT] * 501)
    await run_chunk(office.dispatch(), batch_id, 2, 501)
    assert f"chunk:{batch_id}:502" in jobs_of(office.database)
    assert office.messages(batch_id)[-1].latest_status is MessageStatus.ENQUEUED
    before = jobs_of(office.database)
    await run_chunk(office.dispatch(), batch_id, 502, 502)
    assert office.messages(batch_id)[-1].latest_status is MessageStatus.SENT
    assert jobs_of(office.database) == before


# What a dead sender left open


async def test_what_the_provider_has_is_not_sent_again(office: Office) -> None:
    """The sender died between the call and its record: the journal tells what became of it."""
    batch_id = office.batch(RECIPIENT, "6511113333")
    for handover in office.claim(batch_id):
        await office.simulator.send(handover)
    first, second = await office.send(batch_id)
    assert outcome_of(first) == (MessageStatus.SENT, None)
    assert first.attempts[0].external_id.startswith("simulated_")
    assert outcome_of(second) == (MessageStatus.FAILURE, ErrorCode.CONTENT_INVALID)
    assert [message.attempts[0].inferred for message in (first, second)] == [False, False]
    assert count(office.database, simulator_journal) == 2


async def test_what_nobody_can_tell_fails_and_says_so(office: Office) -> None:
    """It may be on its way still, so it is never sent again unasked; a receipt that comes later is believed."""
    batch_id = office.batch(RECIPIENT)
    (handover,) = office.claim(batch_id)
    (message,) = await office.send(batch_id)
    assert outcome_of(message) == (MessageStatus.FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR)
    assert message.attempts[0].inferred
    assert "was not sent again; retrying may deliver it twice" in (message.attempts[0].error_note or "")
    assert count(office.database, simulator_journal) == 0
    apply_receipts(
        office.database, [Receipt(attempt_id=handover.attempt_id, status=MessageStatus.SUCCESS)], now=utc_now()
    )
    (message,) = office.messages(batch_id)
    assert (outcome_of(message), message.attempts[0].error_note) == ((MessageStatus.SUCCESS, None), None)


async def test_open_attempts_of_a_cancelled_batch_are_settled(office: Office) -> None:
    """What was begun comes to its end, and the rest is not sent."""
    batch_id = office.batch(RECIPIENT)
    office.claim(batch_id)
    change(office.database, batches, batch_id, status=BatchStatus.CANCELLED.value)
    (message,) = await office.send(batch_id)
    assert outcome_of(message) == (MessageStatus.FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR)


async def test_open_attempts_of_a_deleted_campaign_are_settled(office: Office) -> None:
    """Nothing more is sent, no chunk follows, and nothing stays open for ever."""
    batch_id = office.batch(*[RECIPIENT] * 600)
    office.claim(batch_id)
    change(office.database, campaigns, office.campaign.id, deleted_at=NOW)
    await run_chunk(office.dispatch(), batch_id, 2, 501)
    in_doubt = open_ids(office.database, batch_id)
    assert len(in_doubt) == 100
    assert len([job for job in jobs_of(office.database) if job.startswith(f"doubts:{batch_id}:")]) == 2
    await settle_all(office.dispatch(), office.campaign, batch_id, in_doubt)
    assert open_ids(office.database, batch_id) == []
    assert count(office.database, simulator_journal) == 0
    assert {one.num_attempts for one in office.messages(batch_id) if one.row <= 501} == {1}
    assert f"chunk:{batch_id}:502" not in jobs_of(office.database)


# Providers that misbehave


async def test_a_provider_that_raises_takes_nobody_along(office: Office) -> None:
    """The others are sent; what it raised for is asked about at the end, once, and not sent again."""

    def raise_for_some(handover: Handover) -> Outcome | Exception:
        return RuntimeError("a bug") if handover.recipient.endswith("1") else Accepted(external_id="external_1")

    provider = Scripted(sends=raise_for_some, knows=found(Refused(code=ErrorCode.ROUTING_ERROR)))
    first, second, third = await office.send(office.batch("6590000001", "6590000002", "6590000011"), provider)
    assert outcome_of(second) == (MessageStatus.SENT, None)
    assert outcome_of(first) == outcome_of(third) == (MessageStatus.FAILURE, ErrorCode.ROUTING_ERROR)
    assert (len(provider.handovers), len(provider.asked)) == (3, 2)


@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        (found(Accepted(external_id="external_2")), (MessageStatus.SENT, None)),
        (found(Accepted(external_id="2", status=MessageStatus.SUCCESS)), (MessageStatus.SUCCESS, None)),
        (found(Refused(code=ErrorCode.CONTENT_INVALID)), (MessageStatus.FAILURE, ErrorCode.CONTENT_INVALID)),
        (Found(), (MessageStatus.FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR)),
    ],
)
async def test_an_unknown_hand_over_is_asked_about(
    office: Office, known: Found, outcome: tuple[MessageStatus, ErrorCode | None]
) -> None:
    """A time-out is no refusal: the provider says what it is."""
    provider = Scripted(sends=lambda _handover: Unknown(), knows=known)
    (message,) = await office.send(office.batch(RECIPIENT), provider)
    assert outcome_of(message) == outcome
    assert message.attempts[0].inferred is (not known.candidates)
    asked = provider.asked[0]
    assert (asked.message_id, asked.recipient) == (message.id, RECIPIENT)


# A database that is away for a while


@pytest.fixture
def away(office: Office, tmp_path: Path) -> Iterator[tuple[Simulator, Callable[[], None]]]:
    """A simulator whose way to the database is cut off, and what brings it back."""
    folder = tmp_path / "way"
    database = Database(f"sqlite:///{folder}/postern.db")
    shutil.rmtree(folder)
    path = Path(sa.make_url(office.database.url).database or "")
    simulator = Simulator(database, environment=Environment.PRODUCTION, now=office.clock)
    yield simulator, lambda: folder.symlink_to(path.parent)
    database.dispose()


async def test_a_look_up_waits_for_the_database(office: Office, away: tuple[Simulator, Callable[[], None]]) -> None:
    """The chunk goes on when it is back; its messages are not left open."""
    simulator, come_back = away
    batch_id = office.batch(RECIPIENT)
    (handover,) = office.claim(batch_id)
    await office.simulator.send(handover)
    asyncio.get_running_loop().call_later(0.1, come_back)
    (message,) = await office.send(batch_id, simulator)
    assert outcome_of(message) == (MessageStatus.SENT, None)


async def test_reports_wait_for_the_database(office: Office, away: tuple[Simulator, Callable[[], None]]) -> None:
    """A worker does not end because the database is away; the reports come when it is back."""
    simulator, come_back = away
    batch_id = office.batch(RECIPIENT)
    await office.send(batch_id)
    office.clock.advance(1)
    stop = asyncio.Event()
    reporting = asyncio.create_task(simulator.deliver_receipts(stop))
    done, _pending = await asyncio.wait([reporting], timeout=0.3)
    assert not done
    come_back()
    await until_async(lambda: office.messages(batch_id)[0].latest_status is MessageStatus.SUCCESS, "the report")
    stop.set()
    await asyncio.wait_for(reporting, 5)


async def test_a_hand_over_waits_for_the_journal(office: Office, away: tuple[Simulator, Callable[[], None]]) -> None:
    """Without a database nothing is handed over, and nothing is in doubt."""
    simulator, come_back = away
    batch_id = office.batch(RECIPIENT, RECIPIENT)
    asyncio.get_running_loop().call_later(0.3, come_back)
    found = await office.send(batch_id, simulator)
    assert [outcome_of(message) for message in found] == [(MessageStatus.SENT, None)] * 2
    assert count(office.database, simulator_journal) == 2


# What a live sender may be at


class Slow(Scripted):
    """Takes a message when it is let."""

    def __init__(self, let: asyncio.Event) -> None:
        super().__init__()
        self.let = let

    @override
    async def send(self, handover: Handover) -> Outcome:
        self.handovers.append(handover)
        await self.let.wait()
        return Accepted(external_id="external_1")


class SlowToClaim(InThread):
    """Says what it claimed, and committed, when it is let."""

    def __init__(self, database: Database, let: asyncio.Event) -> None:
        super().__init__(database)
        self.let = let

    @override
    async def call(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:  # type: ignore[override]
        found = await super().call(function, *arguments, **keywords)
        if isinstance(found, Claim) and found.messages:
            await self.let.wait()
        return found


@pytest.mark.parametrize("stage", ["claiming", "handing over"])
async def test_nothing_is_concluded_while_a_live_sender_is_at_it(
    office: Office, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A second job of the same rows finds it open; its own sender records what comes of it."""
    monkeypatch.setattr(doubts, "_IN_HAND", 0.05)
    let, let_at_once = asyncio.Event(), asyncio.Event()
    let_at_once.set()
    provider = Slow(let if stage == "handing over" else let_at_once)
    ledger = SlowToClaim(office.database, let if stage == "claiming" else let_at_once)
    dispatch = replace(office.dispatch(provider), ledger=ledger)
    batch_id = office.batch(RECIPIENT)
    sending = asyncio.create_task(send_rows(dispatch, office.campaign, batch_id, EVERY_ROW))
    await until_async(lambda: open_ids(office.database, batch_id), "the claim")
    await asyncio.wait_for(send_rows(dispatch, office.campaign, batch_id, EVERY_ROW), 20)
    in_doubt = open_ids(office.database, batch_id)
    settling = asyncio.create_task(settle_all(dispatch, office.campaign, batch_id, in_doubt))
    await until_async(lambda: len(provider.asked) > len(provider.looks), "more looks than there would be")
    assert open_ids(office.database, batch_id) == in_doubt
    let.set()
    await asyncio.wait_for(asyncio.gather(sending, settling), 20)
    (message,) = office.messages(batch_id)
    assert (outcome_of(message), len(provider.handovers)) == ((MessageStatus.SENT, None), 1)


class SlowToTell(Scripted):
    """Takes a message while it is asked about it, and says neither that nor that it has it."""

    def __init__(self, dispatch_of: Callable[[], Dispatch]) -> None:
        super().__init__(looks=(0.0,))
        self.dispatch_of = dispatch_of
        self.is_asked = asyncio.Event()

    @override
    async def send(self, handover: Handover) -> Outcome:
        self.handovers.append(handover)
        await self.is_asked.wait()
        return Unknown()

    @override
    async def find(self, handover: Handover, _since: datetime) -> Found:
        self.asked.append(handover)
        self.is_asked.set()
        await until_async(lambda: len(self.dispatch_of().in_hand) == 0, "the end of its sender")
        return Found()


async def test_nothing_is_concluded_from_an_answer_older_than_the_hand_over(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider did not have it when it was asked; but then it was still to come."""
    monkeypatch.setattr(doubts, "_IN_HAND", 0.05)
    provider = SlowToTell(lambda: dispatch)
    dispatch = office.dispatch(provider)
    batch_id = office.batch(RECIPIENT)
    sending = asyncio.create_task(send_rows(dispatch, office.campaign, batch_id, EVERY_ROW))
    await until_async(lambda: provider.handovers, "the hand-over")
    in_doubt = open_ids(office.database, batch_id)
    await asyncio.wait_for(settle_all(dispatch, office.campaign, batch_id, in_doubt), 20)
    assert len(provider.asked) == 2
    await asyncio.wait_for(sending, 20)


class AllAtOnce(InThread):
    """Answers claims when so many were asked for; notes how many messages each asks for."""

    def __init__(self, database: Database, claims: int) -> None:
        super().__init__(database)
        self.asked: list[int] = []
        self.claims = claims

    @override
    async def call(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:  # type: ignore[override]
        if len(self.asked) < self.claims:
            self.asked.append(keywords["most"])
            await until_async(lambda: len(self.asked) == self.claims, "all claims")
        return await super().call(function, *arguments, **keywords)


async def test_chunks_that_claim_together_have_no_more_on_their_way(office: Office) -> None:
    """What they ask for together is what a worker may have on its way; a share of it each, at least."""
    provider = Scripted(sends=lambda one: Accepted(external_id=one.attempt_id))
    dispatch = replace(office.dispatch(provider), ledger=AllAtOnce(office.database, 12))
    batch_ids = [office.batch() for _ in range(12)]
    sending = (send_rows(dispatch, office.campaign, batch_id, EVERY_ROW) for batch_id in batch_ids)
    await asyncio.wait_for(asyncio.gather(*sending), 30)
    asked = sorted(dispatch.ledger.asked)
    assert (asked[0], sum(asked)) == (100, 3 * 266 + 9 * 100)
    assert len(dispatch.in_hand) == 0


class Broken(InThread):
    """Cannot do what it is asked."""

    @override
    async def call(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:  # type: ignore[override]
        await super().call(function, *arguments, **keywords)
        raise ValueError("a bug")


async def test_a_claim_that_fails_is_given_back(office: Office) -> None:
    """Its job fails; what it claimed was never handed over, so it waits again and goes once, by whoever comes next."""
    provider, batch_id = Scripted(), office.batch(RECIPIENT)
    dispatch = office.dispatch(provider)
    broken = replace(dispatch, ledger=Broken(office.database))
    with pytest.raises(ValueError, match="a bug"):
        await send_rows(broken, office.campaign, batch_id, EVERY_ROW)
    assert len(broken.in_hand) == 0
    (message,) = office.messages(batch_id)
    assert (message.latest_status, message.num_attempts) == (MessageStatus.ENQUEUED, 0)
    await asyncio.wait_for(send_rows(dispatch, office.campaign, batch_id, EVERY_ROW), 20)
    (message,) = office.messages(batch_id)
    assert (outcome_of(message), len(provider.handovers)) == ((MessageStatus.SENT, None), 1)


async def test_a_claim_that_is_cut_short_is_given_back(office: Office) -> None:
    """As where a worker stops while nobody can tell it what was claimed."""
    dispatch = replace(office.dispatch(), ledger=SlowToClaim(office.database, asyncio.Event()))
    batch_id = office.batch(RECIPIENT)
    sending = asyncio.create_task(send_rows(dispatch, office.campaign, batch_id, EVERY_ROW))
    await until_async(lambda: open_ids(office.database, batch_id), "the claim")
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    (message,) = office.messages(batch_id)
    assert (message.latest_status, message.num_attempts) == (MessageStatus.ENQUEUED, 0)


async def test_one_record_that_cannot_be_written_takes_none_along(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job fails; the others' records are written, and the provider is to be asked about it."""
    real = recording.write_results

    def refuse(connection: sa.Connection, results: Any, **options: Any) -> None:
        if any(result.external_id == "bad" for _token, result in results):
            raise ValueError("a bug")
        real(connection, results, **options)

    monkeypatch.setattr(recording, "write_results", refuse)
    bad = "6590000002"
    provider = Scripted(sends=lambda one: Accepted(external_id="bad" if one.recipient == bad else one.attempt_id))
    batch_id = office.batch("6590000001", bad, "6590000003")
    with pytest.raises(ValueError, match="a bug"):
        await office.send(batch_id, provider)
    statuses = [message.latest_status for message in office.messages(batch_id)]
    assert statuses == [MessageStatus.SENT, MessageStatus.SENDING, MessageStatus.SENT]
    assert [job for job in jobs_of(office.database) if job.startswith(f"doubts:{batch_id}:")]


class Forgetful(InThread):
    """Does what it is asked, and loses some of the answers."""

    lost = 0

    @override
    async def call(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:  # type: ignore[override]
        found = await super().call(function, *arguments, **keywords)
        if CHANCE.random() < 0.4:
            self.lost += 1
            raise TransientError("nobody knows whether it was done")
        return found


CHANCE = random.Random(7)


async def test_answers_of_the_ledger_that_are_lost(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may have been claimed goes back first, what may have been recorded is recorded again: once each, and sent.

    Two who send the same rows do not take what the other one puts back for their own.
    """
    monkeypatch.setattr(storage.engine, "_FIRST_PAUSE", 0.01)
    ledger, provider = Forgetful(office.database), Scripted(sends=lambda one: Accepted(external_id=one.attempt_id))
    numbers = [str(6590000000 + number) for number in range(3_000)]
    batch_id = office.batch(*numbers)
    dispatch = replace(office.dispatch(provider), ledger=ledger)
    both = (send_rows(dispatch, office.campaign, batch_id, EVERY_ROW) for _ in range(2))
    await asyncio.wait_for(asyncio.gather(*both), 60)
    assert ledger.lost > 3
    assert Counter(handover.recipient for handover in provider.handovers) == Counter(numbers)
    assert {outcome_of(message) for message in office.messages(batch_id)} == {(MessageStatus.SENT, None)}
