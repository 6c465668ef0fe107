"""A provider that takes every message at once, for measuring: `python bench/dispatch_stub.py PORT`.

As little as answers Twilio's client by HTTP/1.1, so that who sends is what is measured. `GET /` tells how many
messages came, and the seconds between the first and the last of them; `DELETE /` tells it too, and begins anew.
"""

import asyncio
import json
import sys
import time
import uuid

from typing_extensions import override

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Stub(asyncio.Protocol):
    """One connection."""

    count, first, last = 0, 0.0, 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = self._data[:end].lower()
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + len(_END) + length:
                return
            self._data = self._data[end + len(_END) + length :]
            self._transport.write(self._answer(head.split(b" ", 1)[0]))  # type: ignore[attr-defined]

    def _answer(self, method: bytes) -> bytes:
        cls, is_post = type(self), method == b"post"
        if is_post:
            now = time.monotonic()
            cls.first = cls.first if cls.count else now
            cls.count, cls.last = cls.count + 1, now
            body = (
                f'{{"sid":"SM{uuid.uuid4().hex}","status":"accepted","error_code":null,"error_message":null,"num_segments":"1",'
                '"num_media":"0","direction":"outbound-api","api_version":"2010-04-01","price":null,"price_unit":null,'
                '"from":null,"to":"+6591234567","body":"x","account_sid":"AC1","messaging_service_sid":"MG1",'
                '"date_created":"Sat, 21 Nov 2026 10:00:00 +0000","date_sent":null,'
                '"date_updated":"Sat, 21 Nov 2026 10:00:00 +0000","uri":"/x.json","subresource_uris":{}}'
            )
        else:
            body = json.dumps({"count": cls.count, "seconds": cls.last - cls.first})
            cls.count = 0 if method == b"delete" else cls.count
        status = "201 Created" if is_post else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return (head + body).encode()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
