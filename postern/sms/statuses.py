"""How the status of an attempt moves: forward only, and what a late receipt may still change."""

from postern.model import MessageStatus

_ORDER = {status: place for place, status in enumerate(MessageStatus)}
FINAL = frozenset({MessageStatus.SUCCESS, MessageStatus.FAILURE})


def accepts(current: MessageStatus, reported: MessageStatus, *, inferred: bool) -> bool:
    """Whether a report of the provider moves an attempt from `current` to `reported`.

    Receipts come late, twice and out of order; whatever does not move the attempt on changes nothing.

    Args:
        current: where the attempt is.
        reported: what the provider says now.
        inferred: whether a current failure was only our own conclusion (expiry, unresolved doubt), which a final
            receipt overrides; one that the provider reported stays.
    """
    if current is MessageStatus.FAILURE and inferred:
        return reported in FINAL
    return current not in FINAL and _ORDER[reported] > _ORDER[current]


def shown_as(status: MessageStatus) -> str:
    """The word that people see: pending, sent, success or failure."""
    if status in {MessageStatus.CREATED, MessageStatus.ENQUEUED, MessageStatus.SENDING}:
        return "pending"
    if status in {MessageStatus.SENT, MessageStatus.SENT_TO_TELCO}:
        return "sent"
    return status.value
