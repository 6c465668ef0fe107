"""What Twilio reports, through the real web application: true reports, late ones, forged ones."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import httpx
import pytest
from support.domain import NOW, RECIPIENT, add_campaign, enqueued_batch, new_campaign, record_results
from support.twilio import AUTH_TOKEN, new_account
from twilio.request_validator import RequestValidator

from postern.callbacks import CallbackSigner
from postern.credentials import Vault
from postern.links import LinkSigner
from postern.model import Channel, ErrorCode, IdKind, MessageStatus, new_id
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import SendingAccount
from storage.ledger.campaigns import create_campaign
from storage.ledger.claiming import claim
from storage.ledger.credentials import set_credentials
from storage.ledger.messages import Message, list_messages
from storage.ledger.results import Result
from storage.local import LocalBlobs
from web.app import create_app
from web.holds import HoldDesk
from web.webhooks import ReceiptDesk

pytest_plugins = ["support.databases"]

SECRET = b"s" * 32
SIGNER = CallbackSigner(SECRET)
BASE = "https://postern.example"
SID = "SM" + "0" * 32
TWILIO = SendingAccount(id="twilio:1", provider="twilio")
SENDING, SENT, TELCO, SUCCESS, FAILURE = (
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.SENT_TO_TELCO,
    MessageStatus.SUCCESS,
    MessageStatus.FAILURE,
)


class Post:
    """An office's post: one message that was handed over, and the web role."""

    def __init__(self, database: Database, jobs: Jobs, blobs: Path, *, auth_token: str = "") -> None:
        self.database = database
        self.jobs = jobs
        campaign = add_campaign(database, rate=1e6)
        self.batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT])
        self.attempt_id, self.token = self.claim(self.batch_id)
        holds = HoldDesk(
            database=database,
            jobs=jobs,
            links=LinkSigner(SECRET),
            zone=ZoneInfo("Asia/Singapore"),
            now=lambda: NOW,
        )
        desk = ReceiptDesk(
            database=database,
            public_url=BASE,
            secret=SECRET,
            auth_token=auth_token,
            sender_name="gov.sg",
            now=lambda: NOW,
        )
        app = create_app(database, LocalBlobs(blobs), LinkSigner(SECRET), lambda: NOW, holds=holds, receipts=desk)
        # As behind a proxy: the host that the application is asked under is not the one that Twilio knows.
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.7:8080")

    def claim(self, batch_id: str) -> tuple[str, str]:
        claimed = claim(self.database, batch_id=batch_id, rows=(1, 9), rate=1e6, most=1, account=TWILIO, now=NOW)
        return claimed.messages[0].attempt_id, claimed.token

    async def report(
        self,
        status: str,
        *,
        attempt_id: str | None = None,
        path: str | None = None,
        token: str | None = None,
        signed: str | None = None,
        **fields: str,
    ) -> int:
        """Twilio's report; returns the status of the answer."""
        attempt_id = attempt_id or self.attempt_id
        path = path or SIGNER.path("twilio", attempt_id)
        form = {"MessageSid": SID, "MessageStatus": status, "To": f"+{RECIPIENT}", **fields}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if token is not None:
            headers["X-Twilio-Signature"] = RequestValidator(token).compute_signature(signed or f"{BASE}{path}", form)
        answer = await self.client.post(path, content=urlencode(form), headers=headers)
        return answer.status_code

    def message(self, batch_id: str | None = None) -> Message:
        (message,) = list_messages(self.database, batch_id=batch_id or self.batch_id)
        return message

    def record(self, status: MessageStatus = SENT, *, inferred: bool = False) -> None:
        code = ErrorCode.SERVER_UNKNOWN_ERROR if status is FAILURE else None
        result = Result(
            attempt_id=self.attempt_id,
            status=status,
            external_id="" if inferred else SID,
            error_code=code,
            inferred=inferred,
        )
        record_results(self.database, self.token, [result], now=NOW)


@pytest.fixture
def jobs(sqlite_url: str) -> Iterator[Jobs]:
    """The job board."""
    jobs = Jobs(sqlite_url)
    yield jobs
    jobs.close()


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """A ledger on SQLite."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
async def post(database: Database, jobs: Jobs, tmp_path: Path) -> AsyncIterator[Post]:
    """An office that does not know the account's auth token."""
    post = Post(database, jobs, tmp_path)
    yield post
    await post.client.aclose()


@pytest.fixture
async def strict_post(database: Database, jobs: Jobs, tmp_path: Path) -> AsyncIterator[Post]:
    """One that knows it."""
    post = Post(database, jobs, tmp_path, auth_token=AUTH_TOKEN)
    yield post
    await post.client.aclose()


@pytest.mark.parametrize(
    ("word", "fields", "status", "code"),
    [
        ("accepted", {}, SENT, None),
        ("queued", {}, SENT, None),
        ("sending", {}, SENT, None),
        ("sent", {}, TELCO, None),
        ("delivered", {}, SUCCESS, None),
        ("undelivered", {"ErrorCode": "30003"}, FAILURE, ErrorCode.RECIPIENT_UNAVAILABLE),
        ("undelivered", {"ErrorCode": "30005"}, FAILURE, ErrorCode.RECIPIENT_INVALID),
        ("failed", {"ErrorCode": "30001"}, FAILURE, ErrorCode.MESSAGE_EXPIRED),
        ("failed", {"ErrorCode": "30002"}, FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR),
        ("failed", {"ErrorCode": "x"}, FAILURE, ErrorCode.DELIVERY_UNKNOWN_ERROR),
        ("failed", {}, FAILURE, ErrorCode.DELIVERY_UNKNOWN_ERROR),
        ("canceled", {}, FAILURE, ErrorCode.DELIVERY_UNKNOWN_ERROR),
        ("a word of next year", {}, SENDING, None),
    ],
)
async def test_a_report_moves_the_message(
    post: Post, word: str, fields: dict[str, str], status: MessageStatus, code: ErrorCode | None
) -> None:
    """Also when it is faster than our own record of the hand-over."""
    assert await post.report(word, **fields) == 204
    message = post.message()
    assert (message.latest_status, message.attempts[0].error_code) == (status, code)
    if status is not SENDING:
        assert message.attempts[0].external_id == SID


async def test_reports_come_twice_late_and_out_of_order(post: Post) -> None:
    """None of it takes anything back, and all of it is answered so that it does not come again."""
    post.record()
    for word in ("delivered", "sent", "delivered", "queued", "failed"):
        assert await post.report(word) == 204
    message = post.message()
    assert (message.latest_status, message.attempts[0].error_code) == (SUCCESS, None)
    assert message.attempts[0].delivered_at == NOW


async def test_a_final_report_overrides_only_what_we_concluded(post: Post) -> None:
    """First our own failure gives way to the provider's; that one stays."""
    post.record(FAILURE, inferred=True)
    assert await post.report("sent") == 204
    assert post.message().latest_status is FAILURE
    assert await post.report("undelivered", ErrorCode="30003") == 204
    message = post.message()
    assert (message.attempts[0].error_code, message.attempts[0].error_note) == (
        ErrorCode.RECIPIENT_UNAVAILABLE,
        "Twilio error 30003",
    )
    assert await post.report("delivered") == 204
    assert post.message().latest_status is FAILURE


async def test_a_report_on_nobodys_attempt_is_harmless(post: Post) -> None:
    """One that went back into the queue, or from another life of the database."""
    assert await post.report("delivered", attempt_id=new_id(IdKind.ATTEMPT)) == 204
    assert post.message().latest_status is SENDING


async def test_a_forged_address_is_refused(post: Post) -> None:
    """Another attempt's signature, none, another secret's, what is no id."""
    other, good = new_id(IdKind.ATTEMPT), SIGNER.path("twilio", post.attempt_id)
    signature = good.rpartition("/")[2]
    forged = [
        f"/webhooks/twilio/{other}/{signature}",
        f"/webhooks/twilio/{post.attempt_id}/x",
        f"/webhooks/twilio/{post.attempt_id}/{signature[:-1]}",
        CallbackSigner(b"t" * 32).path("twilio", post.attempt_id),
        SIGNER.path("another", post.attempt_id).replace("/another/", "/twilio/"),
        SIGNER.path("twilio", "attempt_1"),
        f"/webhooks/twilio/{post.attempt_id}/é",
    ]
    assert {path: await post.report("delivered", path=path) for path in forged} == dict.fromkeys(forged, 403)
    assert post.message().latest_status is SENDING


async def test_twilios_signature_is_checked_where_the_token_is_known(strict_post: Post) -> None:
    """Over the public address, with or without the overrides behind it; another one's is forged."""
    path = SIGNER.path("twilio", strict_post.attempt_id)
    for token, signed in [
        (None, None),
        ("another token", None),
        (AUTH_TOKEN, f"http://10.0.0.7:8080{path}"),
        (AUTH_TOKEN, f"{BASE}/webhooks/twilio"),
    ]:
        assert await strict_post.report("failed", token=token, signed=signed) == 403
    assert strict_post.message().latest_status is SENDING
    assert await strict_post.report("sent", token=AUTH_TOKEN) == 204
    signed = f"{BASE}{path}#rc=5&rp=all"
    assert await strict_post.report("delivered", token=AUTH_TOKEN, signed=signed, Body="", From="gov.sg") == 204
    assert strict_post.message().latest_status is SUCCESS


async def test_an_agencys_reports_are_signed_with_its_token(strict_post: Post) -> None:
    """Not with the service's; without a token of its own, our signature in the address must do."""
    campaign = dataclasses.replace(new_campaign(rate=1e6), channel=Channel.INTERNAL)
    create_campaign(strict_post.database, campaign, actor="operator")
    batch_id = enqueued_batch(strict_post.database, strict_post.jobs, campaign, [RECIPIENT])
    attempt_id, _token = strict_post.claim(batch_id)

    def give(**changes: str) -> None:
        sealed = Vault(SECRET).seal(new_account(**changes), campaign.id)
        set_credentials(strict_post.database, campaign.id, sealed=sealed, sender_name="", actor="operator", now=NOW)

    give(auth_token="theirs")
    assert await strict_post.report("queued", attempt_id=attempt_id, token=AUTH_TOKEN) == 403
    assert await strict_post.report("queued", attempt_id=attempt_id, token="theirs") == 204
    assert strict_post.message(batch_id).latest_status is SENT
    give(auth_token="")
    assert await strict_post.report("delivered", attempt_id=attempt_id) == 204
    assert strict_post.message(batch_id).latest_status is SUCCESS


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"MessageStatus=", b"a=1&" * 1000, b'{"MessageStatus":"sent"}'])
async def test_what_says_nothing_changes_nothing(post: Post, body: bytes) -> None:
    """And need not come again."""
    answer = await post.client.post(SIGNER.path("twilio", post.attempt_id), content=body)
    assert answer.status_code == 204
    assert post.message().latest_status is SENDING


async def test_a_report_has_a_size(post: Post) -> None:
    """No more is read."""
    answer = await post.client.post(SIGNER.path("twilio", post.attempt_id), content=b"a" * 100_000)
    assert answer.status_code == 413


@pytest.fixture
def away(database: Database) -> Callable[[bool], None]:
    """Takes the database away, or brings it back."""
    path = Path(database.path)
    hidden = path.with_suffix(".away")

    def move(is_away: bool) -> None:
        database.dispose()
        if is_away:
            path.rename(hidden)
            path.mkdir()
        else:
            path.rmdir()
            hidden.rename(path)

    return move


async def test_a_report_comes_again_while_the_database_is_away(post: Post, away: Callable[[bool], None]) -> None:
    """503, so that Twilio repeats it."""
    away(True)
    assert await post.report("delivered") == 503
    away(False)
    assert await post.report("delivered") == 204
    assert post.message().latest_status is SUCCESS
