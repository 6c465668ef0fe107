"""Clocks of messages without a final report: when somebody asks, and when they expire."""

from datetime import UTC, datetime, timedelta

import pytest

from postern.model import MessageStatus
from postern.sms.clocks import expires_at, next_look

START = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
LOCAL, FOREIGN = "6591234567", "85223456789"
SENT, TELCO = MessageStatus.SENT, MessageStatus.SENT_TO_TELCO


@pytest.mark.parametrize(
    ("status", "recipient", "hours"),
    [(SENT, LOCAL, 48), (SENT, FOREIGN, 48), (TELCO, LOCAL, 80), (TELCO, FOREIGN, None)]
    + [(status, LOCAL, None) for status in MessageStatus if status not in {SENT, TELCO}],
)
def test_expiry(status: MessageStatus, recipient: str, hours: int | None) -> None:
    """48 hours without a report; 80 where a local telco has it; what a foreign telco has stays so."""
    assert expires_at(status, recipient, START) == (None if hours is None else START + timedelta(hours=hours))


@pytest.mark.parametrize(
    ("status", "recipient", "after", "looks"),
    [
        (SENT, LOCAL, 0, 1),
        (SENT, FOREIGN, 1, 24),
        (SENT, LOCAL, 24, 47),
        (SENT, LOCAL, 47, 48),
        (SENT, LOCAL, 99, 48),
        (TELCO, LOCAL, 1, 24),
        (TELCO, LOCAL, 24, 79),
        (TELCO, LOCAL, 79, 80),
        (TELCO, FOREIGN, 1, None),
        (MessageStatus.SUCCESS, LOCAL, 1, None),
        (MessageStatus.FAILURE, LOCAL, 1, None),
    ],
)
def test_the_provider_is_asked_before_it_expires(
    status: MessageStatus, recipient: str, after: int, looks: int | None
) -> None:
    """An hour and a day after the hand-over, and an hour before the end."""
    found = next_look(status, recipient, START, START + timedelta(hours=after))
    assert found == (None if looks is None else START + timedelta(hours=looks))
