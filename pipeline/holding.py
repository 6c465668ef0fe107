"""What intake holds back, and what the notice about it tells the owner.

A file that looks cut off has its lines counted, so that the owner can compare them with those of the file that was
sent; nothing else of a held file is read before it is released.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pipeline.context import notice_context
from postern.model import Campaign, Upload
from postern.settings import IntakeSettings
from postern.times import iso
from storage.blobs import Blobs
from storage.ledger.receiving import Holding

_BLOCK = 1 << 20  # bytes


def holding_of(
    settings: IntakeSettings, campaign: Campaign, *, write_block: int, lines: int | None, now: datetime
) -> Holding:
    """What is held back of a campaign's uploads, and the notice about it.

    Args:
        settings: say for how long a repeat is held, and how long the owner's link works.
        campaign: the upload's campaign.
        write_block: bytes of each write of its client; 0 where they differ.
        lines: how many lines it has, where it looks cut off.
        now: the time.
    """

    def context(upload: Upload, earlier: Upload | None) -> Mapping[str, Any]:
        hold = {
            "isCutOff": upload.is_cut_off,
            "writeBlock": write_block,
            "lines": lines,
            "repeatOf": _repeated(earlier, settings) if earlier else None,
            "linkExpiresAt": iso(now + timedelta(days=settings.link_days), settings.timezone),
        }
        return notice_context(upload, campaign, settings, hold=hold)

    return Holding(window=settings.repeat_interval, context=context, now=now)


def count_lines(blobs: Blobs, key: str) -> int:
    """How many lines a stored file has that does not end with a line end."""
    with blobs.open(key) as file:
        return 1 + sum(piece.count(b"\n") for piece in iter(lambda: file.read(_BLOCK), b""))


def _repeated(earlier: Upload, settings: IntakeSettings) -> dict[str, Any]:
    return {
        "uploadId": earlier.id,
        "fileName": earlier.file_name,
        "receivedAt": iso(earlier.received_at, settings.timezone),
        "status": earlier.status.value,
        "rows": earlier.total_rows,
    }
