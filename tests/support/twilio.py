"""A stand-in for Twilio's API that does what it is told: the part that sends messages, on a loopback port.

It keeps what it accepted, lists it by recipient and time, and reports on it when told to, so that a test can say
what reached Twilio, whatever the other side saw of it. It runs in a thread of its own, so that tests without an event
loop and worker processes reach it too. Times, names of fields and error bodies are those of the API's documentation.
"""

import asyncio
import base64
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Self

from aiohttp import web
from twilio.request_validator import RequestValidator

from postern.credentials import TwilioAccount

AUTH_TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What happens to a request. Nothing set: the message is accepted, and that is said."""

    status: int = 201
    code: int | None = None  # Twilio's own, of a refusal
    accepts: bool | None = None  # whether the message is taken all the same; unless set, with 201 only
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # instead of the message or the error
    after: float = 0.0  # seconds
    end: str = "answer"  # or: hang (never answers), reset (breaks the connection)


ACCEPTED = Answer()


@dataclass(kw_only=True)
class Taken:
    """A message that was accepted."""

    sid: str
    fields: Mapping[str, str]
    created_at: datetime
    status: str = "accepted"
    error_code: int | None = None
    sent_at: datetime | None = None

    @property
    def to(self) -> str:
        return self.fields["To"]

    def as_json(self) -> dict[str, Any]:
        return {
            "sid": self.sid,
            "to": self.to,
            "from": None,
            "body": self.fields["Body"],
            "status": self.status,
            "direction": "outbound-api",
            "messaging_service_sid": self.fields["MessagingServiceSid"],
            "date_created": format_datetime(self.created_at),
            "date_updated": format_datetime(self.created_at),
            "date_sent": format_datetime(self.sent_at) if self.sent_at else None,
            "error_code": self.error_code,
            "error_message": None,
            "num_segments": "1",
            "num_media": "0",
            "price": None,
            "price_unit": None,
            "api_version": "2010-04-01",
        }


class TwilioStandIn:
    """The server. Use as a context manager."""

    def __init__(self) -> None:
        self.account = new_account()
        self.keys = {self.account.api_key_sid: self.account.api_key_secret}  # those that are let in
        self.answer: Callable[[Mapping[str, str]], Answer] = lambda _fields: ACCEPTED
        self.list_answer: Callable[[], Answer] = lambda: Answer(status=200)
        self.service_answer: Callable[[], Answer] = lambda: Answer(status=200)
        self.smart_encoding = False
        self.taken: list[Taken] = []
        self.asked: list[Mapping[str, str]] = []  # all requests to send, refused ones too
        self.looked_up: list[Mapping[str, str]] = []
        self.fetched: list[str] = []  # SIDs
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._released.set)
        self._thread.join(10)

    def environment(self) -> dict[str, str]:
        """The settings of a worker that sends here."""
        return {
            "POSTERN_PROVIDER": "twilio",
            "POSTERN_TWILIO_URL": self.url,
            "POSTERN_TWILIO_ACCOUNT_SID": self.account.account_sid,
            "POSTERN_TWILIO_API_KEY_SID": self.account.api_key_sid,
            "POSTERN_TWILIO_API_KEY_SECRET": self.account.api_key_secret,
            "POSTERN_TWILIO_MESSAGING_SERVICE_SID": self.account.messaging_service_sid,
        }

    def by_recipient(self) -> Counter[str]:
        """How many messages were accepted, by recipient."""
        return Counter(one.to.removeprefix("+") for one in self.taken)

    def report(
        self,
        taken: Taken,
        status: str,
        *,
        code: int | None = None,
        token: str | None = None,
        by: str | None = None,
        **changes: str,
    ) -> int:
        """Report on a message to the address that came with it; returns the status of the answer.

        Args:
            taken: the message.
            status: Twilio's word for it.
            code: the error code of a failure.
            token: the auth token to sign with; nothing is signed without one.
            by: where a proxy that answers for the public address would send it on to.
            changes: other fields.
        """
        url = taken.fields["StatusCallback"].partition("#")[0]
        fields = {
            "AccountSid": self.account.account_sid,
            "MessageSid": taken.sid,
            "SmsSid": taken.sid,
            "MessageStatus": status,
            "SmsStatus": status,
            "To": taken.to,
            **({"ErrorCode": str(code)} if code else {}),
            **changes,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if token is not None:
            headers["X-Twilio-Signature"] = RequestValidator(token).compute_signature(url, fields)
        address = url if by is None else by + urllib.parse.urlsplit(url).path
        request = urllib.request.Request(address, urllib.parse.urlencode(fields).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/2010-04-01/Accounts/{account}/Messages.json", self._send)
        app.router.add_get("/2010-04-01/Accounts/{account}/Messages.json", self._list)
        app.router.add_get("/2010-04-01/Accounts/{account}/Messages/{sid}.json", self._fetch)
        app.router.add_get("/v1/Services/{sid}", self._service)  # of messaging.twilio.com
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._released.wait()
        await runner.cleanup()

    async def _send(self, request: web.Request) -> web.StreamResponse:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(fields)
        if not self._is_let_in(request):
            return _error(401, 20003, {})
        answer = self.answer(fields)
        taken = None
        if answer.accepts if answer.accepts is not None else answer.status == 201:
            taken = Taken(sid=f"SM{uuid.uuid4().hex}", fields=fields, created_at=datetime.now(UTC))
            self.taken.append(taken)
        return await self._end(request, answer, taken.as_json() if taken else {})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.looked_up.append(dict(request.query))
        if not self._is_let_in(request):
            return _error(401, 20003, {})
        since = request.query.get("DateSent>")
        listed = [
            one.as_json()
            for one in reversed(self.taken)
            if one.to == request.query.get("To", one.to)
            and (since is None or (one.sent_at is not None and one.sent_at >= datetime.fromisoformat(since)))
        ]
        page = {"messages": listed[: int(request.query.get("PageSize", 50))], "page": 0, "next_page_uri": None}
        return await self._end(request, self.list_answer(), page)

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        sid = request.match_info["sid"]
        self.fetched.append(sid)
        if not self._is_let_in(request):
            return _error(401, 20003, {})
        taken = next((one for one in self.taken if one.sid == sid), None)
        if taken is None:
            return _error(404, 20404, {})
        return await self._end(request, self.list_answer(), taken.as_json())

    async def _service(self, request: web.Request) -> web.StreamResponse:
        sid = request.match_info["sid"]
        if not self._is_key(request):
            return _error(401, 20003, {})
        if sid != self.account.messaging_service_sid:
            return _error(404, 20404, {})
        document = {"sid": sid, "account_sid": self.account.account_sid, "smart_encoding": self.smart_encoding}
        return await self._end(request, self.service_answer(), document)

    async def _end(self, request: web.Request, answer: Answer, document: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(answer.after)
        if answer.end == "hang":
            await self._released.wait()
        if answer.end != "answer":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer.body is not None:
            return web.Response(status=answer.status, text=answer.body, headers=answer.headers)
        if answer.status >= 300:
            return _error(answer.status, answer.code, answer.headers)
        return web.json_response(document, status=answer.status, headers=answer.headers)

    def _is_let_in(self, request: web.Request) -> bool:
        return request.match_info["account"] == self.account.account_sid and self._is_key(request)

    def _is_key(self, request: web.Request) -> bool:
        kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
        key, _, secret = base64.b64decode(encoded).decode().partition(":") if kind == "Basic" else ("", "", "")
        return self.keys.get(key) == secret


def new_account(**changes: Any) -> TwilioAccount:
    """An account with made-up identifiers."""
    fields = {
        "account_sid": f"AC{uuid.uuid4().hex}",
        "api_key_sid": f"SK{uuid.uuid4().hex}",
        "api_key_secret": uuid.uuid4().hex,
        "messaging_service_sid": f"MG{uuid.uuid4().hex}",
        "sender_name": "AGENCY",
        "rate": 10_000.0,
    }
    return TwilioAccount(**{**fields, **changes})


def _error(status: int, code: int | None, headers: Mapping[str, str]) -> web.Response:
    document: dict[str, Any] = {"message": "an error", "status": status}
    if code is not None:
        document |= {"code": code, "more_info": f"https://www.twilio.com/docs/errors/{code}"}
    return web.json_response(document, status=status, headers=headers)
