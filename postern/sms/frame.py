"""What stands around every message of a campaign: the agency's name before it, a fixed footer after it."""

from postern.model import Campaign, Environment, Language
from postern.settings import WorkerSettings
from postern.sms.template import Frame


def frame_for(campaign: Campaign, settings: WorkerSettings) -> Frame:
    """The frame of a campaign; in the test environment a training notice comes first."""
    header = campaign.agency
    if settings.environment is Environment.TEST:
        header = f"{settings.header_notice}\n\n{header}"
    return Frame(
        header=header,
        footers={
            Language.ENGLISH: settings.footer_english,
            Language.CHINESE: settings.footer_chinese,
            Language.MALAY: settings.footer_malay,
            Language.TAMIL: settings.footer_tamil,
        },
    )
