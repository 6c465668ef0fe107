"""What is on its way when a worker's loop ends, or when a record cannot be written: nobody waits for ever."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from support.waiting import until_async
from typing_extensions import override

from dispatch.accounts import Sender
from dispatch.in_hand import InHand
from dispatch.provider import Accepted, Found, Handover, Outcome, Provider
from dispatch.recorder import Recorder
from dispatch.under_way import UnderWay
from postern.errors import TransientError
from postern.times import utc_now
from storage.clerk import LedgerCalls
from storage.ledger.accounts import SendingAccount
from storage.ledger.claiming import Claim, Claimed
from storage.ledger.recording import record
from storage.ledger.results import Result

MESSAGES = [
    Claimed(attempt_id=f"attempt_{at}", message_id=f"message_{at}", recipient="6590000001", language="", values={})
    for at in range(400)
]


class Slow(Provider):
    """Takes everything, after a while."""

    name = "slow"
    looks = ()

    @override
    async def send(self, handover: Handover) -> Outcome:
        await asyncio.sleep(0.1 + int(handover.attempt_id.removeprefix("attempt_")) / 4_000)
        return Accepted(external_id=handover.attempt_id)

    @override
    async def find(self, handover: Handover, since: Any, external_id: str = "") -> Found:
        return Found()


class Memory(LedgerCalls):
    """Writes nothing down; refuses what it is told to."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.count = 0
        self.recorder = Recorder(cast("Any", None), cast("Any", None), self, rests={}, now=utc_now)

    @override
    async def call(self, function: Callable[..., Any], /, *arguments: Any, **_keywords: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0.001)
        assert function is record
        results: Sequence[tuple[str, Result]] = arguments[0]
        if any(result.attempt_id == self.refused for _token, result in results):
            raise ValueError("a bug")
        self.count += len(results)


class Away(Memory):
    """Its database does not answer."""

    tries = 0

    @override
    async def call(self, function: Callable[..., Any], /, *arguments: Any, **_keywords: Any) -> None:  # type: ignore[override]
        self.tries += 1
        raise TransientError("away")


def handed_over(message: Claimed) -> Handover:
    return Handover(attempt_id=message.attempt_id, message_id=message.message_id, recipient=message.recipient, text="x")


def test_many_slices_leave_once_each() -> None:
    """Whenever one is handed over: while the one before sets out, in the turn that it has done so, or long after."""
    ledger, in_hand = Memory(), InHand()

    async def slices() -> None:
        account = SendingAccount(id="account", provider=Slow.name)
        sender = Sender(account=account, provider=Slow(), simulator=Slow())
        async with UnderWay(ledger.recorder, "batch", handed_over, 1_200.0, in_hand=in_hand, job_id=None) as under_way:
            for at in range(len(MESSAGES)):
                under_way.hand_over(sender, Claim(token="token", messages=MESSAGES[at : at + 1]))
                for _ in range(at % 5):
                    await asyncio.sleep(0)

    asyncio.run(slices())
    assert (ledger.count, len(in_hand)) == (len(MESSAGES), 0)


class Held(Slow):
    """Takes a message when it is let."""

    def __init__(self) -> None:
        self.let: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @override
    async def send(self, handover: Handover) -> Outcome:
        await self.let[handover.attempt_id].wait()
        return Accepted(external_id=handover.attempt_id)


async def test_one_that_is_not_answered_holds_nobody_up() -> None:
    """Neither one that a hand took first nor one that it took after others."""
    ledger, in_hand, provider = Memory(), InHand(), Held()
    sender = Sender(account=SendingAccount(id="account", provider=Held.name), provider=provider, simulator=provider)
    silent = {MESSAGES[0].attempt_id, MESSAGES[200].attempt_id, MESSAGES[399].attempt_id}
    for message in MESSAGES:
        if message.attempt_id not in silent:
            provider.let[message.attempt_id].set()
    async with UnderWay(ledger.recorder, "batch", handed_over, 1_200.0, in_hand=in_hand, job_id=None) as under_way:
        for at in (0, 200):
            under_way.hand_over(sender, Claim(token="token", messages=MESSAGES[at : at + 200]))
        await until_async(lambda: ledger.count == len(MESSAGES) - len(silent), "the others")
        assert len(in_hand) == len(silent)
        for attempt_id in silent:
            provider.let[attempt_id].set()
    assert (ledger.count, len(in_hand)) == (len(MESSAGES), 0)


class Dropped(Slow):
    """Lets go of one message, as what waits for its database does when the worker stops."""

    @override
    async def send(self, handover: Handover) -> Outcome:
        if handover.attempt_id == MESSAGES[0].attempt_id:
            raise asyncio.CancelledError
        return await super().send(handover)


async def test_one_that_is_let_go_of_takes_no_other_along() -> None:
    """All others are recorded, and the chunk hears of it."""
    ledger, in_hand, provider = Memory(), InHand(), Dropped()
    sender = Sender(account=SendingAccount(id="account", provider=Slow.name), provider=provider, simulator=provider)
    with pytest.raises(asyncio.CancelledError):
        async with UnderWay(ledger.recorder, "batch", handed_over, 1_200.0, in_hand=in_hand, job_id=None) as under_way:
            under_way.hand_over(sender, Claim(token="token", messages=MESSAGES))
    assert (ledger.count, len(in_hand)) == (len(MESSAGES) - 1, 0)


async def test_what_others_have_under_way_leaves_a_share() -> None:
    """A worker has so many under way in all; where others have them, a chunk goes on with a few at a time."""
    ledger, in_hand, provider = Memory(), InHand(), Held()
    others = [f"another_{number}" for number in range(600)]
    sender = Sender(account=SendingAccount(id="account", provider=Held.name), provider=provider, simulator=provider)
    async with UnderWay(ledger.recorder, "batch", handed_over, 1_200.0, in_hand=in_hand, job_id=None) as under_way:
        in_hand.add(others)
        await under_way.room()
        assert under_way.slice == 200
        with in_hand.claiming("another's", 300):
            await under_way.room()
            assert under_way.slice == 100
            under_way.hand_over(sender, Claim(token="token", messages=MESSAGES[:100]))
            waiting = asyncio.create_task(under_way.room())
            await asyncio.sleep(0.3)
            assert not waiting.done()
            for message in MESSAGES[:50]:
                provider.let[message.attempt_id].set()
            await asyncio.wait_for(waiting, 10)
            assert 33 <= under_way.slice <= 50
            under_way.hand_over(sender, Claim(token="token", messages=MESSAGES[100:150]))
            waiting = asyncio.create_task(under_way.room())
            await asyncio.sleep(0.3)
            assert not waiting.done()
        for one in others:
            in_hand.remove(one)  # theirs end, none of its own does
        await asyncio.wait_for(waiting, 10)
        assert under_way.slice == 266
        for message in MESSAGES[:150]:
            provider.let[message.attempt_id].set()
    assert len(in_hand) == 0


async def chunk(recorder: Recorder, in_hand: InHand) -> None:
    account = SendingAccount(id="account", provider=Slow.name)
    sender = Sender(account=account, provider=Slow(), simulator=Slow())
    async with UnderWay(recorder, "batch", handed_over, 1_200.0, in_hand=in_hand, job_id=None) as under_way:
        await under_way.room()
        under_way.hand_over(sender, Claim(token="token", messages=MESSAGES))
        assert len(in_hand) == len(MESSAGES)
        await under_way.ended()  # what is cancelled here waits for the rest once more when the block ends


def break_down(ledger: Memory, *, when: Callable[[], bool], turns: int = 0) -> None:
    """Run a chunk in a loop that ends some turns after something is so; fails where that takes for ever."""

    async def worker() -> None:
        running = asyncio.create_task(chunk(ledger.recorder, InHand()))
        deadline = asyncio.get_running_loop().time() + 10
        while not when() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - each turn of the loop
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert when()
        assert not running.done()
        raise RuntimeError("the worker breaks down")

    with pytest.raises(RuntimeError, match="breaks down"):
        asyncio.run(worker())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("turns", [0, 1, 2, 4, 40])
def test_a_loop_that_ends_while_messages_set_out(turns: int) -> None:
    """A worker that breaks down leaves at once, and not by SIGKILL."""
    break_down(Memory(), when=lambda: True, turns=turns)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_loop_that_ends_while_records_are_gathered(turns: int) -> None:
    """The answers are there, their records are not written yet; whether or not the writer has begun."""
    ledger = Memory()
    break_down(ledger, when=lambda: bool(ledger.recorder._waiting), turns=turns)


@pytest.mark.timeout(30)
def test_a_loop_that_ends_while_the_database_is_away() -> None:
    """One record is being tried again and again, others wait behind it."""
    ledger = Away()
    break_down(ledger, when=lambda: ledger.tries > 0 and bool(ledger.recorder._waiting))


def test_a_record_that_cannot_be_written_is_told() -> None:
    """After all others are written; nothing stays in hand."""
    ledger, in_hand = Memory(refused="attempt_7"), InHand()
    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(chunk(ledger.recorder, in_hand))
    assert (ledger.count, len(in_hand)) == (len(MESSAGES) - 1, 0)
