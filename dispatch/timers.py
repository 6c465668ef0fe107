"""Messages that the provider took and whose final report never came: it is asked for them, and in the end they expire.

A look takes what is due, in slices of a bounded size that no other worker takes meanwhile
(`storage.ledger.overdue`). What the provider says counts as a receipt. One that cannot answer now is asked again
some minutes later. Nothing expires unasked, and everything at its time: where the provider cannot answer at the end,
the clock decides what is shown, and it is asked for a day more, for its word overrides our conclusion. It is not where
it refuses the account, and may never answer. In a load test nothing expires.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dispatch.context import Dispatch
from dispatch.handovers import handovers
from dispatch.provider import Accepted, Busy, Refused, Trouble
from postern.errors import TransientError
from postern.logs import get_logger
from postern.model import Campaign, Environment, MessageStatus
from postern.sms.clocks import expires_at, next_look
from postern.sms.statuses import accepts
from storage.ledger.campaigns import get_campaign
from storage.ledger.claiming import Claimed
from storage.ledger.overdue import Overdue, expire, look_again, take_due
from storage.ledger.receipts import Receipt, apply_receipts

_SLICE = 200
_AT_ONCE = 5  # look-ups
_LEASE = timedelta(minutes=10)  # longer than the look-ups of a slice; also the pause before a second try
_ASKED_ON, _ASKED_EVERY = timedelta(days=1), timedelta(hours=1)  # about what expired while it could not answer

log = get_logger(__name__)


async def keep_asking(dispatch: Dispatch, seconds: float, stop: asyncio.Event) -> None:
    """Look every so many seconds, until told to stop."""
    if dispatch.settings.environment is Environment.LOADTEST:
        return
    pause = seconds
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            pause = 0.1 if await _look_in_peace(dispatch) else seconds


async def look(dispatch: Dispatch) -> int:
    """Look at one slice of what is due; returns how many attempts that were.

    Raises:
        TransientError: the database is away.
    """
    now = dispatch.now()
    due = await asyncio.to_thread(take_due, dispatch.database, most=_SLICE, lease=_LEASE, now=now)
    turns = asyncio.Semaphore(_AT_ONCE)
    campaigns = {
        campaign_id: await asyncio.to_thread(get_campaign, dispatch.database, campaign_id, even_deleted=True)
        for campaign_id in sorted({one.campaign_id for one in due})
    }
    asked = await asyncio.gather(
        *(_ask(dispatch, campaigns[one.campaign_id], one, turns) for one in due), return_exceptions=True
    )
    answers = [_answer(one, answer) for one, answer in zip(due, asked, strict=True)]
    expired = await asyncio.to_thread(_record, dispatch, list(zip(due, answers, strict=True)))
    if due:
        log.info("attempts.asked", due=len(due), expired=expired, answered=sum(isinstance(a, Receipt) for a in answers))
    return len(due)


async def _look_in_peace(dispatch: Dispatch) -> bool:
    """Whether more may be due."""
    try:
        return await look(dispatch) == _SLICE
    except TransientError as error:
        log.warning("timers.wait", error=str(error))
    except Exception as error:  # a bug here must not take a working worker along
        log.critical("timers.failed", exc_info=error)
    return False


def _answer(overdue: Overdue, answer: Receipt | Busy | BaseException | None) -> Receipt | Busy | None:
    if isinstance(answer, TransientError):  # the database's; the slice is due again
        raise answer
    if isinstance(answer, BaseException):  # a bug; it takes none of the others along
        log.error("attempt.not_asked", attempt_id=overdue.attempt_id, error=repr(answer))
        return None
    return answer


async def _ask(
    dispatch: Dispatch, campaign: Campaign, overdue: Overdue, turns: asyncio.Semaphore
) -> Receipt | Busy | None:
    """What the provider says of an attempt; None where it does not know it."""
    async with turns:
        sender = await asyncio.to_thread(dispatch.senders, campaign)
        handover = handovers(campaign, dispatch.settings)(_message(overdue))
        found = await sender.provider_for(overdue.provider).find(handover, overdue.claimed_at, overdue.external_id)
    if isinstance(found, Busy):
        return found
    same = [one for one in found.candidates if not overdue.external_id or one.external_id == overdue.external_id]
    return _receipt(overdue, same[0]) if same else None


def _message(overdue: Overdue) -> Claimed:
    return Claimed(
        attempt_id=overdue.attempt_id,
        message_id=overdue.message_id,
        recipient=overdue.recipient,
        language=overdue.language,
        values=json.loads(overdue.parameters),
    )


def _receipt(overdue: Overdue, state: Accepted | Refused) -> Receipt:
    refused = state if isinstance(state, Refused) else None
    return Receipt(
        attempt_id=overdue.attempt_id,
        status=state.status if isinstance(state, Accepted) else MessageStatus.FAILURE,
        external_id=state.external_id,
        error_code=refused.code if refused else None,
        error_note=refused.note if refused else None,
    )


def _record(dispatch: Dispatch, answers: Sequence[tuple[Overdue, Receipt | Busy | None]]) -> int:
    """Write what was said, and expire those whose time is over; returns how many expired."""
    now = dispatch.now()
    apply_receipts(dispatch.database, [answer for _one, answer in answers if isinstance(answer, Receipt)], now=now)
    after = [(_moved(one, answer), answer) for one, answer in answers]
    over = {one: _once_more(answer, now, since=now) for one, answer in after if _is_over(one, now)}
    times = {one.attempt_id: _when(one, answer, now) for one, answer in after if one not in over}
    look_again(dispatch.database, times)
    return expire(dispatch.database, over, now=now)


def _moved(overdue: Overdue, answer: Receipt | Busy | None) -> Overdue:
    """An attempt with the status that an answer left it with."""
    if isinstance(answer, Receipt) and accepts(overdue.status, answer.status, inferred=False):
        return replace(overdue, status=answer.status)
    return overdue


def _is_over(overdue: Overdue, now: datetime) -> bool:
    end = expires_at(overdue.status, overdue.recipient, overdue.handed_over)
    return end is not None and end <= now


def _once_more(answer: Receipt | Busy | None, now: datetime, *, since: datetime) -> datetime | None:
    """When an attempt that expired at `since` is asked about all the same; None: the provider has had its say."""
    may_answer = isinstance(answer, Busy) and answer.trouble is not Trouble.ACCOUNT
    following = now + _ASKED_EVERY
    return following if may_answer and following <= since + _ASKED_ON else None


def _when(overdue: Overdue, answer: Receipt | Busy | None, now: datetime) -> datetime | None:
    """When an attempt is looked at next."""
    if overdue.status is MessageStatus.FAILURE:
        return _once_more(answer, now, since=overdue.updated_at)
    following = next_look(overdue.status, overdue.recipient, overdue.handed_over, now)
    if isinstance(answer, Busy) and following is not None:
        return min(following, now + _LEASE)
    return following
