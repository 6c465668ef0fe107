"""When an account rests: what came of a slice opens its circuit, lets it rest longer, or closes it.

One rule keeps an outage from eating a batch: a slice of which nothing was answered stops the account, so that no
more than what was on its way is in doubt. Messages of an account that rests wait where they are, `enqueued`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from dispatch.provider import Accepted, Busy, Outcome, Refused, Trouble
from postern.logs import get_logger
from storage.database import Database
from storage.ledger.accounts import close_circuit, end_probe, open_circuit

Rests = Mapping[Trouble, tuple[float, float]]

RESTS: Rests = {  # seconds: the first time, and at the longest; each rest in a row is twice as long as the one before
    Trouble.THROTTLED: (1, 60),
    Trouble.UNREACHABLE: (1, 60),
    Trouble.UNANSWERED: (5, 300),
    Trouble.ACCOUNT: (30, 600),
}
_NOTHING_ANSWERED = Busy(trouble=Trouble.UNANSWERED, detail="time-outs, broken connections or 5xx")

log = get_logger(__name__)


def rest_of(outcomes: Sequence[Outcome]) -> Busy | None:
    """Why an account should rest after a slice with these outcomes; None where it need not."""
    busy = [outcome for outcome in outcomes if isinstance(outcome, Busy)]
    if busy:
        return max(busy, key=lambda one: (one.trouble is Trouble.ACCOUNT, one.seconds or 0.0))
    is_answered = any(isinstance(outcome, Accepted | Refused) for outcome in outcomes)
    return None if is_answered or not outcomes else _NOTHING_ANSWERED


def heed(
    database: Database,
    account_id: str,
    outcomes: Sequence[Outcome],
    *,
    is_probe: bool,
    rests: Rests,
    now: Callable[[], datetime],
) -> None:
    """Open or close an account's circuit by what it answered to a slice. Blocks: it writes a row, seldom."""
    busy = rest_of(outcomes)
    if busy is not None:
        circuit = open_circuit(
            database,
            account_id,
            trouble=busy.trouble,
            detail=busy.detail,
            pause=lambda failures: _seconds(busy, failures, rests),
            now=now(),
        )
        tell = log.error if busy.trouble is Trouble.ACCOUNT else log.warning  # an error is for an operator to mend
        tell(
            "provider.refuses_account" if busy.trouble is Trouble.ACCOUNT else "provider.rests",
            account=account_id,
            trouble=busy.trouble.value,
            detail=busy.detail,
            failures=circuit.failures,
            until=circuit.open_until.isoformat(timespec="seconds"),
        )
    elif is_probe and not outcomes:  # a number that the simulator gets
        with database.write() as connection:
            end_probe(connection, account_id)
    elif is_probe:
        close_circuit(database, account_id)
        log.info("provider.flows_again", account=account_id)


def _seconds(busy: Busy, failures: int, rests: Rests) -> float:
    if busy.seconds is not None:
        return busy.seconds
    first, longest = rests[busy.trouble]
    return min(first * math.ldexp(1.0, min(failures - 1, 20)), longest)
