"""What an attempt costs: decided by its status, by where it went, and by who carried it.

Attempts are charged, not messages: each hand-over goes through the networks, so a message that was retried is charged
for each of its attempts. Amounts are exact, in SGD before tax; nothing here is rounded.
"""

from dataclasses import dataclass
from decimal import Decimal

from postern.model import Channel, Environment, ErrorCode, MessageStatus
from postern.settings import StoreSettings

CURRENCY = "SGD"
CHARGED_CODES = frozenset(
    {
        ErrorCode.RECIPIENT_INVALID,
        ErrorCode.RECIPIENT_UNAVAILABLE,
        ErrorCode.CONTENT_INVALID,
        ErrorCode.ROUTING_ERROR,
        ErrorCode.MESSAGE_EXPIRED,
    }
)
_FEWEST_PLACES = 2  # of an amount: cents


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All of an attempt that decides whether it is charged."""

    status: MessageStatus
    error_code: ErrorCode | None
    channel: Channel
    is_local: bool  # a number of this country
    is_simulated: bool

    @property
    def outcome(self) -> str:
        """The error code of a failure, otherwise the status."""
        return self.error_code.value if self.error_code else self.status.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """The prices of a segment, and whether anything is charged in this environment."""

    local: Decimal
    foreign: Decimal
    environment: Environment

    def is_charged(self, kind: Kind) -> bool:
        """Whether such an attempt is charged, as far as is known now."""
        if not self._has_a_price(kind):
            return False
        if kind.status is MessageStatus.FAILURE:
            return kind.error_code in CHARGED_CODES
        if kind.status is MessageStatus.SENT_TO_TELCO:
            return not kind.is_local  # of a foreign number no more is heard; a local one gets a final status
        return kind.status is MessageStatus.SUCCESS

    def is_pending(self, kind: Kind) -> bool:
        """Whether such an attempt is not charged yet but may be: its final status is not known."""
        is_final = kind.status in {MessageStatus.SUCCESS, MessageStatus.FAILURE}
        return self._has_a_price(kind) and not is_final and not self.is_charged(kind)

    def cost(self, kind: Kind, segments: int) -> Decimal:
        """What so many segments of such attempts cost."""
        if not self.is_charged(kind):
            return Decimal(0)
        return segments * (self.local if kind.is_local else self.foreign)

    def estimate(self, channel: Channel, local_segments: int, foreign_segments: int) -> Decimal | None:
        """What segments cost if all of them are charged; None where it is not Postern that charges them."""
        if channel is Channel.INTERNAL:
            return None
        if self.environment is not Environment.PRODUCTION:
            return Decimal(0)
        return local_segments * self.local + foreign_segments * self.foreign

    def amount(self, cost: Decimal) -> str:
        """An exact sum of these prices as text; all of them have as many decimal places, cents at least."""
        places = max(_FEWEST_PLACES, _places(self.local), _places(self.foreign))
        return f"{cost:.{places}f}"

    def _has_a_price(self, kind: Kind) -> bool:
        """What the simulator took cost nobody anything; an internal campaign's provider bills its agency itself."""
        is_ours = kind.channel is Channel.PUBLIC and not kind.is_simulated
        return is_ours and self.environment is Environment.PRODUCTION


def tariff_of(settings: StoreSettings) -> Tariff:
    """The tariff that the settings give."""
    return Tariff(local=settings.price_local, foreign=settings.price_foreign, environment=settings.environment)


def _places(price: Decimal) -> int:
    return -int(price.normalize().as_tuple().exponent)
