"""What a notice knows of its upload: the keys of `Notice.context`, written when the outcome is recorded."""

from typing import Any, TypedDict


class NoticeContext(TypedDict):
    """What stands in `Notice.context`: plain JSON values, written when the outcome is recorded."""

    uploadId: str
    campaignId: str
    campaignName: str
    agency: str
    fileName: str
    size: int | None  # bytes; None where the gate refused before it knew
    sha256: str | None
    receivedAt: str  # ISO 8601 with an offset
    verdict: dict[str, Any] | None  # Verdict.as_json(); None for refused and failed
    batchId: str | None
    reportURL: str | None
    reportExpiresAt: str | None  # ISO 8601 with an offset: when the links to report and workbook end
    workbookURL: str | None  # the report as .xlsx, where there is one
    supportId: str | None
    reason: str | None  # a sentence of ours, for refused, failed and dropped
    hold: "HoldContext | None"  # for held, and for dropped where it was held
    answers: str | None  # the kind of the mail that this one follows, if any
    estimatedCost: str | None  # SGD as a decimal, before tax and as if charged: "12.34"
    environment: str
    provider: str  # with `environment` it says what is SIMULATED, and costs 0


class HoldContext(TypedDict):
    """Why an upload is held."""

    isCutOff: bool
    writeBlock: int  # bytes of each write; 0 where they differ
    lines: int | None  # of a file that looks cut off
    repeatOf: "RepeatContext | None"
    linkExpiresAt: str  # ISO 8601 with an offset


class RepeatContext(TypedDict):
    """The upload whose bytes came again, as it was then."""

    uploadId: str
    fileName: str
    receivedAt: str  # ISO 8601 with an offset
    status: str
    rows: int | None  # known once it is accepted
