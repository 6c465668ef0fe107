"""From a provider's outcome to what the ledger records of an attempt."""

from dispatch.provider import Accepted, Refused, Unknown
from postern.model import ErrorCode, MessageStatus
from storage.ledger.claiming import Claimed
from storage.ledger.results import Result

_UNRESOLVED = (
    "Nobody recorded whether this message was handed over: the connection broke, or the sending process ended, and the "
    "provider could not tell whether it has the message. It was not sent again; retrying may deliver it twice."
)


def result_of(claimed: Claimed, outcome: Accepted | Refused | Unknown) -> Result:
    """What to record; a doubt that nothing resolved is a failure of our own conclusion."""
    if isinstance(outcome, Accepted):
        return Result(
            attempt_id=claimed.attempt_id,
            status=outcome.status,
            external_id=outcome.external_id,
        )
    is_unknown = isinstance(outcome, Unknown)
    return Result(
        attempt_id=claimed.attempt_id,
        status=MessageStatus.FAILURE,
        external_id="" if isinstance(outcome, Unknown) else outcome.external_id,
        error_code=ErrorCode.SERVER_UNKNOWN_ERROR if isinstance(outcome, Unknown) else outcome.code,
        error_note=_UNRESOLVED if isinstance(outcome, Unknown) else outcome.note,
        inferred=is_unknown,
    )
