"""How long a message that the provider took may be without a final report, and when somebody asks for one.

Clocks start at the hand-over. Reports usually come within seconds, so one that is missing an hour later may have been
lost on its way; the provider is asked then, a day later, and once more before the attempt expires.
"""

from datetime import datetime, timedelta

from postern.model import MessageStatus
from postern.sms.recipients import LOCAL_CODE

SENT_EXPIRES = timedelta(hours=48)
LOCAL_EXPIRES = timedelta(hours=80)  # a local number whose telco has the message
FIRST_LOOK = timedelta(hours=1)
_SECOND_LOOK = timedelta(hours=24)
_LAST_LOOK = timedelta(hours=1)  # before it expires


def expires_at(status: MessageStatus, recipient: str, handed_over: datetime) -> datetime | None:
    """When an attempt without a final report becomes `message_expired`; None: never.

    What a foreign number's telco has is as far as reports go there, so it ends as `sent_to_telco`.
    """
    if status is MessageStatus.SENT:
        return handed_over + SENT_EXPIRES
    if status is MessageStatus.SENT_TO_TELCO and recipient.startswith(LOCAL_CODE):
        return handed_over + LOCAL_EXPIRES
    return None


def next_look(status: MessageStatus, recipient: str, handed_over: datetime, now: datetime) -> datetime | None:
    """When an attempt without a final report is looked at next; None: nobody need."""
    end = expires_at(status, recipient, handed_over)
    if end is None:
        return None
    looks = (handed_over + FIRST_LOOK, handed_over + _SECOND_LOOK, end - _LAST_LOOK)
    return next((look for look in looks if look > now), end)
