"""Sending by Twilio, through a stand-in: pauses, outages, wrong credentials, doubts, receipts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.domain import OWNER, RECIPIENT, change, count, enqueued_batch, new_campaign, open_ids
from support.twilio import Answer, TwilioStandIn, new_account
from support.waiting import until_async

import storage.engine
from dispatch.accounts import Senders
from dispatch.context import PATIENCE, Dispatch, Patience
from dispatch.doubts import settle_all
from dispatch.provider import Trouble
from dispatch.simulator import MAGIC_NUMBERS, Simulator
from dispatch.twilio import Twilio
from dispatch.twilio_accounts import TwilioSenders
from dispatch.twilio_http import Connections
from dispatch.workflow import send_rows
from postern.callbacks import CallbackSigner
from postern.credentials import Vault
from postern.errors import TransientError
from postern.model import Campaign, Channel, Environment, ErrorCode, MessageStatus
from postern.settings import WorkerSettings
from postern.times import utc_now
from storage.clerk import InThread
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.accounts import list_circuits
from storage.ledger.campaigns import create_campaign
from storage.ledger.credentials import set_credentials
from storage.ledger.messages import Message, list_messages
from storage.ledger.receipts import Receipt, apply_receipts
from storage.tables import attempts, campaigns, simulator_journal

pytest_plugins = ["support.databases"]

SECRET = b"s" * 32
FAST = 10_000.0
EVERY_ROW = (1, 1_000_000)
RESTS = dict.fromkeys(Trouble, (0.2, 0.4))  # seconds
SENT, FAILURE, ENQUEUED = MessageStatus.SENT, MessageStatus.FAILURE, MessageStatus.ENQUEUED
UNKNOWN = (FAILURE, ErrorCode.SERVER_UNKNOWN_ERROR)
REFUSED = Answer(status=500, accepts=False)


@dataclass
class Office:
    """A database with one campaign, and what sends its batches by the stand-in."""

    database: Database
    jobs: Jobs
    server: TwilioStandIn
    settings: WorkerSettings
    senders: Senders
    campaign: Campaign
    patience: Patience = field(default_factory=lambda: PATIENCE)

    def batch(self, *recipients: str) -> str:
        return enqueued_batch(self.database, self.jobs, self.campaign, recipients)

    async def send(self, batch_id: str) -> list[Message]:
        await asyncio.wait_for(self.sending(batch_id), 30)
        return self.messages(batch_id)

    async def sending(self, batch_id: str) -> None:
        dispatch = Dispatch(
            settings=self.settings,
            database=self.database,
            ledger=InThread(self.database),
            jobs=self.jobs,
            senders=self.senders,
            now=utc_now,
            rests=RESTS,
            patience=self.patience,
        )
        await send_rows(dispatch, self.campaign, batch_id, EVERY_ROW)
        await settle_all(dispatch, self.campaign, batch_id, open_ids(self.database, batch_id))

    def messages(self, batch_id: str) -> list[Message]:
        return list_messages(self.database, batch_id=batch_id, limit=10_000)

    def answer_in_turn(self, *answers: Answer) -> None:
        """These first, then as always."""
        left = iter(answers)
        self.server.answer = lambda _fields: next(left, Answer())


@pytest.fixture
def server() -> Iterator[TwilioStandIn]:
    """Twilio's place."""
    with TwilioStandIn() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt gets less time here."""
    monkeypatch.setattr(Twilio, "looks", (0.1, 0.3))


@pytest.fixture
def open_office(
    sqlite_url: str, server: TwilioStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AsyncIterator[Office]]]:
    """Opens an office, in production or elsewhere, for the public or internal."""
    database, jobs = Database(sqlite_url), Jobs(sqlite_url)

    async def opened(
        *,
        environment: Environment = Environment.PRODUCTION,
        channel: Channel = Channel.PUBLIC,
        account_rate: float = FAST,
    ) -> AsyncIterator[Office]:
        settings = WorkerSettings.load(
            {
                **server.environment(),
                "POSTERN_ENVIRONMENT": environment,
                "POSTERN_TWILIO_RATE": str(account_rate),
            }
        )
        simulator = Simulator(database, environment=environment, now=utc_now)
        connections = Connections(now=utc_now)
        senders = TwilioSenders(settings, database, simulator=simulator, connections=connections, secret=SECRET)
        campaign = replace(new_campaign(rate=FAST), channel=channel)
        create_campaign(database, campaign, actor="operator")
        yield Office(database, jobs, server, settings, senders, campaign)
        await connections.close()

    yield opened
    jobs.close()
    database.dispose()


@pytest.fixture
async def office(open_office: Any) -> AsyncIterator[Office]:
    """An office for the public, in production."""
    async for office in open_office():
        yield office


@pytest.fixture
async def internal_office(open_office: Any) -> AsyncIterator[Office]:
    """An office of an agency's own staff."""
    async for office in open_office(channel=Channel.INTERNAL):
        yield office


def outcome_of(message: Message) -> tuple[MessageStatus, ErrorCode | None]:
    return message.latest_status, message.attempts[-1].error_code


def numbers(many: int) -> list[str]:
    return [f"65910{number:05}" for number in range(many)]


async def test_a_batch_leaves_once(office: Office) -> None:
    """Every message, with the account, its text and the signed address for its attempt's reports."""
    batch_id = office.batch(*numbers(300))
    found = await office.send(batch_id)
    assert office.server.by_recipient() == dict.fromkeys(numbers(300), 1)
    by_number = {taken.to.removeprefix("+"): taken for taken in office.server.taken}
    signer = CallbackSigner(SECRET)
    for message in found:
        taken = by_number[message.recipient]
        (attempt,) = message.attempts
        assert (message.latest_status, attempt.provider, attempt.external_id) == (SENT, "twilio", taken.sid)
        assert taken.fields["StatusCallback"] == signer.url("http://127.0.0.1:8080", "twilio", attempt.id)
        assert taken.fields["Body"].startswith("Immigration\n\n---\n\nDear Emily\n\n---\n\n")


async def test_the_pace_of_the_account_holds_for_a_faster_campaign(open_office: Any) -> None:
    """No more is claimed at once than what a pause may catch up with, and a tenth of a second of its rate after."""
    async for office in open_office(account_rate=40):
        await office.send(office.batch(*numbers(25)))
        with office.database.read() as connection:
            query = sa.select(sa.func.count(attempts.c.id)).group_by(attempts.c.claim)
            claims = connection.execute(query).scalars().all()
        assert (sum(claims), max(claims)) == (25, 14)


# An account that takes nothing now


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["429", "Retry-After"])
async def test_a_throttled_account_loses_nothing(office: Office, headers: dict[str, str]) -> None:
    """What it would not take now goes later, with the first attempt; never twice, and never as a failure."""
    throttled = Answer(status=429, code=20429, headers=headers)
    office.answer_in_turn(*[Answer()] * 30, *[throttled] * 100, *[Answer()] * 40, *[throttled] * 3)
    found = await office.send(office.batch(*numbers(260)))
    assert {(message.latest_status, message.num_attempts, len(message.attempts)) for message in found} == {(SENT, 1, 1)}
    assert office.server.by_recipient() == dict.fromkeys(numbers(260), 1)
    assert list_circuits(office.database, now=utc_now()) == []


async def test_revoked_credentials_burn_no_message(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages wait, one at a time asks again, and the log calls for an operator; then all of them go."""
    keys, office.server.keys = office.server.keys, {}
    batch_id = office.batch(*numbers(1500))
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: [c for c in list_circuits(office.database, now=utc_now()) if c.failures > 2], "the rest")
    (circuit,) = list_circuits(office.database, now=utc_now())
    assert (circuit.trouble, circuit.detail) == ("account", "401, Twilio error 20003")
    assert {message.latest_status for message in office.messages(batch_id)} <= {ENQUEUED, MessageStatus.SENDING}
    assert len(office.server.asked) < 800 + 10
    office.server.keys = keys
    await asyncio.wait_for(sending, 30)
    assert {outcome_of(message) for message in office.messages(batch_id)} == {(SENT, None)}
    assert office.server.by_recipient() == dict.fromkeys(numbers(1500), 1)
    logged = capsys.readouterr().out
    assert "provider.refuses_account" in logged
    secrets = (office.server.account.api_key_secret, office.server.account.account_sid, RECIPIENT[:6])
    assert not [secret for secret in secrets if secret in logged]


async def test_an_outage_takes_no_more_than_what_was_on_its_way(office: Office) -> None:
    """A slice of which nothing is answered stops the account; the rest of the batch is not handed over in vain."""
    office.answer_in_turn(*[REFUSED] * 200)
    found = await office.send(office.batch(*numbers(450)))
    assert [outcome_of(message) for message in found].count(UNKNOWN) == 200
    assert [outcome_of(message) for message in found].count((SENT, None)) == 250
    assert max(office.server.by_recipient().values()) == 1


async def test_a_server_that_is_away_was_handed_nothing(office: Office, open_office: Any) -> None:
    """Messages wait until it is back, with no attempt used up."""
    url = office.server.url
    office.settings = office.settings.model_copy(update={"twilio_url": "http://127.0.0.1:1"})
    office.senders._settings = office.settings  # type: ignore[attr-defined]
    batch_id = office.batch(*numbers(30))
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: list_circuits(office.database, now=utc_now()), "the rest")
    assert office.server.asked == []
    office.senders._settings = office.settings.model_copy(update={"twilio_url": url})  # type: ignore[attr-defined]
    office.senders._known.clear()  # type: ignore[attr-defined]
    await asyncio.wait_for(sending, 30)
    assert {(message.latest_status, message.num_attempts) for message in office.messages(batch_id)} == {(SENT, 1)}


async def test_a_worker_that_stops_does_not_wait_for_a_rest(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job stays pending, its messages stay enqueued."""
    stopping = asyncio.Event()
    monkeypatch.setattr(storage.engine, "_stopping", stopping)
    office.server.answer = lambda _fields: Answer(status=429, headers={"Retry-After": "3600"})
    batch_id = office.batch(RECIPIENT)
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: list_circuits(office.database, now=utc_now()), "the rest")
    stopping.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(sending, 5)
    assert [message.latest_status for message in office.messages(batch_id)] == [ENQUEUED]
    assert count(office.database, attempts) == 0


# Doubts


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(status=500, accepts=True), (SENT, None)),
        (Answer(end="reset"), (SENT, None)),
        (Answer(end="reset", accepts=False), UNKNOWN),
        (REFUSED, UNKNOWN),
    ],
    ids=["500-taken", "reset-taken", "reset", "500"],
)
async def test_a_doubt_is_asked_about(
    office: Office, answer: Answer, outcome: tuple[MessageStatus, ErrorCode | None]
) -> None:
    """What Twilio has is sent; what it has not is a failure that says what it is; neither is handed over again."""
    office.server.answer = lambda _fields: answer
    (message,) = await office.send(office.batch(RECIPIENT))
    (attempt,) = message.attempts
    assert outcome_of(message) == outcome
    assert attempt.external_id == (office.server.taken[0].sid if office.server.taken else "")
    assert attempt.inferred is (outcome == UNKNOWN)
    assert ("retrying may deliver it twice" in (attempt.error_note or "")) is (outcome == UNKNOWN)
    assert len(office.server.asked) == 1


async def test_a_later_receipt_overrides_an_unresolved_doubt(office: Office) -> None:
    """Twilio had it after all, and knows best; what we only concluded gives way."""
    office.server.answer = lambda _fields: REFUSED
    batch_id = office.batch(RECIPIENT)
    (message,) = await office.send(batch_id)
    receipt = Receipt(attempt_id=message.attempts[0].id, status=MessageStatus.SUCCESS, external_id="SM1")
    assert apply_receipts(office.database, [receipt], now=utc_now()) == 1
    (message,) = office.messages(batch_id)
    assert (outcome_of(message), message.attempts[0].error_note) == ((MessageStatus.SUCCESS, None), None)


async def test_a_receipt_is_faster_than_a_look_up(office: Office) -> None:
    """Then nobody is asked, and what it said stays."""
    office.server.answer = lambda _fields: Answer(status=500, accepts=True)
    batch_id = office.batch(RECIPIENT)
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: office.server.taken, "the hand-over")
    attempt_id = office.messages(batch_id)[0].attempts[0].id
    receipt = Receipt(attempt_id=attempt_id, status=MessageStatus.SENT_TO_TELCO, external_id="SM1")
    apply_receipts(office.database, [receipt], now=utc_now())
    await asyncio.wait_for(sending, 10)
    assert office.messages(batch_id)[0].latest_status is MessageStatus.SENT_TO_TELCO
    assert office.server.looked_up == []


async def test_one_message_is_not_found_twice(office: Office) -> None:
    """The same text to the same number in two rows, and Twilio has one of them."""
    office.answer_in_turn(Answer(status=500, accepts=True), REFUSED)
    found = await office.send(office.batch(RECIPIENT, RECIPIENT))
    assert sorted(outcome_of(message) for message in found) == sorted([(SENT, None), UNKNOWN])


async def test_a_look_up_waits_for_an_answer(office: Office) -> None:
    """That Twilio cannot tell now does not mean that it has not got it."""
    office.server.answer = lambda _fields: Answer(status=500, accepts=True)
    left = iter([Answer(status=503), Answer(status=429, headers={"Retry-After": "0"})])
    office.server.list_answer = lambda: next(left, Answer(status=200))
    (message,) = await office.send(office.batch(RECIPIENT))
    assert outcome_of(message) == (SENT, None)
    assert len(office.server.looked_up) == 3


async def test_doubts_of_a_deleted_campaign_are_asked_about(office: Office) -> None:
    """Nothing more is sent, but what was handed over is known."""
    batch_id = office.batch(RECIPIENT)
    office.server.answer = lambda _fields: Answer(end="hang")
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: office.server.taken, "the hand-over")
    sending.cancel()
    await asyncio.wait([sending])
    change(office.database, campaigns, office.campaign.id, deleted_at=utc_now())
    (message,) = await office.send(batch_id)
    assert outcome_of(message) == (SENT, None)
    assert len(office.server.asked) == 1


async def test_a_doubt_that_cannot_be_asked_about_is_given_up(office: Office) -> None:
    """Where look-ups are refused: the account rests, an operator can see why, and the batch comes to its end."""
    office.server.list_answer = lambda: Answer(status=403, code=20003)
    office.answer_in_turn(Answer(status=500, accepts=True))
    office.patience = dict.fromkeys(Trouble, 1.5)
    batch_id = office.batch(*numbers(20))
    sending = asyncio.create_task(office.sending(batch_id))
    await until_async(lambda: list_circuits(office.database, now=utc_now()), "the rest")
    (circuit,) = list_circuits(office.database, now=utc_now())
    assert (circuit.trouble, circuit.detail) == ("account", "look-up: 403, Twilio error 20003")
    await asyncio.wait_for(sending, 30)
    outcomes = [outcome_of(message) for message in office.messages(batch_id)]
    assert (outcomes.count(UNKNOWN), outcomes.count((SENT, None))) == (1, 19)


# Which account, and which numbers


@pytest.mark.parametrize("environment", [Environment.TEST, Environment.PRODUCTION])
async def test_the_simulators_numbers(open_office: Any, environment: Environment) -> None:
    """With a real provider they are simulated in a test installation, and numbers like any other in production."""
    async for office in open_office(environment=environment):
        found = await office.send(office.batch(*MAGIC_NUMBERS, RECIPIENT))
        simulated = list(MAGIC_NUMBERS) if environment is Environment.TEST else []
        providers = {message.recipient: message.attempts[0].provider for message in found}
        assert [number for number, provider in providers.items() if provider == "simulator"] == simulated
        assert set(office.server.by_recipient()) == {*MAGIC_NUMBERS, RECIPIENT} - set(simulated)
        assert count(office.database, simulator_journal) == len(simulated)
        codes = [message.attempts[0].error_code for message in found]
        assert codes == [*(MAGIC_NUMBERS.values() if simulated else [None] * len(MAGIC_NUMBERS)), None]


async def test_an_internal_campaign_sends_by_its_own_account(internal_office: Office) -> None:
    """Without credentials, or with such as cannot be opened, its messages wait; with good ones they go."""
    database, campaign, server = internal_office.database, internal_office.campaign, internal_office.server

    def give(vault: Vault) -> None:
        sealed = vault.seal(own, campaign.id)
        set_credentials(database, campaign.id, sealed=sealed, sender_name="", actor=OWNER, now=utc_now())

    def tells(text: str) -> bool:
        return any(text in circuit.detail for circuit in list_circuits(database, now=utc_now()))

    own = new_account()
    batch_id = internal_office.batch(*numbers(30))
    sending = asyncio.create_task(internal_office.sending(batch_id))
    await until_async(lambda: tells("has no credentials"), "the alarm")
    give(Vault(b"another secret key of 32 bytes!!"))
    await until_async(lambda: tells("cannot be opened"), "the alarm")
    assert server.asked == []
    server.account, server.keys = own, {own.api_key_sid: own.api_key_secret}
    give(Vault(SECRET))
    await asyncio.wait_for(sending, 30)
    assert {message.latest_status for message in internal_office.messages(batch_id)} == {SENT}
    assert {taken.fields["MessagingServiceSid"] for taken in server.taken} == {own.messaging_service_sid}


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Database]:
    """A database that does not answer."""
    database = Database(f"sqlite:///{tmp_path}/away/postern.db")
    (tmp_path / "away").rmdir()
    yield database
    database.dispose()


async def test_a_database_that_is_away_is_no_lack_of_credentials(internal_office: Office, away: Database) -> None:
    """It raises no alarm about the account; the job waits as it always does."""
    senders = TwilioSenders(
        internal_office.settings,
        away,
        simulator=Simulator(away, environment=Environment.PRODUCTION, now=utc_now),
        connections=internal_office.senders._connections,  # type: ignore[attr-defined]
        secret=SECRET,
    )
    with pytest.raises(TransientError):
        senders(internal_office.campaign)


def test_an_account_has_a_name_that_tells_nothing() -> None:
    """The same for all who use it, and not its SID."""
    account = new_account()
    assert account.id == new_account(account_sid=account.account_sid).id != new_account().id
    assert account.account_sid[2:] not in account.id
    other_key = account.model_copy(update={"api_key_sid": new_account().api_key_sid})
    assert (account.id, account.circuit_id) != (other_key.id, other_key.circuit_id)
    assert account.circuit_id not in {other_key.circuit_id, account.id}
    shown = repr(account)
    assert not [one for one in (account.account_sid, account.api_key_sid, account.api_key_secret) if one in shown]
