"""Messages that the provider took and whose final report never came: it is asked for them, and in the end they expire.

A look takes what is due, in slices of a bounded size that no other worker takes meanwhile
(`storage.ledger.overdue`). What the provider says counts as a receipt. One that cannot answer now is asked again
some minutes later, as long as there is time. In a load test nothing expires.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from dispatch.provider import Accepted, Busy, Handover, Refused
from dispatch.workflow import Dispatch
from postern.errors import TransientError
from postern.logs import get_logger
from postern.model import Campaign, Environment, Language, MessageStatus
from postern.sms.clocks import expires_at, next_look
from postern.sms.frame import frame_for
from postern.sms.statuses import accepts
from postern.sms.template import render
from storage.ledger.campaigns import get_campaign
from storage.ledger.overdue import Overdue, expire, look_again, take_due
from storage.ledger.sending import Receipt, apply_receipts

_SLICE = 200
_AT_ONCE = 5  # look-ups
_LEASE = timedelta(minutes=10)  # longer than the look-ups of a slice; also the pause before a second try

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
    over, open_ = _split(due, now)
    expired = await asyncio.to_thread(expire, dispatch.database, over, now=now) if over else 0
    turns = asyncio.Semaphore(_AT_ONCE)
    campaigns = {
        campaign_id: await asyncio.to_thread(get_campaign, dispatch.database, campaign_id, even_deleted=True)
        for campaign_id in sorted({one.campaign_id for one in open_})
    }
    answers = await asyncio.gather(*(_ask(dispatch, campaigns[one.campaign_id], one, turns) for one in open_))
    await asyncio.to_thread(_record, dispatch, list(zip(open_, answers, strict=True)))
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


def _split(due: Iterable[Overdue], now: datetime) -> tuple[list[Overdue], list[Overdue]]:
    """Those whose time is over, and the others."""
    over: list[Overdue] = []
    open_: list[Overdue] = []
    for one in due:
        end = expires_at(one.status, one.recipient, one.handed_over)
        (over if end is not None and end <= now else open_).append(one)
    return over, open_


async def _ask(
    dispatch: Dispatch, campaign: Campaign, overdue: Overdue, turns: asyncio.Semaphore
) -> Receipt | Busy | None:
    """What the provider says of an attempt; None where it does not know it."""
    async with turns:
        sender = await asyncio.to_thread(dispatch.senders, campaign)
        found = await sender.provider_for(overdue.provider).find(
            _handover(dispatch, campaign, overdue), overdue.claimed_at
        )
    if isinstance(found, Busy):
        return found
    same = [one for one in found.candidates if not overdue.external_id or one.external_id == overdue.external_id]
    return _receipt(overdue, same[0]) if same else None


def _handover(dispatch: Dispatch, campaign: Campaign, overdue: Overdue) -> Handover:
    language = Language(overdue.language)
    text = render(campaign.templates[language], json.loads(overdue.parameters))
    return Handover(
        attempt_id=overdue.attempt_id,
        message_id=overdue.message_id,
        recipient=overdue.recipient,
        text=frame_for(campaign, dispatch.settings).around(text, language),
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


def _record(dispatch: Dispatch, answers: Sequence[tuple[Overdue, Receipt | Busy | None]]) -> None:
    now = dispatch.now()
    apply_receipts(dispatch.database, [answer for _one, answer in answers if isinstance(answer, Receipt)], now=now)
    look_again(dispatch.database, {one.attempt_id: _when(one, answer, now) for one, answer in answers})


def _when(overdue: Overdue, answer: Receipt | Busy | None, now: datetime) -> datetime | None:
    """When an attempt is looked at next."""
    status = overdue.status
    if isinstance(answer, Receipt) and accepts(status, answer.status, inferred=False):
        status = answer.status
    following = next_look(status, overdue.recipient, overdue.handed_over, now)
    if isinstance(answer, Busy) and following is not None:
        return min(following, now + _LEASE)
    return following
