"""What the ledger counts for reports of charges, on both databases."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SECOND,
    SIMULATOR,
    add_campaign,
    change,
    change_message,
    enqueued_batch,
    record_results,
)
from support.ended import add_attempt

from postern.model import Campaign, Channel, ErrorCode, MessageStatus
from postern.months import Month, billing_year, month_of
from postern.sms.usage import Usage
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.cancelling import cancel_batch, end_rows
from storage.ledger.charges import list_usage
from storage.ledger.claiming import claim
from storage.ledger.receipts import Receipt, apply_receipts
from storage.ledger.results import Result
from storage.tables import attempts, campaigns, messages

pytest_plugins = ["support.databases"]

SINGAPORE = ZoneInfo("Asia/Singapore")
NOVEMBER, DECEMBER = Month(2026, 11), Month(2026, 12)
FOREIGN = "85223456789"
SENT, SUCCESS, FAILURE = MessageStatus.SENT, MessageStatus.SUCCESS, MessageStatus.FAILURE


def counted(used: Sequence[Usage]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Messages, attempts and segments, by month and outcome."""
    return {(str(one.month), one.kind.outcome): (one.messages, one.attempts, one.segments) for one in used}


@pytest.fixture
def campaign(database: Database) -> Campaign:
    """A campaign for the public."""
    return add_campaign(database)


@pytest.fixture
def batch_id(database: Database, jobs: Jobs, campaign: Campaign) -> str:
    """A batch of four messages, in rows 2 to 5, the last of them to a foreign number."""
    return enqueued_batch(database, jobs, campaign, [RECIPIENT] * 3 + [FOREIGN])


def test_attempts_are_counted_by_all_that_a_charge_depends_on(
    database: Database, campaign: Campaign, batch_id: str
) -> None:
    """Status, error, local or foreign, simulated or not; with the segments of their messages."""
    change_message(database, batch_id, 3, segments=4)
    failed = {"status": FAILURE.value, "error_type": "delivery_error", "error_code": "routing_error"}
    for row, values in {2: {}, 3: {}, 4: failed, 5: {"provider": "simulator"}}.items():
        add_attempt(database, batch_id, row, **values)
    used = list_usage(database, [NOVEMBER], SINGAPORE)
    assert {(one.campaign_id, one.month, one.kind.channel) for one in used} == {(campaign.id, NOVEMBER, Channel.PUBLIC)}
    found = {
        (one.kind.status, one.kind.error_code, one.kind.is_local, one.kind.is_simulated): (one.attempts, one.segments)
        for one in used
    }
    assert found == {
        (SUCCESS, None, True, False): (2, 5),
        (FAILURE, ErrorCode.ROUTING_ERROR, True, False): (1, 1),
        (SUCCESS, None, False, True): (1, 1),
    }


@pytest.mark.parametrize(
    ("sent_at", "zone", "month"),
    [
        (datetime(2026, 10, 31, 15, 59, 59, 999_999, UTC), SINGAPORE, Month(2026, 10)),
        (datetime(2026, 10, 31, 16, tzinfo=UTC), SINGAPORE, NOVEMBER),
        (datetime(2026, 11, 30, 15, 59, 59, 999_999, UTC), SINGAPORE, NOVEMBER),
        (datetime(2026, 11, 30, 16, tzinfo=UTC), SINGAPORE, DECEMBER),
        (datetime(2026, 11, 30, 16, tzinfo=UTC), ZoneInfo("UTC"), NOVEMBER),
        (datetime(2026, 11, 1, 3, 59, 59, tzinfo=UTC), ZoneInfo("America/New_York"), Month(2026, 10)),
        (datetime(2026, 12, 1, 4, 59, 59, tzinfo=UTC), ZoneInfo("America/New_York"), NOVEMBER),
    ],
)
def test_an_attempt_belongs_to_the_month_of_its_hand_over(
    database: Database, batch_id: str, sent_at: datetime, zone: ZoneInfo, month: Month
) -> None:
    """In the service's time zone; in no other month; when it was made does not matter."""
    add_attempt(database, batch_id, 2, sent_at=sent_at, created_at=sent_at - timedelta(hours=1))
    months = [Month(2026, 10), NOVEMBER, DECEMBER]
    assert [one for one in months if list_usage(database, [one], zone)] == [month]
    assert [one.month for one in list_usage(database, months, zone)] == [month]


def test_a_billing_year_is_counted_month_by_month(database: Database, jobs: Jobs, campaign: Campaign) -> None:
    """From the first moment of February to the last one of January; what is beyond is another year's."""
    months = billing_year(2026)
    moments = [months[0].start(SINGAPORE) - timedelta(microseconds=1)]
    for month in months:
        moments += [month.start(SINGAPORE), month.next().start(SINGAPORE) - timedelta(microseconds=1)]
    moments.append(months[-1].next().start(SINGAPORE))
    batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * len(moments))
    for row, moment in enumerate(moments, start=2):
        add_attempt(database, batch_id, row, sent_at=moment)
    used = list_usage(database, months, SINGAPORE)
    assert {one.month: one.attempts for one in used} == dict.fromkeys(months, 2)
    (last,) = list_usage(database, billing_year(2025), SINGAPORE)
    (first,) = list_usage(database, billing_year(2027), SINGAPORE)
    assert [(str(one.month), one.attempts) for one in (last, first)] == [("2026-01", 1), ("2027-02", 1)]


def test_each_attempt_of_a_retried_message_counts(database: Database, batch_id: str) -> None:
    """Where it was handed over; the message itself counts once, where that was first."""
    december = NOW + timedelta(days=12)
    failed = {"status": FAILURE.value, "error_type": "delivery_error", "error_code": "recipient_unavailable"}
    change_message(database, batch_id, 2, segments=2)
    add_attempt(database, batch_id, 2, **failed)
    add_attempt(database, batch_id, 2, number=2, sent_at=NOW + SECOND, **failed)
    add_attempt(database, batch_id, 2, number=3, sent_at=december)
    used = list_usage(database, [NOVEMBER, DECEMBER], SINGAPORE)
    assert counted(used) == {
        ("2026-11", "recipient_unavailable"): (1, 2, 4),
        ("2026-12", "success"): (0, 1, 2),
    }


def test_what_nobody_was_handed_is_left_out(database: Database, jobs: Jobs, batch_id: str) -> None:
    """The rest of a cancelled batch. A message of it that is sent by a later attempt counts there."""
    cancel_batch(database, jobs, batch_id, actor="operator", now=NOW)
    end_rows(database, batch_id, (2, 5), now=NOW)
    assert list_usage(database, [NOVEMBER], SINGAPORE) == []
    add_attempt(database, batch_id, 2, number=2)
    assert counted(list_usage(database, [NOVEMBER], SINGAPORE)) == {("2026-11", "success"): (1, 1, 1)}


def test_a_refusal_on_the_spot_belongs_to_the_month_of_its_attempt(database: Database, batch_id: str) -> None:
    """The provider took it to judge it, so it is charged as its status says, though nothing was accepted."""
    account = SIMULATOR
    now = datetime(2026, 11, 30, 15, 59, 59, tzinfo=UTC)
    claimed = claim(database, batch_id=batch_id, rows=(2, 3), rate=1e6, most=2, account=account, now=now)
    first, second = claimed.messages
    refused = Result(attempt_id=first.attempt_id, status=FAILURE, error_code=ErrorCode.RECIPIENT_INVALID)
    taken = Result(attempt_id=second.attempt_id, status=SENT, external_id="SM1")
    record_results(database, claimed.token, [refused, taken], now=now + SECOND)
    months = [NOVEMBER, DECEMBER]
    assert counted(list_usage(database, months, SINGAPORE)) == {
        ("2026-11", "recipient_invalid"): (1, 1, 1),
        ("2026-12", "sent"): (1, 1, 1),
    }
    apply_receipts(database, [Receipt(attempt_id=second.attempt_id, status=SUCCESS)], now=now + timedelta(days=40))
    assert ("2026-12", "success") in counted(list_usage(database, months, SINGAPORE))


def test_what_is_handed_over_just_now_is_counted(database: Database, batch_id: str) -> None:
    """It has no time of its hand-over yet."""
    claim(database, batch_id=batch_id, rows=(2, 5), rate=1e6, most=4, account=SIMULATOR, now=NOW)
    used = list_usage(database, [NOVEMBER], SINGAPORE)
    assert Counter({one.kind.is_local: one.attempts for one in used}) == {True: 3, False: 1}
    assert {one.kind.status for one in used} == {MessageStatus.SENDING}


def test_deleted_and_internal_campaigns_are_counted(database: Database, jobs: Jobs, batch_id: str) -> None:
    """Each under its own id; a report can be of one of them."""
    other = add_campaign(database)
    other_batch = enqueued_batch(database, jobs, other, [RECIPIENT])
    change(database, campaigns, other.id, channel=Channel.INTERNAL.value, deleted_at=NOW)
    add_attempt(database, batch_id, 2)
    add_attempt(database, other_batch, 2)
    assert len(list_usage(database, [NOVEMBER], SINGAPORE)) == 2
    (one,) = list_usage(database, [NOVEMBER], SINGAPORE, campaign_id=other.id)
    assert (one.campaign_id, one.kind.channel, one.attempts) == (other.id, Channel.INTERNAL, 1)
    assert list_usage(database, [NOVEMBER], SINGAPORE, campaign_id="campaign_x") == []


def test_an_empty_ledger_has_nothing(database: Database) -> None:
    """And says so."""
    assert list_usage(database, billing_year(2026), SINGAPORE) == []


def test_counting_in_the_database_is_counting_by_hand(database: Database, jobs: Jobs) -> None:
    """Whatever was sent when and became what, over two years."""
    chance = random.Random(11)
    outcomes = [(SUCCESS, None), (SENT, None), *((FAILURE, code) for code in ErrorCode)]
    expected: Counter[tuple[object, ...]] = Counter()
    months = billing_year(2026)
    for _ in range(3):
        campaign = add_campaign(database)
        people = [chance.choice([RECIPIENT, FOREIGN]) for _ in range(60)]
        batch_id = enqueued_batch(database, jobs, campaign, people)
        for row, recipient in enumerate(people, start=2):
            segments = chance.randint(1, 7)
            change_message(database, batch_id, row, segments=segments)
            for number in range(1, chance.randint(1, 4) + 1):
                status, code = chance.choice(outcomes)
                sent_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(2 * 365 * 24 * 60))
                provider = chance.choice(["twilio", "simulator"])
                add_attempt(
                    database,
                    batch_id,
                    row,
                    number=number,
                    status=status.value,
                    error_code=code.value if code else None,
                    provider=provider,
                    sent_at=sent_at,
                )
                month = month_of(sent_at, SINGAPORE)
                key = (campaign.id, month, status, code, recipient == RECIPIENT, provider == "simulator")
                if month in months:
                    expected.update(
                        {(*key, "messages"): number == 1, (*key, "attempts"): 1, (*key, "segments"): segments}
                    )
    found: Counter[tuple[object, ...]] = Counter()
    for one in list_usage(database, months, SINGAPORE):
        kind = one.kind
        key = (one.campaign_id, one.month, kind.status, kind.error_code, kind.is_local, kind.is_simulated)
        counts = {"messages": one.messages, "attempts": one.attempts, "segments": one.segments}
        found.update({(*key, name): count for name, count in counts.items()})
    assert +found == +expected
    assert found.total() > 500


def test_messages_are_found_by_their_key(sqlite_url: str) -> None:
    """A report looks each message up; it never reads all messages for each attempt."""
    database = Database(sqlite_url)
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    list_usage(database, billing_year(2026), SINGAPORE)
    ((statement, parameters),) = statements
    with database.read() as connection:
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    database.dispose()
    assert [line for line in plan if line.startswith("SCAN")] == [f"SCAN {attempts.name}"]
    assert any(line.startswith(f"SEARCH {messages.name} USING") for line in plan)
