"""What providers report on attempts: `POST /webhooks/twilio/<attempt>/<signature>`.

The address is signed by us and known to us and the provider alone, so a report under it is the provider's word.
Where the account's auth token is known, the provider's own signature must be right as well. What is authentic is
answered with 204, also when it comes late, twice, out of order or for an attempt that is not there (any more): it
would be no better the next time. Only what cannot be recorded now is answered with 503, and comes again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response
from twilio.request_validator import SIGNATURE_HEADER, SIGNATURE_SETTINGS_HEADER, RequestValidator
from twilio.request_validator import get_signature_algorithm as algorithm_of

from postern.callbacks import CallbackSigner
from postern.credentials import Vault
from postern.logs import get_logger
from postern.model import Channel, IdKind, MessageStatus, is_id
from postern.sms.twilio_codes import STATUSES, error_code_of, note_of
from storage.database import Database
from storage.ledger.credentials import AttemptOwner, get_credentials, owner_of_attempt
from storage.ledger.receipts import Receipt, apply_receipts

_TWILIO = "twilio"
_LARGEST = 64 * 1024  # bytes; reports have about one thousand
_MOST_FIELDS = 200
_LONGEST_ID = 64
_FORBIDDEN = PlainTextResponse("This is not Twilio's.", status_code=403)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sender:
    """What reports on a campaign's attempts should look like; empty: anything goes."""

    auth_token: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptDesk:
    """Where reports come in."""

    database: Database
    public_url: str
    secret: bytes
    auth_token: str  # of the service's own account; empty: not known
    sender_name: str  # the same account's
    now: Callable[[], datetime]

    def take(self, attempt_id: str, signature: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Record a report; False where it is none of the provider's. Blocks."""
        signer = CallbackSigner(self.secret)
        if not is_id(IdKind.ATTEMPT, attempt_id) or not signer.is_good(_TWILIO, attempt_id, signature):
            return False
        owner = owner_of_attempt(self.database, attempt_id)
        if owner is None:
            log.info("receipt.nobodys", attempt_id=attempt_id)
            return True
        fields = _fields(body)
        sender = self._sender_of(owner)
        if sender.auth_token and not _is_signed(
            sender.auth_token, signer.url(self.public_url, _TWILIO, attempt_id), fields, headers
        ):
            log.warning("receipt.forged", attempt_id=attempt_id)
            return False
        if sender.name and fields.get("From", sender.name) != sender.name:
            log.warning("receipt.other_sender", attempt_id=attempt_id, campaign_id=owner.campaign_id)
        self._record(attempt_id, fields)
        return True

    def _record(self, attempt_id: str, fields: Mapping[str, str]) -> None:
        status = STATUSES.get(fields.get("MessageStatus") or fields.get("SmsStatus") or "")
        if status is None:
            log.info("receipt.unknown_status", attempt_id=attempt_id)
            return
        code = int(fields["ErrorCode"]) if fields.get("ErrorCode", "").isdecimal() else None
        failed = status is MessageStatus.FAILURE
        receipt = Receipt(
            attempt_id=attempt_id,
            status=status,
            external_id=(fields.get("MessageSid") or fields.get("SmsSid") or "")[:_LONGEST_ID],
            error_code=error_code_of(code) if failed else None,
            error_note=note_of(code) if failed else None,
        )
        if apply_receipts(self.database, [receipt], now=self.now()):
            log.info("attempt.reported", attempt_id=attempt_id, status=status.value)

    def _sender_of(self, owner: AttemptOwner) -> _Sender:
        if owner.channel is Channel.PUBLIC:
            return _Sender(auth_token=self.auth_token, name=self.sender_name)
        sealed = get_credentials(self.database, owner.campaign_id)
        if sealed is None:
            return _Sender()
        account = Vault(self.secret).open(sealed.sealed, owner.campaign_id)
        return _Sender(auth_token=account.auth_token, name=account.sender_name)


def webhook_routes(desk: ReceiptDesk) -> APIRouter:
    """The routes of providers' reports."""
    router = APIRouter()

    @router.post("/webhooks/twilio/{attempt_id}/{signature}")
    async def report(request: Request, attempt_id: str, signature: str) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _LARGEST:
                return PlainTextResponse("A report is shorter than that.", status_code=413)
        is_theirs = await run_in_threadpool(desk.take, attempt_id, signature, request.headers, bytes(body))
        return Response(status_code=204) if is_theirs else _FORBIDDEN

    return router


def _fields(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:  # no UTF-8, or too many fields
        return {}


def _is_signed(token: str, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Whether Twilio signed this, over the address as it got it, or without the overrides that are for Twilio alone."""
    signature, algorithm = headers.get(SIGNATURE_HEADER, ""), algorithm_of(headers.get(SIGNATURE_SETTINGS_HEADER))
    validator = RequestValidator(token)
    addresses = (url.partition("#")[0], url)
    return any(validator.validate(address, dict(fields), signature, algorithm) for address in addresses)
