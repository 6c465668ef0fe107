"""What a worker has in hand: attempts from before they are claimed until what came of them is recorded."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


class InHand:
    """One for a worker, in its event loop."""

    def __init__(self) -> None:
        self._attempts: set[str] = set()
        self._claims: dict[str, int] = {}  # most messages of claims that are being made, by token

    def __len__(self) -> int:
        """How many messages, at most."""
        return len(self._attempts) + sum(self._claims.values())

    def has(self, attempt_id: str, token: str) -> bool:
        """Whether an attempt, claimed under this token, will be handed over or recorded still."""
        return token in self._claims or attempt_id in self._attempts

    @contextmanager
    def claiming(self, token: str, most: int) -> Iterator[None]:
        """Count so many messages while they are claimed, under this token. Add those that were before the next turn."""
        self._claims[token] = most
        try:
            yield
        finally:
            del self._claims[token]

    def add(self, attempt_ids: Collection[str]) -> None:
        """They are claimed, and handed over next."""
        self._attempts.update(attempt_ids)

    def remove(self, attempt_id: str) -> None:
        """It is recorded, or nothing more can be done about it."""
        self._attempts.discard(attempt_id)
