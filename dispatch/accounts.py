"""Who sends a campaign's messages: an account, and the providers that speak for it."""

from collections.abc import Callable
from dataclasses import dataclass

from dispatch.provider import Provider
from postern.model import Campaign
from storage.ledger.accounts import SendingAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """An account with the providers that speak for it."""

    account: SendingAccount
    provider: Provider
    simulator: Provider

    def provider_for(self, name: str) -> Provider:
        """The provider that an attempt is marked with."""
        return self.simulator if name == self.simulator.name else self.provider


Senders = Callable[[Campaign], "Sender"]  # blocks: it may ask the database


def simulated(simulator: Provider) -> Senders:
    """Everything goes to the simulator."""
    sender = Sender(
        account=SendingAccount(id=simulator.name, provider=simulator.name), provider=simulator, simulator=simulator
    )
    return lambda _campaign: sender
