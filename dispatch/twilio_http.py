"""The connections to Twilio's HTTP API: one pool, time limits that hold, and no request made twice.

The official SDK is left aside. Its own client does not apply its time-out, posts a message again after a 5xx
(`max_retries`), hands answers to the wrong caller without a pool, and logs bodies and numbers (seen in 9.13); over a
pool of ours it still takes a third more of the processor for a message (docs/benchmarks.md).
What matters here is the moment of a failure: `NotSentError` is raised only where no connection came about; whatever
breaks afterwards is left as it is, since the request may have arrived.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from postern.credentials import TwilioAccount

_CONNECT = 5.0  # seconds to connect, and to agree on TLS
_WAIT = 10.0  # seconds for a free connection; a slice that waits longer has been claimed too early
_IN_ALL = 25.0  # seconds to hand a message over; a worker that stops waits longer, unless it is told otherwise
_LOOK_UP = 60.0  # seconds for a list of what was sent
_SILENCE = 20.0  # seconds between two bytes of a list; for each message, this limit would be two timers more
_IDLE = 10.0  # seconds; less than what servers allow, for a connection that they close under a request is a doubt
_CONNECTIONS = 1_000  # more than a few chunks have on their way: a one-time password must not wait behind them
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)
_FORM = "application/x-www-form-urlencoded"
_SUCCESS = 2  # hundred
_TOO_MANY_REQUESTS = 429
_LONGEST_WAIT = 3600.0  # seconds; what is asked for beyond it is asked for again


class NotSentError(Exception):
    """No connection came about: nothing was sent."""


class ThrottledError(Exception):
    """Twilio asks for a pause; it has not processed the request."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("too many requests")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Twilio, or a proxy before it, answered."""

    status: int  # of HTTP
    body: Mapping[str, Any]  # empty where it is no JSON object

    @property
    def is_success(self) -> bool:
        """Whether what was asked for was done."""
        return self.status // 100 == _SUCCESS

    @property
    def code(self) -> int | None:
        """Twilio's own code for an error."""
        code = self.body.get("code")
        return code if isinstance(code, int) else None


class Connections:
    """One pool for all accounts. Made and closed inside the event loop that uses it."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._proxy_for = cache(_proxy_for)  # a pool goes one way all its life
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_IDLE),
            timeout=_limit(_IN_ALL),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "User-Agent": "postern"},
        )

    async def get(self, url: URL, key: str, **parameters: str) -> Answer:
        """Look something up; `key` and errors as with `post`."""
        return await self._request("GET", url, key, params=parameters, timeout=_limit(_LOOK_UP, _SILENCE))

    async def post(self, url: URL, key: str, **fields: str) -> Answer:
        """Send a form, once.

        Args:
            url: where to.
            key: what `authorization` makes of an API key.
            fields: the form's.

        Raises:
            NotSentError: no connection came about.
            ThrottledError: Twilio asks for a pause.
            aiohttp.ClientError: the request may have arrived.
            TimeoutError: the same.
        """
        form = URL.build(query=fields).raw_query_string.encode()
        return await self._request("POST", url, key, data=aiohttp.BytesPayload(form, content_type=_FORM))

    async def _request(self, method: str, url: URL, key: str, **what: Any) -> Answer:
        headers, proxy = {"Authorization": key}, self._proxy_for(url.scheme, url.host or "")
        try:
            async with self._session.request(
                method, url, headers=headers, proxy=proxy, allow_redirects=False, **what
            ) as answer:
                if answer.status == _TOO_MANY_REQUESTS:
                    raise ThrottledError(self._pause(answer.headers.get("Retry-After")))
                return Answer(status=answer.status, body=_object(await answer.read()))
        except _NOT_SENT as error:
            raise NotSentError(type(error).__name__) from error

    async def close(self) -> None:
        """Close the pool."""
        await self._session.close()

    def _pause(self, value: str | None) -> float | None:
        """`Retry-After` in seconds: a number or a date (RFC 9110, 10.2.3); None where nothing is to be understood."""
        if value is None:
            return None
        try:
            seconds = float(value) if value.strip().isdigit() else self._until(value)
        except ValueError:
            return None
        return min(max(seconds, 0.0), _LONGEST_WAIT)

    def _until(self, date: str) -> float:
        at = parsedate_to_datetime(date)
        return (at.replace(tzinfo=at.tzinfo or UTC) - self._now()).total_seconds()


def _limit(in_all: float, silence: float | None = None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=in_all, connect=_WAIT, sock_connect=_CONNECT, sock_read=silence)


def authorization(account: TwilioAccount) -> str:
    """The header of HTTP Basic (RFC 7617) for an account's API key."""
    return aiohttp.encode_basic_auth(account.api_key_sid, account.api_key_secret)


def _proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names (`https_proxy`, `no_proxy`).

    Not aiohttp's `trust_env`: that also looks for passwords in `.netrc`, with each request.
    """
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body.decode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
