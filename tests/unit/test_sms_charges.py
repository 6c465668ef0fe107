"""What is charged, status by status, and sums that are exact."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern.model import Channel, Environment, ErrorCode, MessageStatus
from postern.months import Month
from postern.settings import StoreSettings
from postern.sms.charges import Kind, Tariff, tariff_of
from postern.sms.usage import Tally, Usage, figures_of

TARIFF = Tariff(local=Decimal("0.046"), foreign=Decimal("0.23"), environment=Environment.PRODUCTION)
OUTCOMES = [
    *((status, None) for status in MessageStatus if status is not MessageStatus.FAILURE),
    *((MessageStatus.FAILURE, code) for code in ErrorCode),
]
# By the table of the contract: charged to a local number, charged to a foreign one.
CHARGED = {
    "created": (False, False),
    "enqueued": (False, False),
    "sending": (False, False),
    "sent": (False, False),
    "sent_to_telco": (False, True),
    "success": (True, True),
    "recipient_invalid": (True, True),
    "recipient_unavailable": (True, True),
    "content_invalid": (True, True),
    "routing_error": (True, True),
    "message_expired": (True, True),
    "delivery_unknown_error": (False, False),
    "server_unknown_error": (False, False),
}


def kind(
    status: MessageStatus = MessageStatus.SUCCESS,
    error_code: ErrorCode | None = None,
    *,
    channel: Channel = Channel.PUBLIC,
    is_local: bool = True,
    is_simulated: bool = False,
) -> Kind:
    return Kind(status=status, error_code=error_code, channel=channel, is_local=is_local, is_simulated=is_simulated)


KINDS = [
    kind(status, code, channel=channel, is_local=is_local, is_simulated=is_simulated)
    for (status, code), channel, is_local, is_simulated in product(OUTCOMES, Channel, (True, False), (True, False))
]


@pytest.mark.parametrize(("status", "code"), OUTCOMES)
def test_every_status_and_code_is_charged_or_not(status: MessageStatus, code: ErrorCode | None) -> None:
    """As the contract says, at the price of where it went."""
    local, foreign = kind(status, code), kind(status, code, is_local=False)
    assert (TARIFF.is_charged(local), TARIFF.is_charged(foreign)) == CHARGED[local.outcome]
    for_local, for_foreign = CHARGED[local.outcome]
    assert TARIFF.cost(local, 3) == (Decimal("0.138") if for_local else 0)
    assert TARIFF.cost(foreign, 3) == (Decimal("0.69") if for_foreign else 0)


def test_the_table_above_is_whole() -> None:
    """It has every status and every code."""
    assert sorted(CHARGED) == sorted({(code or status).value for status, code in OUTCOMES})


@pytest.mark.parametrize("environment", [Environment.TEST, Environment.LOADTEST])
def test_only_production_is_charged(environment: Environment) -> None:
    """Whatever became of it; and nothing waits to be charged."""
    tariff = Tariff(local=TARIFF.local, foreign=TARIFF.foreign, environment=environment)
    assert not any(tariff.is_charged(one) or tariff.is_pending(one) for one in KINDS)


@pytest.mark.parametrize("free", [{"is_simulated": True}, {"channel": Channel.INTERNAL}])
def test_the_simulator_and_internal_campaigns_are_free(free: dict[str, object]) -> None:
    """Nobody got the ones; the others' provider bills their agency."""
    kinds = [one for one in KINDS if all(getattr(one, name) == value for name, value in free.items())]
    assert len(kinds) == len(KINDS) / 2
    assert not any(TARIFF.is_charged(one) or TARIFF.is_pending(one) or TARIFF.cost(one, 5) for one in kinds)


def test_what_has_no_final_status_may_still_be_charged() -> None:
    """What is on its way; what a foreign number's telco has is charged as it is."""
    pending = {(one.outcome, one.is_local) for one in KINDS if TARIFF.is_pending(one)}
    on_its_way = product(("created", "enqueued", "sending", "sent"), (True, False))
    assert pending == {*on_its_way, ("sent_to_telco", True)}


@pytest.mark.parametrize(
    ("channel", "environment", "expected"),
    [
        (Channel.PUBLIC, Environment.PRODUCTION, Decimal("69.000")),
        (Channel.PUBLIC, Environment.TEST, Decimal(0)),
        (Channel.INTERNAL, Environment.PRODUCTION, None),
    ],
)
def test_an_estimate_is_what_is_charged_at_most(
    channel: Channel, environment: Environment, expected: Decimal | None
) -> None:
    """Nothing is estimated where another bills it."""
    tariff = Tariff(local=TARIFF.local, foreign=TARIFF.foreign, environment=environment)
    assert tariff.estimate(channel, 1000, 100) == expected


@pytest.mark.parametrize(
    ("local", "foreign", "cost", "shown"),
    [
        ("0.046", "0.23", "1630.2", "1630.200"),
        ("0.05", "0.2", "0.15", "0.15"),
        ("1", "2", "3", "3.00"),
        ("0.04625", "0.23", "0.04625", "0.04625"),
        ("0", "100", "1E+2", "100.00"),
    ],
)
def test_an_amount_is_written_whole(local: str, foreign: str, cost: str, shown: str) -> None:
    """With as many places as the prices have, and cents at least; never rounded, never with an exponent."""
    tariff = Tariff(local=Decimal(local), foreign=Decimal(foreign), environment=Environment.PRODUCTION)
    assert tariff.amount(Decimal(cost)) == shown


def test_prices_are_settings_and_exact() -> None:
    """As they are written, and not as the nearest binary fraction."""
    assert tariff_of(StoreSettings.load({})) == TARIFF
    environ = {"POSTERN_PRICE_LOCAL": "0.0479", "POSTERN_PRICE_FOREIGN": "0.1", "POSTERN_ENVIRONMENT": "test"}
    tariff = tariff_of(StoreSettings.load(environ))
    assert (tariff.local, tariff.foreign) == (Decimal("0.0479"), Decimal("0.1"))
    assert tariff.environment is Environment.TEST


usages = st.lists(
    st.builds(
        Usage,
        campaign_id=st.sampled_from(["a", "b", "c"]),
        month=st.builds(Month, st.just(2026), st.integers(1, 12)),
        kind=st.sampled_from(KINDS),
        messages=st.integers(0, 10**6),
        attempts=st.integers(0, 10**9),
        segments=st.integers(0, 10**10),
    )
)


@given(usages)
def test_the_parts_make_the_whole(used: Sequence[Usage]) -> None:
    """Campaigns, months, statuses, and local and foreign sum up to the same, to the last digit."""
    whole = figures_of(used, TARIFF)
    for part in ("campaign_id", "month"):
        keys = {getattr(usage, part) for usage in used}
        parts = [figures_of((one for one in used if getattr(one, part) == key), TARIFF) for key in keys]
        assert sum((figures.total for figures in parts), Tally()) == whole.total
        for count in ("messages", "pending", "simulated"):
            assert sum(getattr(figures, count) for figures in parts) == getattr(whole, count)
    assert sum(whole.by_outcome.values(), Tally()) == whole.total == whole.local + whole.foreign
    local, foreign = whole.local.charged_segments, whole.foreign.charged_segments
    assert whole.total.cost == Decimal(46 * local + 230 * foreign) / 1000
