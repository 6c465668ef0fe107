"""One look at what waits in the spool: how far it goes, and where the next one goes on.

With the database or the blob store away each upload runs into its own timeout, so a look ends after a few of them. The
next one goes on behind them: an upload that alone meets trouble, for want of room say, holds up nobody for good.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

PATIENCE = 3  # waits in a row

T = TypeVar("T")


class Look:
    """Looks that follow one another. It ends early when told to stop, or when everything seems to be away."""

    def __init__(self, should_stop: Callable[[], bool] = lambda: False, *, patience: int = PATIENCE) -> None:
        """Set what tells it to stop, and how many waits in a row end it."""
        self._should_stop = should_stop
        self._patience = patience
        self._waits = 0
        self._last: str | None = None  # tried by a look that ended early

    def begin(self) -> None:
        """Count the waits anew."""
        self._waits = 0

    def went_well(self) -> None:
        """What was tried did not have to wait."""
        self._waits = 0

    def has_to_wait(self) -> None:
        """What was tried met trouble that passes."""
        self._waits += 1

    def is_over(self) -> bool:
        """Whether nothing more is to be tried now."""
        return self._waits >= self._patience or self._should_stop()

    def through(self, waiting: Iterable[T]) -> Iterator[T]:
        """One after the other, until it is over."""
        for each in waiting:
            if self.is_over():
                return
            yield each

    def in_turn(self, waiting: list[str]) -> Iterator[str]:
        """One after the other, until it is over, beginning behind the last one of a look that ended early."""
        start = waiting.index(self._last) + 1 if self._last in waiting else 0
        for each in self.through(waiting[start:] + waiting[:start]):
            self._last = each
            yield each
        if not self.is_over():
            self._last = None
