"""The page behind the link in a hold notice: what is held and why, and a button for either decision.

Whoever has the link may decide, until it expires or somebody has decided: the signature is the permission, and as no
cookie is involved there is nothing that another site could borrow. Mail scanners follow links, so opening the page
changes nothing; only a button's POST does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from postern.display import clean
from postern.errors import NotFoundError, Refusal
from postern.links import LinkSigner, hold_path
from postern.logs import get_logger
from postern.model import Environment, IdKind, NoticeKind, Upload, UploadStatus, is_id
from postern.sms.simulation import MARK, Simulation, simulation_of
from postern.times import in_words
from storage.database import Database
from storage.jobs import JobBoard
from storage.ledger.campaigns import get_campaign
from storage.ledger.decisions import OWNER, drop_upload, release_upload
from storage.ledger.notices import context_of
from storage.ledger.uploads import get_upload
from web.pages import Button, page

_DECISIONS = {"release": release_upload, "drop": drop_upload}
_HEADERS = {
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
}
_DONE = {
    "release": ("The file goes on", "It is being checked now. A mail tells what came of it."),
    "drop": ("The file was dropped", "Nothing is sent of it. A mail confirms that."),
}
_WITHOUT_SMS = {True: ["The simulator is the provider here: no SMS leaves, and nothing is charged."], False: []}
_BECAME = {
    UploadStatus.RECEIVED: "It is being checked.",
    UploadStatus.VALIDATING: "It is being checked.",
    UploadStatus.ACCEPTED: "It was accepted.",
    UploadStatus.REJECTED: "It was rejected; the mail about that has the report.",
    UploadStatus.HELD: "It is held as well.",
    UploadStatus.DROPPED: "It was dropped, and nothing was sent of it.",
    UploadStatus.FAILED: "It could not be finished, by a fault of ours; the mail about that says what to do.",
    UploadStatus.REFUSED: "It was refused.",
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDesk:
    """What deciding about held uploads needs."""

    database: Database
    jobs: JobBoard
    links: LinkSigner  # of hold links
    zone: ZoneInfo
    now: Callable[[], datetime]


def hold_routes(desk: HoldDesk) -> APIRouter:
    """The routes of held uploads."""
    router = APIRouter()

    @router.get("/held/{upload_id}")
    def show(upload_id: str, expires: str = "", signature: str = "") -> Response:
        found = _held_upload(desk, upload_id, expires, signature, used=HTTPStatus.GONE)
        if isinstance(found, Response):
            return found
        return _question(desk, found, urlencode({"expires": expires, "signature": signature}))

    @router.post("/held/{upload_id}/{decision}")
    def decide(upload_id: str, decision: str, expires: str = "", signature: str = "") -> Response:
        if decision not in _DECISIONS:
            return _not_ours()
        found = _held_upload(desk, upload_id, expires, signature, used=HTTPStatus.CONFLICT)
        return found if isinstance(found, Response) else _decided(desk, found, decision)

    return router


def _held_upload(
    desk: HoldDesk, upload_id: str, expires: str, signature: str, *, used: HTTPStatus
) -> Upload | HTMLResponse:
    """The upload that a link is about, or the page that says why nothing can be decided by it."""
    if not is_id(IdKind.UPLOAD, upload_id) or not desk.links.is_good(hold_path(upload_id), expires, signature):
        return _not_ours()
    try:
        upload = get_upload(desk.database, upload_id)
    except NotFoundError:
        return _not_ours()
    if upload.status is not UploadStatus.HELD:
        return _used(desk, upload, used)
    if datetime.fromtimestamp(int(expires), UTC) <= desk.now():
        return _answer(
            HTTPStatus.GONE,
            "This link has expired",
            "The file is still held. Your operator can release or drop it:",
            f"postern upload release {upload.id}",
            f"postern upload drop {upload.id}",
        )
    return upload


def _decided(desk: HoldDesk, upload: Upload, decision: str) -> Response:
    try:
        _DECISIONS[decision](desk.database, desk.jobs, upload.id, actor=OWNER, now=desk.now())
    except Refusal:  # somebody was faster
        return _used(desk, get_upload(desk.database, upload.id), HTTPStatus.CONFLICT)
    log.info("upload.decided", upload_id=upload.id, decision=decision)
    title, then = _DONE[decision]
    is_simulated = _is_simulated(desk, upload)
    return _answer(HTTPStatus.OK, title, clean(upload.file_name), then, *_WITHOUT_SMS[is_simulated], mark=is_simulated)


def _question(desk: HoldDesk, upload: Upload, query: str) -> Response:
    campaign = get_campaign(desk.database, upload.campaign_id, even_deleted=True)
    is_simulated = _is_simulated(desk, upload)
    text = page(
        title="Send this file?",
        mark=MARK if is_simulated else None,
        sentences=[*_reasons(desk, upload), *_WITHOUT_SMS[is_simulated]],
        facts=(
            ("File", clean(upload.file_name)),
            ("Campaign", clean(campaign.name)),
            ("Received", in_words(upload.received_at, desk.zone)),
            ("Rows", "not counted"),
            ("Size", f"{upload.size:,} bytes"),
            ("SHA-256", f"{(upload.sha256 or '')[:16]}…"),
            ("Upload", upload.id),
        ),
        buttons=(
            # Relative, so that it works under whatever path a proxy puts the service.
            Button(words="Send it anyway", action=f"{upload.id}/release?{query}"),
            Button(words="Drop it: send nothing", action=f"{upload.id}/drop?{query}", is_plain=True),
        ),
    )
    return HTMLResponse(text, headers=_HEADERS)


def _reasons(desk: HoldDesk, upload: Upload) -> list[str]:
    reasons = []
    if upload.repeat_of is not None:
        earlier = get_upload(desk.database, upload.repeat_of)
        came = in_words(earlier.received_at, desk.zone)
        reasons += [
            f"It has the same bytes as {clean(earlier.file_name)}, received {came}. {_BECAME[earlier.status]}",
            "If both are sent, everybody in it gets the message twice.",
        ]
    if upload.is_cut_off:
        reasons += [
            "It looks cut off: it ends in the middle of a record, without a line end, as an interrupted upload does.",
            "If it was, drop it and upload the whole file again.",
        ]
    return [*reasons, "Nothing is sent of it until you decide. You can decide once."]


def _used(desk: HoldDesk, upload: Upload, status: HTTPStatus) -> HTMLResponse:
    what = "dropped" if upload.status is UploadStatus.DROPPED else "released"
    when = f" on {in_words(upload.decided_at, desk.zone)}" if upload.decided_at else ""
    told = f"{clean(upload.file_name)} was {what}{when}."
    return _answer(status, "This was decided already", told, _BECAME[upload.status])


def _not_ours() -> HTMLResponse:
    told = "Open it from the mail again; it may have been broken over two lines."
    return _answer(HTTPStatus.FORBIDDEN, "This link is not right", told)


def _is_simulated(desk: HoldDesk, upload: Upload) -> bool:
    """As the mail with the link said it: this host's settings need not name the provider."""
    with desk.database.read() as connection:
        told = context_of(connection, upload.id, NoticeKind.HELD)
    return simulation_of(told["provider"], Environment(told["environment"])) is Simulation.ALL


def _answer(status: HTTPStatus, title: str, *sentences: str, mark: bool = False) -> HTMLResponse:
    text = page(title=title, sentences=sentences, mark=MARK if mark else None)
    return HTMLResponse(text, status_code=status, headers=_HEADERS)
