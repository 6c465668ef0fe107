"""The world outside: a mail server and a provider of SMS that count what reaches them.

The provider speaks as much of Twilio's Messages API as Postern uses: create, list by recipient, status callbacks with
a signature, which are repeated until they are taken.
"""

import asyncio
import base64
import email
import hashlib
import hmac
import threading
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

ACCOUNT = {
    "POSTERN_PROVIDER": "twilio",
    "POSTERN_TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "POSTERN_TWILIO_API_KEY_SID": "SK" + "0" * 32,
    "POSTERN_TWILIO_API_KEY_SECRET": "not a secret",
    "POSTERN_TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32,
    "POSTERN_TWILIO_AUTH_TOKEN": "no token",
}


class Mailbox:
    """What the mail server took: how often each Message-ID came, and what it refuses now."""

    def __init__(self) -> None:
        self.mails: Counter[str] = Counter()
        self.is_refusing = False

    # aiosmtpd finds this by its name.
    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        if self.is_refusing:
            return "451 4.3.0 Not now"
        assert isinstance(envelope.content, bytes)
        self.mails[str(email.message_from_bytes(envelope.content)["Message-ID"])] += 1
        return "250 OK"


class Telco:
    """What the provider was handed: how often each number, and how often it was asked."""

    def __init__(self) -> None:
        self.handed: Counter[str] = Counter()
        self.looked_up = 0
        self._messages: dict[str, list[dict[str, Any]]] = {}
        self._reports: set[asyncio.Task[None]] = set()

    def routes(self) -> web.Application:
        """Its API."""
        app = web.Application()
        path = "/2010-04-01/Accounts/{account}/Messages.json"
        app.add_routes([web.post(path, self._create), web.get(path, self._list)])
        return app

    async def _create(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        number = form["To"]
        self.handed[number] += 1
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        message = {
            "sid": f"SM{uuid.uuid4().hex}",
            "account_sid": request.match_info["account"],
            "to": number,
            "from": None,
            "body": form["Body"],
            "status": "accepted",
            "direction": "outbound-api",
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "num_segments": "1",
            "num_media": "0",
            "error_code": None,
            "error_message": None,
            "date_created": now,
            "date_updated": now,
            "date_sent": now,
            "uri": "",
            "price": None,
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "subresource_uris": {},
        }
        self._messages.setdefault(number, []).append(message)
        if form.get("StatusCallback"):
            task = asyncio.create_task(self._report(form["StatusCallback"].partition("#")[0], message))
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)
        return web.json_response(message, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        self.looked_up += 1
        found = self._messages.get(request.query.get("To", ""), [])
        return web.json_response({"messages": found, "page": 0, "page_size": 1000, "next_page_uri": None, "uri": ""})

    async def _report(self, url: str, message: dict[str, Any]) -> None:
        """Report `sent` and `delivered`, each until it is taken, and the last one twice."""
        async with aiohttp.ClientSession() as session:
            for status in ("sent", "delivered", "delivered"):
                form = {"MessageSid": message["sid"], "MessageStatus": status, "To": message["to"], "AccountSid": ""}
                form["AccountSid"] = message["account_sid"]
                headers = {"X-Twilio-Signature": _signature(url, form)}
                for _ in range(300):
                    try:
                        async with session.post(url, data=form, headers=headers) as answer:
                            if answer.status < 300:
                                break
                    except (aiohttp.ClientError, OSError):
                        pass
                    await asyncio.sleep(0.2)
                message["status"] = status


class Outside:
    """Both of them, in threads of their own, on free ports of the loopback."""

    def __init__(self) -> None:
        self.mailbox, self.telco = Mailbox(), Telco()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._smtp: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, *_exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def smtp_url(self) -> str:
        """The URL of the mail server, as the settings take it."""
        assert self._smtp is not None
        return f"smtp://127.0.0.1:{self._smtp.sockets[0].getsockname()[1]}"

    @property
    def twilio_url(self) -> str:
        """The address of the provider's API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> Mapping[str, str]:
        """What a Postern needs to know of them."""
        return {**ACCOUNT, "POSTERN_TWILIO_URL": self.twilio_url, "POSTERN_SMTP_URL": self.smtp_url}

    async def _serve(self) -> None:
        self._smtp = await self._loop.create_server(lambda: SMTP(self.mailbox, loop=self._loop), "127.0.0.1", 0)
        self._runner = web.AppRunner(self.telco.routes())
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def _leave(self) -> None:
        for task in self.telco._reports:
            task.cancel()
        assert self._smtp is not None
        self._smtp.close()
        assert self._runner is not None
        await self._runner.cleanup()


def _signature(url: str, form: Mapping[str, str]) -> str:
    """Twilio's: HMAC-SHA1 over the URL and the sorted fields (https://www.twilio.com/docs/usage/webhooks)."""
    text = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    return base64.b64encode(hmac.new(b"no token", text.encode(), hashlib.sha1).digest()).decode()
