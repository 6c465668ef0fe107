"""The links in the mails: whoever has a signed one gets the validation report, until it expires.

The report as a workbook may still be in the making. That is a 503 with `Retry-After` (RFC 9110, 15.6.4 and 10.2.3),
not a 202: a program that fetches it (`curl --fail --retry`) must not take the page that says so for the workbook.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from postern.links import LinkSigner
from postern.model import IdKind, is_id
from storage.blobs import BlobMissingError, Blobs
from web.pages import page

_NOT_OURS = "This link is not right. Open it from the mail again; it may have been broken over two lines."
_EXPIRED = "This link has expired. The operator can tell what happened to the upload; its id is in the mail."
_GONE = "This report is not kept any more."
_WAIT = 3  # seconds until the next look at a workbook
_HEADERS = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
_PAGE_HEADERS = {**_HEADERS, "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_CSV, _WORKBOOK = "csv", "xlsx"
_TYPES = {
    _CSV: "text/csv; charset=utf-8",
    _WORKBOOK: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def report_routes(blobs: Blobs, links: LinkSigner, now: Callable[[], datetime]) -> APIRouter:
    """The routes of reports."""
    router = APIRouter()

    @router.get("/validation-reports/{campaign_id}/{report}.{form}")
    def get_report(campaign_id: str, report: str, form: str, expires: str = "", signature: str = "") -> Response:
        stem = f"/validation-reports/{campaign_id}/{report}"
        path = f"{stem}.{form}"
        if not _is_report(campaign_id, report, form) or not links.is_good(path, expires, signature):
            return PlainTextResponse(_NOT_OURS, status_code=403)
        expires_at = datetime.fromtimestamp(int(expires), UTC)
        if expires_at <= now():
            return PlainTextResponse(_EXPIRED, status_code=410)
        csv = links.sign("", f"{stem}.{_CSV}", expires_at)
        size = _size(blobs, path)
        if size is None:
            if form == _WORKBOOK and _size(blobs, f"{stem}.{_CSV}") is not None:
                return _not_ready(csv)
            return PlainTextResponse(_GONE, status_code=410)
        if form == _WORKBOOK and size == 0:  # which says that there is none; see `pipeline.workbook_job`
            return _none(csv)
        return _file(blobs, path, name=f"validation-report-{report}.{form}", media_type=_TYPES[form])

    return router


def _is_report(campaign_id: str, report: str, form: str) -> bool:
    return is_id(IdKind.CAMPAIGN, campaign_id) and is_id(IdKind.UPLOAD, report) and form in _TYPES


def _size(blobs: Blobs, path: str) -> int | None:
    try:
        return blobs.size(path.removeprefix("/"))
    except BlobMissingError:
        return None


def _file(blobs: Blobs, path: str, *, name: str, media_type: str) -> Response:
    """The file itself, or where the store serves it for a moment: the bytes need not go through here."""
    key = path.removeprefix("/")
    address = blobs.link(key, file_name=name, media_type=media_type)
    if address is not None:
        return RedirectResponse(address, status_code=302, headers={**_HEADERS, "Referrer-Policy": "no-referrer"})
    headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    try:
        return StreamingResponse(_pieces(blobs.open(key)), media_type=media_type, headers=headers)
    except BlobMissingError:  # removed since it was looked at
        return PlainTextResponse(_GONE, status_code=410)


def _not_ready(csv: str) -> Response:
    text = page(
        title="The workbook is being made",
        sentences=(
            "A large one takes half a minute, or longer where others come first.",
            "This page looks again by itself; when the workbook is ready, its download starts.",
        ),
        link=("Take the report as CSV instead", csv),
        reload=_WAIT,
    )
    return HTMLResponse(text, status_code=503, headers={**_PAGE_HEADERS, "Retry-After": str(_WAIT)})


def _none(csv: str) -> Response:
    text = page(
        title="This report has no workbook",
        sentences=("It could not be made; the operator's log says why.", "The report as CSV has everything."),
        link=("Take the report as CSV", csv),
    )
    return HTMLResponse(text, status_code=404, headers=_PAGE_HEADERS)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 18):
            yield piece
