"""The door: what becomes of a connection between the moment it is accepted and its first byte of SSH.

Where a load balancer is trusted to speak for its clients, its header is read first. Then bans and room decide.
A connection that is turned away has cost a socket and this small object; nothing of SSH was made for it.
"""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import cast

from typing_extensions import override

from postern.logs import get_logger
from sftpd.proxy import ProxyHeaderError, read_header

HEADER_TIME = 5.0  # seconds for a balancer's header; it sends it at once

_log = get_logger(__name__)


class Door(asyncio.Protocol):
    """One connection on its way in; `let_in` makes the protocol that takes it over, or None to turn it away."""

    def __init__(
        self,
        *,
        proxies: tuple[IPv4Network | IPv6Network, ...],
        let_in: Callable[[str], asyncio.Protocol | None],
    ) -> None:
        self._proxies = proxies
        self._let_in = let_in
        self._header = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._address = ""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if not peer:  # gone already
            self._transport.abort()
            return
        self._address = str(peer[0])
        if self._proxies and self._is_proxy():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HEADER_TIME, self._give_up, "no header in time")
        else:
            self._pass_on(self._address, b"")

    @override
    def data_received(self, data: bytes) -> None:
        """Read the header of a balancer: nobody else is listened to before SSH."""
        self._header += data
        try:
            header = read_header(self._header)
        except ProxyHeaderError as error:
            self._give_up(str(error))
            return
        if header is not None:
            self._stop_timer()
            self._pass_on(header.source or self._address, self._header[header.length :])

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()

    def _pass_on(self, address: str, rest: bytes) -> None:
        assert self._transport is not None
        protocol = self._let_in(address)
        if protocol is None:
            self._transport.abort()
            return
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if rest:
            protocol.data_received(rest)

    def _is_proxy(self) -> bool:
        address = ip_address(self._address.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._proxies)

    def _give_up(self, why: str) -> None:
        assert self._transport is not None
        self._stop_timer()
        _log.warning("proxy.refused", proxy=self._address, why=why)
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
