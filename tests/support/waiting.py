"""Waiting for a condition that should come true, for a bounded time."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 20.0  # seconds
_LOOK = 0.02  # seconds


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait in this thread."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        time.sleep(_LOOK)


async def until_async(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait and let other tasks run."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        await asyncio.sleep(_LOOK)
