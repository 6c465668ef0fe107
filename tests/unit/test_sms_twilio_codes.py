"""What Twilio's statuses and codes mean, code by code."""

import pytest

from postern.model import ErrorCode, MessageStatus
from postern.sms.twilio_codes import ACCOUNT, ERROR_CODES, LATER, STATUSES, error_code_of, note_of


@pytest.mark.parametrize(
    ("meaning", "codes"),
    [
        ("recipient_invalid", [21211, 21217, 21268, 21610, 21614, 21635, 30004, 30005, 30006]),
        ("recipient_unavailable", [30003]),
        ("content_invalid", [21602, 21617, 30007]),
        ("routing_error", [21408, 21612, 30017, 30024, 30034, 30410]),
        ("message_expired", [30001, 30036]),
        ("delivery_unknown_error", [30008]),
        ("server_unknown_error", [20003, 21606, 21611, 21703, 30002, 30010]),
    ],
)
def test_the_table_of_codes_is_the_contract(meaning: str, codes: list[int]) -> None:
    """Every code of each of our error codes, and no other."""
    assert sorted(code for code, found in ERROR_CODES.items() if found == meaning) == codes
    assert {error_code_of(code) for code in codes} == {ErrorCode(meaning)}


@pytest.mark.parametrize("code", [None, 0, -1, 99999, 20429])
def test_an_unknown_code_is_an_unknown_delivery_error(code: int | None) -> None:
    """As is a failure without any."""
    assert error_code_of(code) is ErrorCode.DELIVERY_UNKNOWN_ERROR


def test_no_code_speaks_of_the_moment_and_of_the_account() -> None:
    """Each refusal has one meaning."""
    assert not LATER & ACCOUNT


def test_every_status_has_a_meaning() -> None:
    """Twilio's words for messages that go out; those for messages that come in are not there."""
    assert STATUSES == {
        "accepted": MessageStatus.SENT,
        "scheduled": MessageStatus.SENT,
        "queued": MessageStatus.SENT,
        "sending": MessageStatus.SENT,
        "sent": MessageStatus.SENT_TO_TELCO,
        "delivered": MessageStatus.SUCCESS,
        "read": MessageStatus.SUCCESS,
        "undelivered": MessageStatus.FAILURE,
        "failed": MessageStatus.FAILURE,
        "canceled": MessageStatus.FAILURE,
    }


def test_a_note_names_the_code() -> None:
    """For people who look it up."""
    assert (note_of(30003), note_of(None)) == ("Twilio error 30003", None)
