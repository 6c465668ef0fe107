"""The links in the mails: whoever has a signed one gets the validation report, until it expires."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from postern.links import LinkSigner
from postern.model import IdKind, is_id
from storage.blobs import BlobMissingError, Blobs

_NOT_OURS = "This link is not right. Open it from the mail again; it may have been broken over two lines."
_EXPIRED = "This link has expired. The operator can tell what happened to the upload; its id is in the mail."
_GONE = "This report is not kept any more."


def report_routes(blobs: Blobs, links: LinkSigner, now: Callable[[], datetime]) -> APIRouter:
    """The routes of reports."""
    router = APIRouter()

    @router.get("/validation-reports/{campaign_id}/{report}.csv")
    def get_report(campaign_id: str, report: str, expires: str = "", signature: str = "") -> Response:
        path = f"/validation-reports/{campaign_id}/{report}.csv"
        if not _is_report(campaign_id, report) or not links.is_good(path, expires, signature):
            return PlainTextResponse(_NOT_OURS, status_code=403)
        if datetime.fromtimestamp(int(expires), UTC) <= now():
            return PlainTextResponse(_EXPIRED, status_code=410)
        try:
            file = blobs.open(path.removeprefix("/"))
        except BlobMissingError:
            return PlainTextResponse(_GONE, status_code=410)
        return StreamingResponse(
            _pieces(file),
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="validation-report-{report}.csv"',
                "Cache-Control": "private, no-store",
                "X-Content-Type-Options": "nosniff",
            },
        )

    return router


def _is_report(campaign_id: str, report: str) -> bool:
    return is_id(IdKind.CAMPAIGN, campaign_id) and is_id(IdKind.UPLOAD, report)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 18):
            yield piece
