"""What a notice tells about an upload: plain values, kept with it, so that a mail can be made again as it was."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from postern.model import Campaign, NoticeKind, Upload, UploadStatus, Verdict
from postern.settings import StoreSettings
from postern.sms.charges import tariff_of
from postern.times import iso


def notice_context(
    upload: Upload,
    campaign: Campaign,
    settings: StoreSettings,
    *,
    verdict: Verdict | None = None,
    batch_id: str | None = None,
    report_url: str | None = None,
    workbook_url: str | None = None,
    report_expires_at: datetime | None = None,
    support_id: str | None = None,
    reason: str | None = None,
    hold: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The context of a notice; its keys are those of `notifier.context.NoticeContext`."""
    return {
        "uploadId": upload.id,
        "campaignId": campaign.id,
        "campaignName": campaign.name,
        "agency": campaign.agency,
        "fileName": upload.file_name,
        "size": upload.size,
        "sha256": upload.sha256,
        "receivedAt": iso(upload.received_at, settings.timezone),
        "verdict": verdict.as_json() if verdict else None,
        "batchId": batch_id,
        "reportURL": report_url,
        "reportExpiresAt": iso(report_expires_at, settings.timezone),
        "workbookURL": workbook_url,
        "supportId": support_id,
        "reason": reason,
        "hold": None if hold is None else dict(hold),
        "answers": _answered(upload, has_failed=support_id is not None),
        "estimatedCost": _estimated_cost(verdict, campaign, settings),
        "environment": settings.environment.value,
        "provider": settings.provider,
    }


def _answered(upload: Upload, *, has_failed: bool) -> str | None:
    """The kind of the mail that an outcome follows: the hold notice, or the failure that was tried again.

    A retry's own failure is told by the same mail once more, which cannot follow itself.
    """
    if upload.status is UploadStatus.HELD:
        return None
    if upload.held_at is not None:
        return NoticeKind.HELD.value
    return NoticeKind.FAILED.value if upload.num_retries and not has_failed else None


def _estimated_cost(verdict: Verdict | None, campaign: Campaign, settings: StoreSettings) -> str | None:
    """In SGD before tax, as if all is charged. That the simulator costs nothing is the mail's to say."""
    if verdict is None or not verdict.is_valid:
        return None
    cost = tariff_of(settings).estimate(campaign.channel, verdict.local_segments, verdict.foreign_segments)
    return None if cost is None else f"{cost:.2f}"
