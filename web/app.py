"""The web role's application: report links, held uploads, providers' reports, `/healthz`, `/readyz` and `/metrics`."""

from collections.abc import Callable
from datetime import datetime

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from postern import __version__
from postern.errors import TransientError
from postern.links import LinkSigner
from postern.logs import get_logger
from storage.backlog import waiting_messages
from storage.blobs import Blobs
from storage.database import Database
from storage.ledger.accounts import list_circuits
from storage.ledger.notices import count_notices
from storage.ledger.uploads import count_uploads
from web.holds import HoldDesk, hold_routes
from web.reports import report_routes
from web.webhooks import ReceiptDesk, webhook_routes

log = get_logger(__name__)


def create_app(
    database: Database,
    blobs: Blobs,
    links: LinkSigner,
    now: Callable[[], datetime],
    *,
    holds: HoldDesk,
    receipts: ReceiptDesk | None = None,
) -> FastAPI:
    """Make the application; it holds no state of its own."""
    app = FastAPI(title="Postern", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(report_routes(blobs, links, now))
    app.include_router(hold_routes(holds))
    if receipts is not None:
        app.include_router(webhook_routes(receipts))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> Response:
        """The database answers, too."""
        count_notices(database)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    def metrics() -> Response:
        """Counts by status, read from the ledger when asked."""
        return Response(_metrics(database, now()), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(TransientError)
    def unavailable(_request: Request, error: TransientError) -> Response:
        """Whatever was asked: what is away comes back. Which host and port that is, only the log says."""
        log.warning("web.unavailable", error=str(error))
        return JSONResponse({"status": "unavailable"}, status_code=503)

    return app


def _metrics(database: Database, now: datetime) -> bytes:
    registry = CollectorRegistry()
    uploads = Gauge("postern_uploads", "Uploads in the ledger, by status.", ["status"], registry=registry)
    notices = Gauge("postern_notices", "Mails in the outbox, by status.", ["status"], registry=registry)
    for status, count in count_uploads(database).items():
        uploads.labels(status).set(count)
    for status, count in count_notices(database).items():
        notices.labels(status).set(count)
    waiting = Gauge("postern_messages_waiting", "Messages that no provider was handed yet.", registry=registry)
    waiting.set(waiting_messages(database).total())
    resting = Gauge("postern_accounts_resting", "Accounts that take nothing, by why.", ["trouble"], registry=registry)
    for circuit in list_circuits(database, now=now):
        resting.labels(circuit.trouble).inc()
    return generate_latest(registry)
