"""The messages of a chunk that are on their way: handed over, and not yet recorded."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dispatch.accounts import Sender
from dispatch.provider import Handover, Outcome, Unknown
from dispatch.recorder import Answered, Recorder
from postern.logs import get_logger
from storage.ledger.claiming import Claim, Claimed

_SECONDS = 1.0  # of its rate may be on their way: how long a provider may take before it slows a chunk down
_FEWEST, _MOST = 20, 600  # a worker that is killed leaves as many in doubt, at most

log = get_logger(__name__)


class UnderWay:
    """Hands slices over. The block ends when all of it is recorded, however it ends."""

    def __init__(
        self,
        recorder: Recorder,
        batch_id: str,
        handover: Callable[[Claimed], Handover],
        rate: float,
        *,
        in_hand: set[str],
    ) -> None:
        self._recorder = recorder
        self._in_hand = in_hand
        self._batch_id = batch_id
        self._handover = handover
        self._most = max(_FEWEST, min(_MOST, int(rate * _SECONDS)))
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()  # fewer are on their way: few enough for more, or none
        self._failure: BaseException | None = None
        self.recorded = 0  # messages so far

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ended()

    @property
    def is_any(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._tasks)

    async def room(self) -> int:
        """Wait until a good many more messages may be on their way; returns how many.

        Raises:
            Exception: whatever kept a record from being written.
        """
        await self._until_at_most(self._most // 2)
        return self._most - len(self._tasks)

    def hand_over(self, sender: Sender, claimed: Claim) -> None:
        """Hand a slice over."""
        for message in claimed.messages:
            self._in_hand.add(message.attempt_id)
            task = asyncio.create_task(self._send(sender, claimed, message))
            self._tasks.add(task)
            task.add_done_callback(self._end)

    async def ended(self) -> None:
        """Wait until nothing is on its way.

        Raises:
            Exception: as `room`.
        """
        await self._until_at_most(0)

    async def _until_at_most(self, count: int) -> None:
        while len(self._tasks) > count:
            self._moved.clear()
            await self._moved.wait()
        if self._failure is not None:
            raise self._failure

    async def _send(self, sender: Sender, claimed: Claim, message: Claimed) -> None:
        try:
            await self._hand_over(sender, claimed, message)
        finally:
            self._in_hand.discard(message.attempt_id)

    async def _hand_over(self, sender: Sender, claimed: Claim, message: Claimed) -> None:
        name = sender.account.provider_of(message.recipient)
        try:
            outcome: Outcome = await sender.provider_for(name).send(self._handover(message))
        except Exception as error:  # noqa: BLE001 - a bug; it takes none of the others along
            log.error("attempt.unsettled", attempt_id=message.attempt_id, error=repr(error))  # noqa: TRY400 - no values
            outcome = Unknown()
        answered = Answered(
            batch_id=self._batch_id,
            token=claimed.token,
            message=message,
            outcome=outcome,
            circuit_id=sender.account.circuit_id,
            is_simulated=name != sender.account.provider,
            is_probe=claimed.is_probe,
        )
        await self._recorder.record(answered)
        self.recorded += 1

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) in (0, self._most // 2):
            self._moved.set()
        if task.cancelled():
            self._failure = self._failure or asyncio.CancelledError()
        elif task.exception() is not None:
            self._failure = task.exception()
