"""Sending a chunk of a batch: claim what the rate allows, hand it over, record what came of it, until nothing is left.

At most once per attempt, whatever dies when: the claim is committed before the provider is called, and what a dead
sender left `sending` is asked about and never sent again. The chunk that follows gets its job first, so the chain
does not break with this worker.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatch.provider import Accepted, Handover, Outcome, Provider, Refused, Unknown
from postern.errors import NotFoundError
from postern.logs import get_logger
from postern.model import Campaign, ErrorCode, Language, MessageStatus
from postern.settings import WorkerSettings
from postern.sms.frame import frame_for
from postern.sms.template import render
from storage.database import Database
from storage.engine import Engine, pause, persistently
from storage.jobs import SEND_CHUNK, JobBoard
from storage.ledger.batches import enqueue_chunk_after, get_batch
from storage.ledger.campaigns import get_campaign
from storage.ledger.sending import Claim, Claimed, OpenAttempt, Result, claim, open_attempts, record_results

_SLICE = 0.25  # seconds of the campaign's rate that are claimed at once
_LARGEST_SLICE = 200
_UNRESOLVED = (
    "The sending process ended between handing the message over and recording it, and the provider could not tell "
    "whether it has the message. It was not sent again; retrying may deliver it twice."
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """What sending needs."""

    settings: WorkerSettings
    database: Database
    jobs: JobBoard
    provider: Provider
    now: Callable[[], datetime]


def register(engine: Engine, dispatch: Dispatch) -> None:
    """Let this worker send chunks of batches."""

    async def send_chunk(batch_id: str, first_row: int, last_row: int) -> None:
        try:
            campaign = await persistently(_campaign_of, dispatch, batch_id)
        except NotFoundError:  # the campaign was deleted: nothing more is sent, but what was begun comes to its end
            await _settle_open_attempts(dispatch, batch_id, (first_row, last_row))
            return
        await persistently(enqueue_chunk_after, dispatch.database, dispatch.jobs, batch_id, last_row, campaign.rate)
        await send_rows(dispatch, campaign, batch_id, (first_row, last_row))

    engine.register(SEND_CHUNK, send_chunk)


async def send_rows(dispatch: Dispatch, campaign: Campaign, batch_id: str, rows: tuple[int, int]) -> None:
    """Send what is left to be sent of a batch's rows, and settle what a dead sender of them left open.

    Raises:
        asyncio.CancelledError: the worker stops; the job stays pending, to be run again.
    """
    await _settle_open_attempts(dispatch, batch_id, rows)
    most = max(1, min(_LARGEST_SLICE, int(campaign.rate * _SLICE)))
    while not (claimed := await _claim(dispatch, campaign, batch_id, rows, most)).is_done:
        if claimed.messages:
            await _send(dispatch, campaign, claimed.token, claimed.messages)
        else:
            await pause(claimed.wait)
    await _settle_open_attempts(dispatch, batch_id, rows)


async def _claim(dispatch: Dispatch, campaign: Campaign, batch_id: str, rows: tuple[int, int], most: int) -> Claim:
    await pause(0)
    return await persistently(
        lambda: claim(
            dispatch.database,
            batch_id=batch_id,
            rows=rows,
            rate=campaign.rate,
            most=most,
            provider=dispatch.provider.name,
            now=dispatch.now(),
        )
    )


async def _send(dispatch: Dispatch, campaign: Campaign, token: str, messages: Sequence[Claimed]) -> None:
    frame = frame_for(campaign, dispatch.settings)
    handovers = [
        Handover(
            attempt_id=message.attempt_id,
            message_id=message.message_id,
            recipient=message.recipient,
            text=_text(campaign, message, frame.around),
        )
        for message in messages
    ]
    outcomes = await asyncio.gather(
        *(dispatch.provider.send(handover) for handover in handovers), return_exceptions=True
    )
    results = []
    for handover, outcome in zip(handovers, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            log.error("attempt.unsettled", attempt_id=handover.attempt_id, error=repr(outcome))
        elif not isinstance(outcome, Unknown):
            results.append(_result(handover.attempt_id, handover.message_id, outcome))
    # What has no result stays `sending`, and is settled by asking when the rest of the chunk is done.
    await persistently(lambda: record_results(dispatch.database, token, results, now=dispatch.now()))


def _text(campaign: Campaign, message: Claimed, around: Callable[[str, Language], str]) -> str:
    language = Language(message.language)
    return around(render(campaign.templates[language], message.values), language)


async def _settle_open_attempts(dispatch: Dispatch, batch_id: str, rows: tuple[int, int]) -> None:
    for attempt in await persistently(lambda: open_attempts(dispatch.database, batch_id=batch_id, rows=rows)):
        outcome = await dispatch.provider.look_up(attempt)
        await persistently(_record_one, dispatch, attempt, _result(attempt.attempt_id, attempt.message_id, outcome))


def _record_one(dispatch: Dispatch, attempt: OpenAttempt, result: Result) -> None:
    record_results(dispatch.database, attempt.claim, [result], now=dispatch.now())
    log.warning("attempt.settled", attempt_id=attempt.attempt_id, status=result.status.value)


def _result(attempt_id: str, message_id: str, outcome: Outcome) -> Result:
    if isinstance(outcome, Accepted):
        return Result(
            attempt_id=attempt_id,
            message_id=message_id,
            status=MessageStatus.SENDING if outcome.stays_pending else MessageStatus.SENT,
            external_id=outcome.external_id,
        )
    if isinstance(outcome, Refused):
        return Result(
            attempt_id=attempt_id, message_id=message_id, status=MessageStatus.FAILURE, error_code=outcome.code
        )
    return Result(
        attempt_id=attempt_id,
        message_id=message_id,
        status=MessageStatus.FAILURE,
        error_code=ErrorCode.SERVER_UNKNOWN_ERROR,
        error_note=_UNRESOLVED,
        inferred=True,
    )


def _campaign_of(dispatch: Dispatch, batch_id: str) -> Campaign:
    return get_campaign(dispatch.database, get_batch(dispatch.database, batch_id).campaign_id)
