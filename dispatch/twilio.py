"""Twilio: messages by a messaging service, by its HTTP API (https://www.twilio.com/docs/messaging/api/message-resource).

What an answer promises is read from its code, or else from its status (`dispatch.twilio_promises`). A break after
sending promises nothing: the message may have been taken, so it is looked up. Twilio has no idempotency key and no
reference of the sender's, so a look-up goes by recipient, text and time, until its id (SID) is known.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from typing_extensions import override
from yarl import URL

from dispatch.provider import Accepted, Busy, Found, Handover, Outcome, Provider, Refused, Trouble, Unknown
from dispatch.twilio_http import Answer, Connections, NotSentError, ThrottledError, authorization
from dispatch.twilio_promises import refusal
from postern.credentials import TwilioAccount
from postern.model import MessageStatus
from postern.sms.twilio_codes import ACCOUNT, STATUSES, error_code_of, note_of

_LISTED = "1000"  # of a recipient's messages in one look-up, the most that Twilio gives at once
# Twilio's clock is not ours and counts whole seconds; a claim is handed over within seconds.
_BEFORE, _AFTER = timedelta(minutes=1), timedelta(minutes=5)
_REFUSING_ACCOUNT = frozenset({401, 403, 404})
_NOT_FOUND = 404
_BROKEN = (aiohttp.ClientError, TimeoutError)


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
        self._all = URL(f"{base_url}/2010-04-01/Accounts/{account.account_sid}/Messages.json")
        self._key = authorization(account)
        self._connections = connections
        self._service = account.messaging_service_sid
        self._callback = callback

    @override
    async def send(self, handover: Handover) -> Outcome:
        try:
            answer = await self._connections.post(
                self._all,
                self._key,
                To=_number(handover.recipient),
                MessagingServiceSid=self._service,
                Body=handover.text,
                StatusCallback=self._callback(handover.attempt_id),
            )
        except (NotSentError, ThrottledError) as error:
            return _pause(error)
        except _BROKEN:
            return Unknown()
        if not answer.is_success:
            return refusal(answer.status, answer.code)
        return _state_of(answer.body) if answer.body.get("sid") else Unknown()

    @override
    async def find(self, handover: Handover, since: datetime, external_id: str = "") -> Found | Busy:
        try:
            if external_id:
                answer = await self._connections.get(self._one(external_id), self._key)
            else:
                number = _number(handover.recipient)
                answer = await self._connections.get(self._all, self._key, To=number, PageSize=_LISTED)
        except (NotSentError, ThrottledError) as error:
            return _pause(error)
        except _BROKEN as error:
            return Busy(trouble=Trouble.UNANSWERED, detail=f"look-up: {type(error).__name__}")
        if not answer.is_success:
            return _no_answer(answer, is_by_id=bool(external_id))
        if "sid" not in answer.body if external_id else not isinstance(answer.body.get("messages"), list):
            return Busy(trouble=Trouble.UNANSWERED, detail="look-up: an answer that is not Twilio's")
        if external_id:
            return Found(candidates=[_state_of(answer.body)])
        return Found(candidates=self._matching(answer.body["messages"], handover, since))

    def _one(self, external_id: str) -> URL:
        return self._all.parent / "Messages" / f"{external_id}.json"

    def _matching(
        self, listed: Sequence[Mapping[str, Any]], handover: Handover, since: datetime
    ) -> list[Accepted | Refused]:
        """Those that may be it, by text and time. Twilio lists by the time of sending, which those it queues lack."""
        found = [
            (created_at, message["sid"], message)
            for message in listed
            if message.get("sid")
            and (created_at := _time(message.get("date_created")))
            and since - _BEFORE <= created_at <= since + _AFTER
            and message.get("messaging_service_sid") in {None, self._service}
            and _plain(message.get("body") or "") == _plain(handover.text)
        ]
        return [_state_of(message) for _at, _sid, message in sorted(found, key=lambda each: each[:2])]


def _no_answer(answer: Answer, *, is_by_id: bool) -> Found | Busy:
    """What a look-up that failed tells: that there is no such message, or nothing."""
    if is_by_id and answer.status == _NOT_FOUND:
        return Found()
    if answer.status in _REFUSING_ACCOUNT or answer.code in ACCOUNT:
        detail = f"look-up: {answer.status}, {note_of(answer.code) or 'no code'}"
        return Busy(trouble=Trouble.ACCOUNT, detail=detail)
    return Busy(trouble=Trouble.UNANSWERED, detail=f"look-up: {answer.status}")


def _pause(error: NotSentError | ThrottledError) -> Busy:
    if isinstance(error, ThrottledError):
        return Busy(trouble=Trouble.THROTTLED, seconds=error.seconds)
    return Busy(trouble=Trouble.UNREACHABLE, detail=str(error))


def _state_of(message: Mapping[str, Any]) -> Accepted | Refused:
    status, external_id = STATUSES.get(str(message.get("status")), MessageStatus.SENT), str(message["sid"])
    if status is MessageStatus.FAILURE:
        code = message.get("error_code")
        return Refused(code=error_code_of(code), note=note_of(code), external_id=external_id)
    return Accepted(external_id=external_id, status=status)


def _time(text: str | None) -> datetime | None:
    """A time as Twilio writes it (RFC 2822); None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _number(recipient: str) -> str:
    return f"+{recipient}"


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
