"""What was decided about messages that are not on their way: retries are enqueued and sent, what was stopped is ended.

Each job asks the ledger what is left, in steps of a bounded size, so it can be done twice and stopped at any step.
"""

from dispatch.context import Dispatch, campaign_of
from dispatch.workflow import send_rows
from postern.logs import get_logger
from storage.engine import Engine, pause, persistently
from storage.jobs import END_UNSENT, ENQUEUE_RETRIES, SEND_AGAIN
from storage.ledger.cancelling import Stopped, batches_to_end, end_unsent, find_stopped
from storage.ledger.decisions import go_on_dropping
from storage.ledger.retry_slices import enqueue_retries as enqueue_some

log = get_logger(__name__)


def register(engine: Engine, dispatch: Dispatch) -> None:
    """Let this worker carry out what was decided."""

    async def enqueue_retries(
        batch_id: str,
        after: int,
        failed_until: str,
        may_repeat: bool = False,  # noqa: FBT001, FBT002 - the arguments of a job have no names
    ) -> None:
        def step() -> bool:
            return enqueue_some(
                dispatch.database,
                dispatch.jobs,
                batch_id,
                after=after,
                failed_until=failed_until,
                may_repeat=may_repeat,
                now=dispatch.now(),
            )

        while not await persistently(step):
            await pause(0)

    async def send_again(batch_id: str, first_row: int, last_row: int) -> None:
        campaign = await persistently(campaign_of, dispatch, batch_id)
        await send_rows(dispatch, campaign, batch_id, (first_row, last_row))

    async def end_all_unsent(subject_id: str) -> None:
        while not await persistently(_drop_some, dispatch, subject_id):
            await pause(0)
        for batch_id in await persistently(batches_to_end, dispatch.database, subject_id):
            await _end(dispatch, batch_id)
        log.info("messages.ended", subject=subject_id)

    engine.register(ENQUEUE_RETRIES, enqueue_retries)
    engine.register(SEND_AGAIN, send_again)
    engine.register(END_UNSENT, end_all_unsent)


def _drop_some(dispatch: Dispatch, subject_id: str) -> bool:
    return go_on_dropping(dispatch.database, dispatch.jobs, subject_id, now=dispatch.now())


async def _end(dispatch: Dispatch, batch_id: str) -> None:
    stopped = await persistently(find_stopped, dispatch.database, batch_id)
    if stopped is None:
        return
    row = stopped.first_row
    while row <= stopped.last_row:
        row = 1 + await persistently(_end_some, dispatch, stopped, row)
        await pause(0)


def _end_some(dispatch: Dispatch, stopped: Stopped, first_row: int) -> int:
    return end_unsent(dispatch.database, stopped, first_row, stopped.last_row, now=dispatch.now())
