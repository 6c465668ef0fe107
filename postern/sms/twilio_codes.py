"""What Twilio's words and numbers mean here.

Statuses: https://www.twilio.com/docs/messaging/api/message-resource#message-status-values.
Codes: https://www.twilio.com/docs/api/errors. They come with refusals and with receipts; pure facts, no network.
"""

from collections.abc import Mapping

from postern.model import ErrorCode, MessageStatus

STATUSES: Mapping[str, MessageStatus] = {
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

_MEANINGS: Mapping[ErrorCode, tuple[int, ...]] = {
    ErrorCode.RECIPIENT_INVALID: (
        21211,  # not a phone number
        21217,  # not a reachable format
        21268,  # a premium number
        21610,  # the recipient asked for no more messages
        21614,  # not a mobile number
        21635,  # a landline
        30004,  # blocked by the recipient or the carrier
        30005,  # no such handset
        30006,  # a landline or an unreachable carrier
    ),
    ErrorCode.RECIPIENT_UNAVAILABLE: (30003,),  # switched off or out of reach
    ErrorCode.CONTENT_INVALID: (
        21602,  # no body
        21617,  # over 1,600 characters
        30007,  # filtered
    ),
    ErrorCode.ROUTING_ERROR: (
        21408,  # the account may not send to that country
        21612,  # no route from this sender to that number
        30017,  # the carrier is congested
        30024,  # the sender is not registered with the carrier
        30034,  # the same, in the United States
        30410,  # the carrier timed out
    ),
    ErrorCode.MESSAGE_EXPIRED: (
        30001,  # it waited too long in the queue
        30036,  # its validity ended
    ),
    ErrorCode.DELIVERY_UNKNOWN_ERROR: (30008,),
    ErrorCode.SERVER_UNKNOWN_ERROR: (
        20003,  # the credentials are not accepted
        21606,  # the sender is not one of the account's
        21611,  # the sender's queue is full
        21703,  # the messaging service has no sender
        30002,  # the account is suspended
        30010,  # over the price that was allowed
    ),
}
ERROR_CODES: Mapping[int, ErrorCode] = {code: meaning for meaning, codes in _MEANINGS.items() for code in codes}

# Refusals that speak of the moment: nothing was taken, the same may be tried later.
LATER = frozenset({20429, 21611})

# Refusals that speak of the account or of its settings, and would be given to every message alike.
ACCOUNT = frozenset(
    {
        20003,
        20004,  # the method is not allowed for these credentials
        20005,  # the account is not active
        20006,  # access denied
        20404,  # no such account
        21603,  # no sender
        21606,
        21609,  # the callback URL cannot be used: POSTERN_PUBLIC_URL
        21701,  # no such messaging service
        21702,
        21703,
        21704,
        21705,
        30002,
    }
)


def error_code_of(code: int | None) -> ErrorCode:
    """The error code of ours for one of Twilio's; a missing or unknown one is a `delivery_unknown_error`."""
    return ERROR_CODES.get(code or 0, ErrorCode.DELIVERY_UNKNOWN_ERROR)


def note_of(code: int | None) -> str | None:
    """The code as a note for people who look it up at Twilio."""
    return f"Twilio error {code}" if code else None
