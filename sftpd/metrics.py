"""What Prometheus is told of a gate's process: counts, by outcomes and codes of ours. Nothing names anybody.

No label holds what a client made up, nor a campaign, key or address; whoever needs those reads the log. Counters
may be read from any thread; the gauges are set by the gate's own loop, a few times a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from postern.errors import PosternError

LOOPBACK = "127.0.0.1"


class Login(StrEnum):
    """What becomes of a login."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # keys were tried, or other methods
    TIMED_OUT = "timed_out"
    LEFT = "left"  # without a try


class Metrics:
    """The metrics of one gate; two gates in a process have nothing in common."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, descriptors
        self._connections = self._counter("connections", "Connections that were let in.")
        self._turned_away = self._counter("turned_away", "Connections without a ban's turn, or a place.", "why")
        self._logins = self._counter("logins", "Connections by what became of their login.", "outcome")
        self._bans = self._counter("bans", "Addresses that were banned.")
        self._refusals = self._counter("refusals", "Requests and files that were refused, by code.", "code")
        self._accepted = self._counter("uploads_accepted", "Uploads that were accepted.")
        self._abandoned = self._counter("uploads_abandoned", "Uploads that came to nothing.", "why")
        self._bytes = self._counter("received_bytes", "Bytes of accepted and abandoned uploads.")
        self._open = self._gauge("open_connections", "Connections that are there.")
        self._guests = self._gauge("guests", "Connections that have not logged in.")
        self._unfinished = self._gauge("open_files", "Files that are neither accepted nor abandoned.")

    def entered(self) -> None:
        """A connection was let in."""
        self._connections.inc()

    def turned_away(self, why: str, count: int = 1) -> None:
        """Connections were not let in, or had to go for a newcomer."""
        self._turned_away.labels(why).inc(count)

    def login_ended(self, outcome: Login) -> None:
        """A connection logged in, or ended without."""
        self._logins.labels(outcome).inc()

    def banned(self) -> None:
        """An address has failed too often."""
        self._bans.inc()

    def refused(self, code: str) -> None:
        """A client was refused something."""
        self._refusals.labels(code).inc()

    def accepted(self, size: int) -> None:
        """An upload of so many bytes was accepted."""
        self._accepted.inc()
        self._bytes.inc(size)

    def abandoned(self, why: str, size: int) -> None:
        """An upload came to nothing after so many bytes."""
        self._abandoned.labels(why).inc()
        self._bytes.inc(size)

    def see(self, *, connections: int, guests: int, unfinished: int) -> None:
        """Note what is there now."""
        self._open.set(connections)
        self._guests.set(guests)
        self._unfinished.set(unfinished)

    @contextmanager
    def served(self, port: int) -> Iterator[None]:
        """Answer on that port of the loopback interface until the block ends; 0: nowhere.

        Raises:
            PosternError: the port is taken.
        """
        if not port:
            yield
            return
        try:
            server, thread = start_http_server(port, LOOPBACK, self.registry)
        except OSError as error:
            raise PosternError(f"The gate's metrics cannot be served on port {port}: {error.strerror}") from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"postern_gate_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"postern_gate_{name}", meaning, registry=self.registry)
