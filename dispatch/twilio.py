"""Twilio: messages by a messaging service, through the official SDK over connections of ours.

What an answer promises is read from its code, or else from its status (`dispatch.twilio_promises`). A break after
sending promises nothing: the message may have been taken, so it is looked up. Twilio has no idempotency key and no
reference of the sender's, so a look-up goes by recipient, text and time, until its id (SID) is known.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.message import MessageInstance, MessageList
from typing_extensions import override

from dispatch.provider import Accepted, Busy, Found, Handover, Outcome, Provider, Refused, Trouble, Unknown
from dispatch.twilio_http import Connections, NotSentError, ThrottledError
from dispatch.twilio_promises import refusal
from postern.credentials import TwilioAccount
from postern.model import MessageStatus
from postern.sms.twilio_codes import ACCOUNT, STATUSES, error_code_of, note_of

_LISTED = 1000  # of a recipient's messages in one look-up, the most that Twilio gives at once
# Twilio's clock is not ours and counts whole seconds; a claim is handed over within seconds.
_BEFORE, _AFTER = timedelta(minutes=1), timedelta(minutes=5)
_REFUSING_ACCOUNT = frozenset({401, 403, 404})
_NOT_FOUND = 404
_BROKEN = (aiohttp.ClientError, TimeoutError, ValueError)  # ValueError: an answer that is no JSON


class Twilio(Provider):
    """One account at Twilio."""

    name = "twilio"
    looks = (3.0, 10.0)

    def __init__(
        self,
        account: TwilioAccount,
        connections: Connections,
        *,
        callback: Callable[[str], str],
        base_url: str = "https://api.twilio.com",
    ) -> None:
        """Connect nothing yet.

        Args:
            account: whose account it is.
            connections: the pool.
            callback: the address for the reports on an attempt, by its id.
            base_url: Twilio's API, or what stands in for it.
        """
        client = Client(
            account.api_key_sid, account.api_key_secret, account_sid=account.account_sid, http_client=connections
        )
        client.api.base_url = base_url
        self._messages: MessageList = client.messages
        self._service = account.messaging_service_sid
        self._callback = callback

    @override
    async def send(self, handover: Handover) -> Outcome:
        try:
            message = await self._messages.create_async(
                to=_number(handover.recipient),
                messaging_service_sid=self._service,
                body=handover.text,
                status_callback=self._callback(handover.attempt_id),
            )
        except (NotSentError, ThrottledError) as error:
            return _pause(error)
        except TwilioException as error:
            return refusal(*status_and_code(error))
        except _BROKEN:
            return Unknown()
        return _state_of(message) if message.sid else Unknown()

    @override
    async def find(self, handover: Handover, since: datetime, external_id: str = "") -> Found | Busy:
        try:
            if external_id:
                return Found(candidates=[_state_of(await self._messages(external_id).fetch_async())])
            page = await self._messages.page_async(to=_number(handover.recipient), page_size=_LISTED)
            listed = list(page)
        except (NotSentError, ThrottledError) as error:
            return _pause(error)
        except TwilioException as error:
            return _no_answer(error, is_by_id=bool(external_id))
        except _BROKEN as error:
            return Busy(trouble=Trouble.UNANSWERED, detail=f"look-up: {type(error).__name__}")
        return Found(candidates=self._matching(listed, handover, since))

    def _matching(
        self, listed: Sequence[MessageInstance], handover: Handover, since: datetime
    ) -> list[Accepted | Refused]:
        """Those that may be it, by text and time. Twilio lists by the time of sending, which those it queues lack."""
        found = [
            (message.date_created, message)
            for message in listed
            if message.sid
            and message.date_created
            and since - _BEFORE <= message.date_created <= since + _AFTER
            and message.messaging_service_sid in {None, self._service}
            and _plain(message.body or "") == _plain(handover.text)
        ]
        return [_state_of(message) for _at, message in sorted(found, key=lambda pair: (pair[0], pair[1].sid))]


def status_and_code(error: TwilioException) -> tuple[int, int | None]:
    """The SDK gives the status for a code where the answer had none."""
    if (page := next((one for one in error.args if isinstance(one, Response)), None)) is not None:
        return page.status_code, None  # of a listing the SDK gives the answer as it was
    status, code = getattr(error, "status", 0), getattr(error, "code", None)
    is_code = isinstance(code, int) and not (isinstance(error, TwilioRestException) and code == status)
    return status, code if is_code else None


def _no_answer(error: TwilioException, *, is_by_id: bool) -> Found | Busy:
    """What a look-up that failed tells: that there is no such message, or nothing."""
    status, code = status_and_code(error)
    if is_by_id and status == _NOT_FOUND:
        return Found()
    if status in _REFUSING_ACCOUNT or code in ACCOUNT:
        return Busy(trouble=Trouble.ACCOUNT, detail=f"look-up: {status}, {note_of(code) or 'no code'}")
    return Busy(trouble=Trouble.UNANSWERED, detail=f"look-up: {type(error).__name__}")


def _pause(error: NotSentError | ThrottledError) -> Busy:
    if isinstance(error, ThrottledError):
        return Busy(trouble=Trouble.THROTTLED, seconds=error.seconds)
    return Busy(trouble=Trouble.UNREACHABLE, detail=str(error))


def _state_of(message: MessageInstance) -> Accepted | Refused:
    status = STATUSES.get(str(message.status), MessageStatus.SENT)
    if status is MessageStatus.FAILURE:
        code = message.error_code
        return Refused(code=error_code_of(code), note=note_of(code), external_id=message.sid or "")
    return Accepted(external_id=message.sid or "", status=status)


def _number(recipient: str) -> str:
    return f"+{recipient}"


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
