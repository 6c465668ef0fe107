"""Messages as a provider gets them: rendered, with what goes around the text."""

from collections.abc import Callable

from dispatch.provider import Handover
from postern.model import Campaign, Language
from postern.settings import WorkerSettings
from postern.sms.frame import frame_for
from postern.sms.template import render
from storage.ledger.claiming import Claimed


def handovers(campaign: Campaign, settings: WorkerSettings) -> Callable[[Claimed], Handover]:
    """What makes them of a campaign's messages: the same one to hand over, and to ask about later."""
    around = frame_for(campaign, settings).around

    def handover(message: Claimed) -> Handover:
        language = Language(message.language)
        return Handover(
            attempt_id=message.attempt_id,
            message_id=message.message_id,
            recipient=message.recipient,
            text=around(render(campaign.templates[language], message.values), language),
        )

    return handover
