"""The connections to Twilio, as the SDK's HTTP client: one pool, time limits that hold, and no request made twice.

The SDK's own client is left aside for three reasons seen in 9.13: its time-out is not applied, `max_retries` posts a
message again after a 5xx, and without a pool it hands answers to the wrong caller. It also logs bodies and numbers.
What matters here is the moment of a failure: `NotSentError` is raised only where no connection came about; whatever
breaks afterwards is left as it is, since the request may have arrived.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from typing_extensions import override

_CONNECT = 5.0  # seconds to connect, and to agree on TLS
_WAIT = 10.0  # seconds for a free connection; a slice that waits longer has been claimed too early
_ANSWER = 20.0  # seconds between two bytes of an answer
_IN_ALL = 60.0  # seconds
_IDLE = 10.0  # seconds; less than what servers allow, for a connection that they close under a request is a doubt
_CONNECTIONS = 1_000  # what chunks have under way bounds it; a one-time password must not wait behind them
_IS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TOO_MANY_REQUESTS = 429
_LONGEST_WAIT = 3600.0  # seconds; what is asked for beyond it is asked for again


class NotSentError(Exception):
    """No connection came about: nothing was sent."""


class ThrottledError(Exception):
    """Twilio asks for a pause; it has not processed the request."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("too many requests")
        self.seconds = seconds


class Connections(AsyncHttpClient):
    """One pool for all accounts. Made and closed inside the event loop that uses it."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._now = now
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_IDLE),
            timeout=aiohttp.ClientTimeout(total=_IN_ALL, connect=_WAIT, sock_connect=_CONNECT, sock_read=_ANSWER),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @override
    async def request(  # type: ignore[override] # as the SDK's own asynchronous client overrides its blocking one
        self,
        method: str,
        uri: str,
        params: Mapping[str, object] | None = None,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        """One request, once.

        Raises:
            NotSentError: no connection came about.
            ThrottledError: Twilio asks for a pause.
            aiohttp.ClientError: the request may have arrived.
            TimeoutError: the same.
        """
        credentials = {"Authorization": aiohttp.encode_basic_auth(*auth)} if auth else {}
        try:
            async with self._session.request(
                method.upper(),
                uri,
                params=_texts(params),
                data=_form(data),
                headers={**(headers or {}), **credentials, **(_IS_FORM if data else {})},
                proxy=_proxy_for(uri),
                allow_redirects=False,
            ) as answer:
                if answer.status == _TOO_MANY_REQUESTS:
                    raise ThrottledError(self._pause(answer.headers.get("Retry-After")))
                return Response(answer.status, await answer.text(errors="replace"), answer.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
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


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names (`https_proxy`, `no_proxy`).

    Not aiohttp's `trust_env`: that also looks for passwords in `.netrc`, with each request.
    """
    scheme, _, rest = url.partition("://")
    return _proxy(scheme, urlsplit(f"//{rest.partition('/')[0]}").hostname or "")


@cache
def _proxy(scheme: str, host: str) -> str | None:
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _form(fields: Mapping[str, object] | None) -> bytes | None:
    """A form's body, at a third of what aiohttp takes for it."""
    return None if fields is None else urlencode(_texts(fields) or {}).encode()


def _texts(fields: Mapping[str, object] | None) -> dict[str, str] | None:
    """Form fields as the SDK leaves them, as text."""
    if fields is None:
        return None
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
