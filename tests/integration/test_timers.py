"""Messages whose final report never came, on both databases and by a clock that is told: asked about, then expired."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SIMULATOR,
    SimulatedClock,
    add_campaign,
    enqueued_batch,
    record_results,
)
from support.waiting import until_async

from dispatch.accounts import simulated
from dispatch.context import Dispatch
from dispatch.provider import Accepted, Busy, Found, Handover, Outcome, Refused, Trouble
from dispatch.timers import keep_asking, look
from dispatch.workflow import send_rows
from postern.model import Environment, ErrorCode, MessageStatus
from postern.settings import WorkerSettings
from storage.clerk import InThread
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.campaigns import delete_campaign
from storage.ledger.claiming import claim
from storage.ledger.messages import Attempt, Message, list_messages
from storage.ledger.overdue import take_due
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result
from storage.tables import attempts

pytest_plugins = ["support.databases"]

FOREIGN = "85223456789"
HOUR = 3600
SENT, TELCO, SUCCESS, FAILURE = (
    MessageStatus.SENT,
    MessageStatus.SENT_TO_TELCO,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)


@dataclass
class Telling:
    """A provider that takes all, reports nothing by itself, and answers look-ups from a script."""

    tells: Found | Busy = field(default_factory=Found)
    name: str = "telling"
    looks: Sequence[float] = (0.0,)
    asked: list[Handover] = field(default_factory=list)
    asked_for: list[str] = field(default_factory=list)

    async def send(self, handover: Handover) -> Outcome:
        return Accepted(external_id=f"external_{handover.attempt_id}"[:64])

    async def find(self, handover: Handover, _since: datetime, external_id: str = "") -> Found | Busy:
        self.asked.append(handover)
        self.asked_for.append(external_id)
        if isinstance(self.tells, Busy):
            return self.tells
        return Found(candidates=[self._as_ours(one, handover) for one in self.tells.candidates])

    def _as_ours(self, state: Accepted | Refused, handover: Handover) -> Accepted | Refused:
        if state.external_id:
            return state
        external_id = f"external_{handover.attempt_id}"[:64]
        if isinstance(state, Refused):
            return Refused(code=state.code, note=state.note, external_id=external_id)
        return Accepted(external_id=external_id, status=state.status)


@dataclass
class Desk:
    """Messages that were handed over at NOW, and what looks after them."""

    database: Database
    jobs: Jobs
    recipients: Sequence[str] = (RECIPIENT,)
    environment: Environment = Environment.PRODUCTION
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    provider: Telling = field(default_factory=Telling)

    def __post_init__(self) -> None:
        self.campaign = add_campaign(self.database, rate=1e6)
        self.batch_id = enqueued_batch(self.database, self.jobs, self.campaign, self.recipients)
        self.dispatch = Dispatch(
            settings=WorkerSettings(environment=self.environment),
            database=self.database,
            ledger=InThread(self.database),
            jobs=self.jobs,
            senders=simulated(self.provider),
            now=self.clock,
        )

    async def send(self) -> None:
        await asyncio.wait_for(send_rows(self.dispatch, self.campaign, self.batch_id, (1, 1000)), 20)

    async def look_at(self, hours: float) -> int:
        self.clock.now = NOW + timedelta(hours=hours)
        return await look(self.dispatch)

    def reported(self, status: MessageStatus) -> int:
        code = ErrorCode.ROUTING_ERROR if status is FAILURE else None
        receipts = [Receipt(attempt_id=one.attempts[-1].id, status=status, error_code=code) for one in self.messages]
        return apply_receipts(self.database, receipts, now=self.clock())

    @property
    def messages(self) -> list[Message]:
        return list_messages(self.database, batch_id=self.batch_id)

    @property
    def attempt(self) -> Attempt:
        (message,) = self.messages
        assert message.latest_status is message.attempts[-1].status
        return message.attempts[-1]

    def dues(self) -> list[timedelta | None]:
        with self.database.read() as connection:
            found = connection.execute(sa.select(attempts.c.due_at).order_by(attempts.c.row)).scalars()
            return [due and due - NOW for due in found]


@pytest.fixture
async def desk(database: Database, jobs: Jobs) -> Desk:
    """One local message that was handed over."""
    desk = Desk(database, jobs)
    await desk.send()
    return desk


async def test_a_message_without_a_receipt_expires_after_48_hours(desk: Desk) -> None:
    """As our own conclusion, after the provider was asked three times, about what it was handed."""
    assert await desk.look_at(0.99) == 0
    for asked, hours in enumerate((1, 24, 47), start=1):
        assert (await desk.look_at(hours), await desk.look_at(hours)) == (1, 0)
        assert (desk.attempt.status, len(desk.provider.asked)) == (SENT, asked)
    assert await desk.look_at(47.9) == 0
    assert await desk.look_at(48) == 1
    attempt = desk.attempt
    assert (attempt.status, attempt.error_code, attempt.inferred) == (FAILURE, ErrorCode.MESSAGE_EXPIRED, True)
    assert "48 hours" in (attempt.error_note or "")
    assert "Dear Emily" in desk.provider.asked[0].text
    assert desk.provider.asked_for == [attempt.external_id] * 4
    assert (desk.dues(), await desk.look_at(1000)) == ([None], 0)


@pytest.mark.parametrize("report", [SUCCESS, FAILURE])
async def test_a_later_final_receipt_overrides_the_expiry(desk: Desk, report: MessageStatus) -> None:
    """It is the provider's word, not our conclusion; one that is not final changes nothing."""
    await desk.look_at(48)
    assert desk.reported(TELCO) == 0
    assert desk.reported(report) == 1
    attempt = desk.attempt
    assert (attempt.status, attempt.inferred) == (report, False)
    assert attempt.error_code is (ErrorCode.ROUTING_ERROR if report is FAILURE else None)
    assert await desk.look_at(500) == 0


async def test_what_a_telco_has(database: Database, jobs: Jobs) -> None:
    """A foreign number's message ends so; a local one's expires after 80 hours from the hand-over."""
    desk = Desk(database, jobs, recipients=(RECIPIENT, FOREIGN))
    await desk.send()
    assert desk.reported(TELCO) == 2
    assert await desk.look_at(1) == 2
    assert desk.dues() == [timedelta(hours=24), None]
    assert await desk.look_at(79.5) == 1
    assert [message.latest_status for message in desk.messages] == [TELCO, TELCO]
    assert await desk.look_at(80) == 1
    local, foreign = desk.messages
    assert (local.latest_status, foreign.latest_status) == (FAILURE, TELCO)
    assert local.attempts[0].error_code is ErrorCode.MESSAGE_EXPIRED
    assert "80 hours" in (local.attempts[0].error_note or "")
    assert await desk.look_at(10_000) == 0


@pytest.mark.parametrize(
    ("tells", "status", "code", "due"),
    [
        (Accepted(external_id="", status=SUCCESS), SUCCESS, None, None),
        (Accepted(external_id="", status=TELCO), TELCO, None, 24),
        (Accepted(external_id="", status=SENT), SENT, None, 24),
        (Refused(code=ErrorCode.RECIPIENT_UNAVAILABLE), FAILURE, ErrorCode.RECIPIENT_UNAVAILABLE, None),
        (Accepted(external_id="another", status=SUCCESS), SENT, None, 24),
    ],
)
async def test_the_providers_answer_counts_as_a_receipt(
    desk: Desk, tells: Accepted | Refused, status: MessageStatus, code: ErrorCode | None, due: int | None
) -> None:
    """Where it is about this very message."""
    desk.provider.tells = Found(candidates=[tells])
    assert await desk.look_at(1) == 1
    assert (desk.attempt.status, desk.attempt.error_code, desk.attempt.inferred) == (status, code, False)
    assert desk.dues() == [None if due is None else timedelta(hours=due)]


async def test_a_provider_that_cannot_answer_is_asked_again(desk: Desk) -> None:
    """Ten minutes later; at its time the message expires all the same, and is asked about each hour of a day more."""
    desk.provider.tells = Busy(trouble=Trouble.UNREACHABLE)
    await desk.look_at(1)
    assert desk.dues() == [timedelta(hours=1, minutes=10)]
    await desk.look_at(47.95)
    assert desk.dues() == [timedelta(hours=48)]
    for hours in range(48, 72):
        assert await desk.look_at(hours) == 1
        assert (desk.attempt.error_code, desk.attempt.inferred) == (ErrorCode.MESSAGE_EXPIRED, True)
        assert desk.dues() == [timedelta(hours=hours + 1)]
    assert (await desk.look_at(72), desk.dues()) == (1, [None])
    assert desk.attempt.updated_at == NOW + timedelta(hours=48)


@pytest.mark.parametrize(
    ("tells", "status", "code"),
    [
        (Accepted(external_id="", status=SUCCESS), SUCCESS, None),
        (Refused(code=ErrorCode.RECIPIENT_UNAVAILABLE), FAILURE, ErrorCode.RECIPIENT_UNAVAILABLE),
        (Accepted(external_id="", status=TELCO), FAILURE, ErrorCode.MESSAGE_EXPIRED),
        (Busy(trouble=Trouble.ACCOUNT), FAILURE, ErrorCode.MESSAGE_EXPIRED),
    ],
)
async def test_a_provider_that_answers_after_the_end_has_the_last_word(
    desk: Desk, tells: Accepted | Refused | Busy, status: MessageStatus, code: ErrorCode | None
) -> None:
    """Where its word is final; either way nobody asks any more."""
    desk.provider.tells = Busy(trouble=Trouble.UNREACHABLE)
    await desk.look_at(48)
    desk.provider.tells = tells if isinstance(tells, Busy) else Found(candidates=[tells])
    assert await desk.look_at(49) == 1
    assert (desk.attempt.status, desk.attempt.error_code) == (status, code)
    assert desk.attempt.inferred is (code is ErrorCode.MESSAGE_EXPIRED)
    assert (desk.dues(), await desk.look_at(500)) == ([None], 0)


async def test_a_local_telcos_message_ends_after_80_hours_whoever_is_away(desk: Desk) -> None:
    """No terminal status comes later than the contract says."""
    desk.reported(TELCO)
    desk.provider.tells = Busy(trouble=Trouble.UNREACHABLE)
    await desk.look_at(79.95)
    assert desk.attempt.status is TELCO
    await desk.look_at(80)
    assert desk.attempt.error_code is ErrorCode.MESSAGE_EXPIRED


async def test_an_account_that_is_refused_is_not_waited_for(desk: Desk) -> None:
    """It may never answer again."""
    desk.provider.tells = Busy(trouble=Trouble.ACCOUNT)
    await desk.look_at(47.95)
    assert desk.attempt.status is SENT
    await desk.look_at(48)
    assert desk.attempt.error_code is ErrorCode.MESSAGE_EXPIRED


@pytest.mark.parametrize(
    ("tells", "status", "code"),
    [
        (Accepted(external_id="", status=SUCCESS), SUCCESS, None),
        (Refused(code=ErrorCode.RECIPIENT_UNAVAILABLE), FAILURE, ErrorCode.RECIPIENT_UNAVAILABLE),
        (Accepted(external_id="", status=SENT), FAILURE, ErrorCode.MESSAGE_EXPIRED),
        (Accepted(external_id="", status=TELCO), TELCO, None),
    ],
)
async def test_nothing_expires_unasked(
    desk: Desk, tells: Accepted | Refused, status: MessageStatus, code: ErrorCode | None
) -> None:
    """After all workers were away for days, too."""
    desk.provider.tells = Found(candidates=[tells])
    assert await desk.look_at(60) == 1
    assert (desk.attempt.status, desk.attempt.error_code) == (status, code)
    assert desk.dues() == [timedelta(hours=79) if status is TELCO else None]


async def test_a_worker_that_dies_leaves_what_it_took_to_another(desk: Desk) -> None:
    """Nobody else takes it meanwhile."""
    lease, now = timedelta(minutes=10), NOW + timedelta(hours=2)
    (taken,) = take_due(desk.database, most=9, lease=lease, now=now)
    assert taken.external_id == desk.attempt.external_id
    assert take_due(desk.database, most=9, lease=lease, now=now) == []
    assert await desk.look_at(2.2) == 1


async def test_a_deleted_campaigns_messages_come_to_an_end_all_the_same(desk: Desk) -> None:
    """They were handed over."""
    delete_campaign(desk.database, desk.jobs, desk.campaign.id, actor="operator", now=NOW)
    await desk.look_at(1)
    await desk.look_at(48)
    assert (len(desk.provider.asked), desk.attempt.error_code) == (2, ErrorCode.MESSAGE_EXPIRED)


async def test_a_receipt_ends_the_watch(desk: Desk) -> None:
    """Nothing is due of what is final."""
    assert desk.dues() == [timedelta(hours=1)]
    assert desk.reported(SUCCESS) == 1
    assert (desk.dues(), await desk.look_at(100)) == ([None], 0)


async def test_a_receipt_that_is_faster_than_its_hand_over(database: Database, jobs: Jobs) -> None:
    """A sender that dies after it: the clock runs from the claim."""
    desk = Desk(database, jobs)
    claimed = claim(database, batch_id=desk.batch_id, rows=(1, 9), rate=1e6, most=9, account=SIMULATOR, now=NOW)
    desk.reported(SENT)
    assert desk.dues() == [timedelta(hours=1)]
    result = Result(attempt_id=claimed.messages[0].attempt_id, status=SENT, external_id="external_1")
    await desk.look_at(48)
    record_results(database, claimed.token, [result], now=desk.clock())
    assert desk.attempt.error_code is ErrorCode.MESSAGE_EXPIRED


async def test_nothing_expires_in_a_load_test(database: Database, jobs: Jobs) -> None:
    """However late it gets."""
    desk = Desk(database, jobs, environment=Environment.LOADTEST)
    await desk.send()
    desk.clock.advance(100 * HOUR)
    await asyncio.wait_for(keep_asking(desk.dispatch, 0.01, asyncio.Event()), 5)
    assert (desk.attempt.status, desk.provider.asked) == (SENT, [])


async def test_the_look_goes_on_until_told_to_stop(desk: Desk) -> None:
    """As a worker does it."""
    stop = asyncio.Event()
    desk.clock.advance(48 * HOUR)
    looking = asyncio.create_task(keep_asking(desk.dispatch, 0.01, stop))
    await until_async(lambda: desk.attempt.status is FAILURE, "the message to expire")
    stop.set()
    await asyncio.wait_for(looking, 5)


async def test_what_is_due_is_found_by_an_index(desk: Desk) -> None:
    """A look costs what is due, not what there is."""
    plans: list[str] = []

    @sa.event.listens_for(desk.database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "due_at IS NOT NULL" in statement and not statement.startswith("EXPLAIN"):
            found.append((statement, parameters))

    found: list[tuple[str, Any]] = []
    await desk.look_at(1)
    sa.event.remove(desk.database.engine, "before_cursor_execute", note)
    with desk.database.write() as connection:
        if not desk.database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in found:
            explain = "EXPLAIN QUERY PLAN " if desk.database.is_sqlite else "EXPLAIN "
            plans.append(" ".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters)))
    assert len(plans) == 1
    assert "ix_attempts_due_at" in plans[0], plans
