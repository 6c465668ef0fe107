"""What an answer other than success promises about the message: that it was not taken, or nothing.

A code of Twilio's is Twilio's word. An answer without one may be a proxy's, which may have passed the request on; so
only those statuses count as a promise of which RFC 9110 (15.5) or RFC 6585 says that the request was not processed.
What they speak of decides the rest: a message that cannot be sent fails, what any message would hear lets all wait.
Every other status promises nothing, and the message is looked up.
"""

from collections.abc import Mapping

from dispatch.provider import Busy, Outcome, Refused, Trouble, Unknown
from postern.sms.twilio_codes import ACCOUNT, ERROR_CODES, LATER, error_code_of, note_of

_CLIENT_ERRORS = range(400, 500)
# Who answers so has heard or passed on less, or more, than it says: 408 and 499 a request that took too long
# (also by a gateway that waited for Twilio), 425 one that it takes for a replay, 424 one that hangs on another.
_DOUBTS = frozenset({408, 424, 425, 499})
_MESSAGE = frozenset(  # not processed, for what stands in the request
    {
        400,  # malformed
        413,  # too large
        422,  # not to be processed
    }
)
_TROUBLES: Mapping[int, Trouble] = {  # not processed, whatever the message
    401: Trouble.ACCOUNT,  # the credentials
    402: Trouble.ACCOUNT,  # a payment
    403: Trouble.ACCOUNT,
    404: Trouble.ACCOUNT,  # the address: the account's, or POSTERN_TWILIO_URL
    405: Trouble.ACCOUNT,  # the same: what is there takes no messages
    407: Trouble.ACCOUNT,  # the proxy wants credentials
    410: Trouble.ACCOUNT,  # the address, for good
    411: Trouble.ACCOUNT,  # a proxy that does not take such requests, as the next three
    414: Trouble.ACCOUNT,
    415: Trouble.ACCOUNT,
    417: Trouble.ACCOUNT,
    421: Trouble.UNREACHABLE,  # another server was meant; the next connection may reach it
    426: Trouble.ACCOUNT,  # another protocol is wanted
    429: Trouble.THROTTLED,
    431: Trouble.ACCOUNT,  # header fields too large: they are the same for every message
    451: Trouble.ACCOUNT,  # somebody's filter, for legal reasons
}


def refusal(status: int, code: int | None) -> Outcome:
    """What an answer other than success promises.

    Args:
        status: of HTTP.
        code: Twilio's own, where there is one.
    """
    detail = f"{status}, {note_of(code) or 'no code'}"
    if code in LATER:
        return Busy(trouble=Trouble.THROTTLED, detail=detail)
    if code in ACCOUNT:
        return Busy(trouble=Trouble.ACCOUNT, detail=detail)
    if code in ERROR_CODES and status in _CLIENT_ERRORS:
        return Refused(code=error_code_of(code), note=note_of(code))
    if status in _TROUBLES:
        return Busy(trouble=_TROUBLES[status], detail=detail)
    if status in _MESSAGE or (code is not None and status in _CLIENT_ERRORS and status not in _DOUBTS):
        return Refused(code=error_code_of(code), note=note_of(code) or f"HTTP {status}")
    return Unknown()
