"""Which errors are worth a retry: advice for whoever decides, never a rule."""

from collections.abc import Mapping
from enum import StrEnum

from postern.model import ErrorCode

MOST_RETRIES = 3  # of a message; it has one attempt more


class Worth(StrEnum):
    """Whether a retry may help."""

    NO = "no"
    YES = "yes"
    MAYBE = "maybe"


ADVICE: Mapping[ErrorCode, tuple[Worth, str]] = {
    ErrorCode.RECIPIENT_INVALID: (Worth.NO, "The number does not exist or is not in use; check it."),
    ErrorCode.RECIPIENT_UNAVAILABLE: (Worth.YES, "The phone was off or out of reach; retry after some time."),
    ErrorCode.CONTENT_INVALID: (Worth.NO, "The text was refused; it takes a new campaign with another text."),
    ErrorCode.ROUTING_ERROR: (Worth.MAYBE, "The way to the recipient's network failed; see that the number is active."),
    ErrorCode.MESSAGE_EXPIRED: (Worth.MAYBE, "Nobody knows whether it was delivered; retry what is critical."),
    ErrorCode.DELIVERY_UNKNOWN_ERROR: (Worth.MAYBE, "The provider does not say why; ask the recipient."),
    ErrorCode.SERVER_UNKNOWN_ERROR: (
        Worth.MAYBE,
        "A fault of ours or the provider's; retry when it is mended.",
    ),
}


def worth_of(code: ErrorCode | None) -> Worth:
    """Whether a retry may help after this error."""
    return ADVICE[code][0] if code else Worth.MAYBE
