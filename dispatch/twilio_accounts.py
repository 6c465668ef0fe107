"""Which of several accounts at Twilio sends a campaign's messages.

Campaigns for the public go by the service's own account, internal ones by their agency's. Where an agency's
credentials are not there, or cannot be opened, messages wait as they do for an account that Twilio refuses; they
are not failed for what an operator can mend. Credentials are read again for every chunk and after every pause, so
new ones need no restart.
"""

from datetime import datetime

from typing_extensions import override

from dispatch.accounts import Sender
from dispatch.provider import Busy, Found, Handover, Outcome, Provider, Trouble
from dispatch.simulator import MAGIC_NUMBERS
from dispatch.twilio import Twilio
from dispatch.twilio_http import Connections
from postern.callbacks import CallbackSigner
from postern.credentials import TwilioAccount, Vault, id_without_account
from postern.errors import PosternError, TransientError
from postern.model import Campaign, Channel
from postern.settings import WorkerSettings
from postern.sms.simulation import Simulation, simulation_of
from storage.database import Database
from storage.ledger.accounts import SendingAccount
from storage.ledger.credentials import get_credentials


def account_of_service(settings: WorkerSettings) -> TwilioAccount:
    """The service's own account, which the settings name."""
    return TwilioAccount(
        account_sid=settings.twilio_account_sid,
        api_key_sid=settings.twilio_api_key_sid,
        api_key_secret=settings.twilio_api_key_secret,
        messaging_service_sid=settings.twilio_messaging_service_sid,
        rate=settings.twilio_rate,
    )


class TwilioSenders:
    """Finds the account of a campaign; those that were found share connections."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        *,
        simulator: Provider,
        connections: Connections,
        secret: bytes,
    ) -> None:
        self._settings = settings
        self._database = database
        self._simulator = simulator
        self._connections = connections
        self._vault = Vault(secret)
        self._callbacks = CallbackSigner(secret)
        self._known: dict[TwilioAccount, Twilio] = {}

    def __call__(self, campaign: Campaign) -> Sender:
        """The sender of a campaign's messages, as its credentials are now.

        Raises:
            TransientError: the database did not answer.
        """
        try:
            found = self._account_of(campaign)
        except TransientError:
            raise
        except PosternError as error:
            return self._sender(id_without_account(campaign.id), NoAccount(str(error)), rate=None)
        provider = self._known.get(found) or self._known.setdefault(found, self._connected(found))
        return self._sender(found.id, provider, rate=found.rate, circuit=found.circuit_id)

    def _account_of(self, campaign: Campaign) -> TwilioAccount:
        if campaign.channel is Channel.PUBLIC:
            return account_of_service(self._settings)
        sealed = get_credentials(self._database, campaign.id)
        if sealed is None:
            raise PosternError(f"{campaign.id} has no credentials. Give it some: postern campaign credentials")
        return self._vault.open(sealed.sealed, campaign.id)

    def _connected(self, account: TwilioAccount) -> Twilio:
        return Twilio(
            account,
            self._connections,
            callback=lambda attempt_id: self._callbacks.url(self._settings.public_url, Twilio.name, attempt_id),
            base_url=self._settings.twilio_url,
        )

    def _sender(self, account_id: str, provider: Provider, *, rate: float | None, circuit: str = "") -> Sender:
        simulation = simulation_of(Twilio.name, self._settings.environment)
        account = SendingAccount(
            id=account_id,
            provider=provider.name,
            rate=rate,
            counts_segments=True,  # Twilio's rates are of segments (MPS)
            simulated=frozenset(MAGIC_NUMBERS) if simulation is Simulation.NUMBERS else frozenset(),
            simulator=self._simulator.name,
            circuit=circuit,
        )
        return Sender(account=account, provider=provider, simulator=self._simulator)


class NoAccount(Provider):
    """Stands in for an account that cannot be used: every message waits."""

    name = Twilio.name
    looks = Twilio.looks

    def __init__(self, reason: str) -> None:
        self._busy = Busy(trouble=Trouble.ACCOUNT, detail=reason)

    @override
    async def send(self, handover: Handover) -> Outcome:
        return self._busy

    @override
    async def find(self, handover: Handover, since: datetime, external_id: str = "") -> Found | Busy:
        return self._busy
