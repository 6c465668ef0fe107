"""The messages of a chunk that are on their way: handed over, and not yet recorded."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Self

from dispatch.accounts import Sender
from dispatch.in_hand import InHand
from dispatch.provider import Handover, Outcome, Unknown
from dispatch.recorder import Answered, Recorder
from postern.logs import get_logger
from storage.ledger.claiming import Claim, Claimed

_SECONDS = 1.0  # of its rate may be on their way: how long a provider may take before it slows a chunk down
_FEWEST, _MOST = 20, 800  # one that dies with its worker leaves as many in doubt, at most
_A_TURN = 32  # messages more that set out in one turn of the loop, so that answers, claims and other work get theirs
# While so many are on their way in a worker, whosever they are, a chunk gets no more than a share: one that dies leaves
# less in doubt, and what is urgent finds a connection.
_IN_ALL, _SHARE = 800, 100
_LOOK = 0.1  # seconds until the next look at what others have on their way
_SLICES, _SMALLEST = 3, 10  # slices on their way together: one is claimed, one handed over, one recorded

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
        in_hand: InHand,
        job_id: str | None,
    ) -> None:
        self._recorder = recorder
        self._job_id = job_id
        self._in_hand = in_hand
        self._batch_id = batch_id
        self._handover = handover
        self._most = max(_FEWEST, min(_MOST, int(rate * _SECONDS)))
        self._slice = max(_SMALLEST, self._most // _SLICES)
        self._left = 0  # handed over, and not yet recorded
        self._ready: deque[tuple[Sender, Claim, Claimed]] = deque()
        self._feeder: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()  # fewer are left
        self._failure: BaseException | None = None
        self._is_any_recorded = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ended()

    @property
    def is_any(self) -> bool:
        """Whether anything is on its way."""
        return self._left > 0

    async def room(self) -> None:
        """Wait until another slice may be on its way.

        Raises:
            Exception: whatever kept a record from being written.
        """
        await self._until(lambda: self._room >= min(self._slice, _SHARE // _SLICES))

    @property
    def slice(self) -> int:
        """How many messages to claim now; a few even where others took the room since it was waited for."""
        return max(_SMALLEST, min(self._slice, self._room))

    @property
    def _room(self) -> int:
        in_worker = max(_SHARE - self._left, _IN_ALL - len(self._in_hand))
        return min(self._most - self._left, in_worker)

    def hand_over(self, sender: Sender, claimed: Claim) -> None:
        """Have a slice handed over, a few messages more in each turn of the event loop."""
        self._left += len(claimed.messages)
        self._in_hand.add([message.attempt_id for message in claimed.messages])
        self._ready.extend((sender, claimed, message) for message in claimed.messages)
        if self._feeder is None or self._feeder.done():
            self._feeder = self._set_going(self._feed())

    async def _feed(self) -> None:
        """Find hands for what is ready; those that are free before take it, too."""
        while self._ready:
            for _ in range(min(_A_TURN, len(self._ready))):
                self._set_going(self._hand())
            await asyncio.sleep(0)

    async def _hand(self) -> None:
        """Hand over one message after another, while any is ready; all at once where the provider takes no time."""
        this = asyncio.current_task()
        while self._ready:
            sender, claimed, message = self._ready.popleft()
            try:
                answered = await self._answered(sender, claimed, message)
            except BaseException as error:  # whoever waits for it hears of it
                self._end(message, error)
                let_go = isinstance(error, Exception | asyncio.CancelledError)
                if not let_go or (this is not None and this.cancelling()):
                    raise
            else:
                self._recorder.record(answered)

    def _set_going(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(what)
        self._tasks.add(task)  # the loop itself has weak references only
        task.add_done_callback(self._stopped)
        return task

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Where one is cancelled, all are, as the loop ends: what has not set out never will."""
        self._tasks.discard(task)
        while task.cancelled() and self._ready:
            self._end(self._ready.popleft()[2], asyncio.CancelledError())

    async def ended(self) -> None:
        """Wait until nothing is on its way.

        Raises:
            Exception: as `room`.
        """
        await self._until(lambda: self._left == 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for what comes true when messages are recorded, of this chunk or, looked at now and then, of others."""
        while not condition():
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._moved.wait()
        if self._failure is not None:
            raise self._failure

    async def _answered(self, sender: Sender, claimed: Claim, message: Claimed) -> Answered:
        name = sender.account.provider_of(message.recipient)
        try:
            outcome: Outcome = await sender.provider_for(name).send(self._handover(message))
        except Exception as error:  # noqa: BLE001 - a bug; it takes none of the others along
            log.error("attempt.unsettled", attempt_id=message.attempt_id, error=repr(error))  # noqa: TRY400 - no values
            outcome = Unknown()
        return Answered(
            batch_id=self._batch_id,
            token=claimed.token,
            message=message,
            outcome=outcome,
            circuit_id=sender.account.circuit_id,
            is_simulated=name != sender.account.provider,
            is_probe=claimed.is_probe,
            gets_on=None if self._is_any_recorded else self._job_id,
            written=partial(self._end, message),
        )

    def _end(self, message: Claimed, failure: BaseException | None) -> None:
        """A message is recorded, or will not be."""
        self._in_hand.remove(message.attempt_id)
        self._left -= 1
        self._moved.set()
        if failure is None:
            self._is_any_recorded = True
        else:
            self._failure = self._failure or failure
