"""Work on parts of a whole side by side: the next one is made while one is in use, the last one is still written.

Threads are enough where the work gives up the interpreter's lock, as polars and database drivers do. Everything stays
in order, and each stage has one part at a time, so that memory stays bounded.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def ahead(pool: Executor, source: Iterator[T]) -> Iterator[T]:
    """The items of `source`; the next one is made by the pool while one is in use. Raises what `source` raises."""
    following = pool.submit(next, source, None)
    while (item := following.result()) is not None:  # no item is None
        following = pool.submit(next, source, None)
        yield item


class Behind:
    """Lets a pool do work in order, one call at a time, while the caller goes on."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._last: Future[None] | None = None

    def do(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Wait for the last call to end, and start this one. Raises what the last call raised."""
        self.wait()
        self._last = self._pool.submit(work, *args, **kwargs)

    def wait(self) -> None:
        """Wait for the last call to end. Raises what it raised."""
        if self._last is not None:
            self._last.result()
            self._last = None
