"""The Twilio provider against a stand-in that behaves in every way that a server and a network can."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from support.twilio import Answer, Taken, TwilioStandIn
from support.waiting import until_async

from dispatch import twilio_http
from dispatch.provider import Accepted, Busy, Found, Handover, Outcome, Refused, Trouble, Unknown
from dispatch.twilio import Twilio
from dispatch.twilio_http import Connections
from dispatch.twilio_promises import refusal
from postern.model import ErrorCode, MessageStatus
from postern.sms.twilio_codes import ACCOUNT, ERROR_CODES, LATER
from postern.times import utc_now

HANDOVER = Handover(attempt_id="attempt_1", message_id="message_1", recipient="6591234567", text="Dear Emily 😀\n=&+")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def server() -> Iterator[TwilioStandIn]:
    """Twilio's place."""
    with TwilioStandIn() as server:
        yield server


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    """The pool."""
    connections = Connections(now=utc_now)
    yield connections
    await connections.close()


@pytest.fixture
def provider(server: TwilioStandIn, connections: Connections) -> Twilio:
    """The provider with the stand-in's account."""
    return provider_at(server.url, server, connections)


def provider_at(url: str, server: TwilioStandIn, connections: Connections) -> Twilio:
    return Twilio(server.account, connections, callback=lambda one: f"http://127.0.0.1/{one}#rc=5&rp=all", base_url=url)


async def send(provider: Twilio, server: TwilioStandIn, answer: Answer) -> Outcome:
    server.answer = lambda _fields: answer
    return await asyncio.wait_for(provider.send(HANDOVER), 10)


async def candidates(provider: Twilio, *, ago: timedelta = timedelta(0)) -> list[Accepted | Refused]:
    found = await provider.find(HANDOVER, utc_now() - ago)
    assert isinstance(found, Found)
    return list(found.candidates)


# Sending


async def test_a_message_is_accepted(provider: Twilio, server: TwilioStandIn) -> None:
    """With its number, its text to the last character, the messaging service and the address for reports."""
    outcome = await send(provider, server, Answer())
    (taken,) = server.taken
    assert outcome == Accepted(external_id=taken.sid, status=MessageStatus.SENT)
    assert taken.fields == {
        "To": "+6591234567",
        "MessagingServiceSid": server.account.messaging_service_sid,
        "Body": HANDOVER.text,
        "StatusCallback": "http://127.0.0.1/attempt_1#rc=5&rp=all",
    }


async def test_many_at_once_get_their_own_answers(provider: Twilio, server: TwilioStandIn) -> None:
    """No answer goes to another caller, however many wait and in whatever order they come."""
    server.answer = lambda fields: Answer(after=(int(fields["To"][-1]) % 4) / 100)
    numbers = [f"65912{number:05}" for number in range(400)]
    outcomes = await asyncio.gather(
        *(provider.send(Handover(attempt_id="a", message_id="m", recipient=number, text=number)) for number in numbers)
    )
    theirs = {taken.fields["Body"]: taken.sid for taken in server.taken}
    assert [outcome.external_id for outcome in outcomes if isinstance(outcome, Accepted)] == [
        theirs[number] for number in numbers
    ]


@pytest.mark.parametrize(("code", "meaning"), sorted(ERROR_CODES.items()))
async def test_every_known_code(provider: Twilio, server: TwilioStandIn, code: int, meaning: ErrorCode) -> None:
    """One of the message is a refusal with our code; one of the moment or of the account lets it wait."""
    outcome = await send(provider, server, Answer(status=400, code=code))
    if code in ACCOUNT or code in LATER:
        assert isinstance(outcome, Busy)
        assert outcome.trouble is (Trouble.ACCOUNT if code in ACCOUNT else Trouble.THROTTLED)
    else:
        assert outcome == Refused(code=meaning, note=f"Twilio error {code}")
    assert server.taken == []


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (408, 99999, Unknown()),
        (400, 99999, Refused(code=ErrorCode.DELIVERY_UNKNOWN_ERROR, note="Twilio error 99999")),
        (403, 21408, Refused(code=ErrorCode.ROUTING_ERROR, note="Twilio error 21408")),
        (401, None, Busy(trouble=Trouble.ACCOUNT, detail="401, no code")),
        (401, 20003, Busy(trouble=Trouble.ACCOUNT, detail="401, Twilio error 20003")),
        (403, 20006, Busy(trouble=Trouble.ACCOUNT, detail="403, Twilio error 20006")),
        (404, 20404, Busy(trouble=Trouble.ACCOUNT, detail="404, Twilio error 20404")),
        (400, 20429, Busy(trouble=Trouble.THROTTLED, detail="400, Twilio error 20429")),
        (409, 99999, Refused(code=ErrorCode.DELIVERY_UNKNOWN_ERROR, note="Twilio error 99999")),
        (408, 21408, Refused(code=ErrorCode.ROUTING_ERROR, note="Twilio error 21408")),
        (500, 21211, Unknown()),
        (429, None, Busy(trouble=Trouble.THROTTLED, detail="429, no code")),
        (500, 20500, Unknown()),
        (503, None, Unknown()),
        (302, None, Unknown()),
    ],
)
def test_what_a_refusal_promises(status: int, code: int | None, outcome: Outcome) -> None:
    """By its code, or else by its status."""
    assert refusal(status, code) == outcome


# What a proxy, or whatever else stands between, may answer without a code of Twilio's. In groups by what is done.
WAITS_FOR_OPERATOR = (401, 402, 403, 404, 405, 407, 410, 411, 414, 415, 417, 426, 431, 451)
WAITS_FOR_CONNECTION = (421,)
FAILS = (400, 413, 422)


@pytest.mark.parametrize("status", [*range(400, 429), *range(430, 452), 460, 494, 499])
async def test_an_answer_without_a_code(provider: Twilio, server: TwilioStandIn, status: int) -> None:
    """Only what certainly was not processed waits or fails; all others are doubts, and none is asked for twice."""
    outcome = await send(provider, server, Answer(status=status, body="<html>a proxy's page</html>"))
    if status in WAITS_FOR_OPERATOR:
        assert outcome == Busy(trouble=Trouble.ACCOUNT, detail=f"{status}, no code")
    elif status in WAITS_FOR_CONNECTION:
        assert outcome == Busy(trouble=Trouble.UNREACHABLE, detail=f"{status}, no code")
    elif status in FAILS:
        assert outcome == Refused(code=ErrorCode.DELIVERY_UNKNOWN_ERROR, note=f"HTTP {status}")
    else:
        assert outcome == Unknown()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("86400", 3600.0),
        ("soon", None),
        ("-3", None),
        ("Fri, 01 Jan 2021 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
    ],
)
async def test_a_pause_that_is_asked_for(
    provider: Twilio, server: TwilioStandIn, header: str | None, seconds: float | None
) -> None:
    """429: nothing was taken, with or without a time to wait, however it is written."""
    headers = {} if header is None else {"Retry-After": header}
    outcome = await send(provider, server, Answer(status=429, code=20429, headers=headers))
    assert outcome == Busy(trouble=Trouble.THROTTLED, seconds=seconds)
    assert server.taken == []


async def test_wrong_credentials_are_not_the_messages_fault(provider: Twilio, server: TwilioStandIn) -> None:
    """A key that was revoked; with another one the message can go."""
    server.keys.clear()
    outcome = await send(provider, server, Answer())
    assert outcome == Busy(trouble=Trouble.ACCOUNT, detail="401, Twilio error 20003")


@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=503, headers={"Retry-After": "1"}),
        Answer(end="reset"),
        Answer(status=201, body="<html>a proxy's page</html>"),
        Answer(status=201, body="{}"),
    ],
    ids=["500", "503", "reset", "page", "nothing"],
)
async def test_a_break_after_sending_is_in_doubt(
    provider: Twilio, server: TwilioStandIn, answer: Answer, accepts: bool
) -> None:
    """Whether the message was taken or not, nobody can tell from here; and it is handed over once, not again."""
    told = Answer(status=answer.status, headers=answer.headers, body=answer.body, end=answer.end, accepts=accepts)
    assert await send(provider, server, told) == Unknown()
    assert (len(server.asked), len(server.taken)) == (1, int(accepts))


async def test_an_answer_that_does_not_come_is_in_doubt(server: TwilioStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit holds, and the message may have been taken."""
    monkeypatch.setattr(twilio_http, "_IN_ALL", 0.2)
    connections = Connections(now=utc_now)
    assert await send(provider_at(server.url, server, connections), server, Answer(end="hang")) == Unknown()
    assert (len(server.asked), len(server.taken)) == (1, 1)
    await connections.close()


async def test_a_server_that_is_not_there_was_handed_nothing(server: TwilioStandIn, connections: Connections) -> None:
    """A refused connection and a name that nobody has: the message waits."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://nobody.invalid"):
        outcome = await provider_at(url, server, connections).send(HANDOVER)
        assert isinstance(outcome, Busy)
        assert outcome.trouble is Trouble.UNREACHABLE


async def test_tls_that_fails_was_handed_nothing(server: TwilioStandIn, connections: Connections) -> None:
    """What speaks no TLS, or has a certificate that nobody vouches for, gets no message."""
    outcome = await provider_at(server.url.replace("http:", "https:"), server, connections).send(HANDOVER)
    assert isinstance(outcome, Busy)
    assert outcome.trouble is Trouble.UNREACHABLE
    assert server.asked == []


async def test_a_connection_that_is_not_answered_was_handed_nothing(
    server: TwilioStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server too busy to take connections: a full queue of them, as a listener without an accept has."""
    monkeypatch.setattr(twilio_http, "_CONNECT", 0.2)
    connections = Connections(now=utc_now)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(address)
        outcome = await provider_at(f"http://127.0.0.1:{address[1]}", server, connections).send(HANDOVER)
        for one in crowd:
            one.close()
    assert outcome == Busy(trouble=Trouble.UNREACHABLE, detail="ConnectionTimeoutError")
    await connections.close()


async def test_by_way_of_a_proxy(server: TwilioStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's; what it does not let through was not sent, and neither was what finds no proxy."""

    async def sent(url: str, **environment: str) -> Outcome:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        connections = Connections(now=utc_now)  # asks the environment once
        outcome = await provider_at(url, server, connections).send(HANDOVER)
        await connections.close()
        return outcome

    assert isinstance(await sent("http://twilio.invalid", http_proxy=server.url), Accepted)
    for address in (server.url, "http://127.0.0.1:1"):
        outcome = await sent("https://twilio.invalid", https_proxy=address)
        assert isinstance(outcome, Busy)
        assert outcome.trouble is Trouble.UNREACHABLE
    assert isinstance(await sent("http://twilio.invalid", no_proxy="twilio.invalid"), Busy)
    assert len(server.taken) == 1


async def test_no_free_connection_is_no_doubt(server: TwilioStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a connection and gets none was not sent."""
    monkeypatch.setattr(twilio_http, "_CONNECTIONS", 1)
    monkeypatch.setattr(twilio_http, "_WAIT", 0.2)
    connections = Connections(now=utc_now)
    provider = provider_at(server.url, server, connections)
    server.answer = lambda _fields: Answer(after=1)
    first = asyncio.create_task(provider.send(HANDOVER))
    await until_async(lambda: server.asked, "the first request")
    assert isinstance(await provider.send(HANDOVER), Busy)
    assert isinstance(await first, Accepted)
    assert len(server.asked) == 1
    await connections.close()


# Looking up


async def test_nothing_is_found_where_nothing_was_taken(provider: Twilio) -> None:
    """The hand-over never arrived."""
    assert await candidates(provider) == []


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        ("accepted", None, MessageStatus.SENT),
        ("queued", None, MessageStatus.SENT),
        ("sending", None, MessageStatus.SENT),
        ("sent", None, MessageStatus.SENT_TO_TELCO),
        ("delivered", None, MessageStatus.SUCCESS),
        ("undelivered", 30003, ErrorCode.RECIPIENT_UNAVAILABLE),
        ("failed", 30007, ErrorCode.CONTENT_INVALID),
        ("failed", None, ErrorCode.DELIVERY_UNKNOWN_ERROR),
        ("canceled", None, ErrorCode.DELIVERY_UNKNOWN_ERROR),
    ],
)
async def test_what_was_taken_is_found_as_it_is_now(
    provider: Twilio, server: TwilioStandIn, status: str, code: int | None, state: MessageStatus | ErrorCode
) -> None:
    """By number, text and time, also while it waits in Twilio's queue and has no time of sending."""
    assert await send(provider, server, Answer(status=500, accepts=True)) == Unknown()
    server.taken[0].status, server.taken[0].error_code = status, code
    (found,) = await candidates(provider)
    assert found.external_id == server.taken[0].sid
    assert (found.status if isinstance(found, Accepted) else found.code) == state
    assert server.looked_up == [{"To": "+6591234567", "PageSize": "1000"}]


async def test_a_message_whose_id_is_known_is_fetched(provider: Twilio, server: TwilioStandIn) -> None:
    """Another one with the same number and text is not taken for it; one that Twilio does not have is not found."""
    first, second = await send(provider, server, Answer()), await send(provider, server, Answer())
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    server.taken[1].status = "delivered"
    found = await provider.find(HANDOVER, utc_now(), second.external_id)
    assert found == Found(candidates=[Accepted(external_id=second.external_id, status=MessageStatus.SUCCESS)])
    assert await provider.find(HANDOVER, utc_now(), f"SM{'0' * 32}") == Found(candidates=())
    assert (server.looked_up, server.fetched) == ([], [second.external_id, f"SM{'0' * 32}"])


async def test_others_are_not_taken_for_it(provider: Twilio, server: TwilioStandIn) -> None:
    """Another text, another time, another number, another messaging service."""

    def add(*, at: timedelta = timedelta(0), **changes: str) -> None:
        fields = {
            "To": "+6591234567",
            "Body": HANDOVER.text,
            "MessagingServiceSid": server.account.messaging_service_sid,
        }
        server.taken.append(Taken(sid=f"SM{len(server.taken)}", fields={**fields, **changes}, created_at=now + at))

    now = utc_now()
    add(Body="another text")
    add(To="+6591234568")
    add(MessagingServiceSid=f"MG{'0' * 32}")
    add(at=-2 * MINUTE)
    add(at=10 * MINUTE)
    assert await candidates(provider) == []
    add(at=timedelta(seconds=5))
    add(at=-timedelta(seconds=5))
    assert [found.external_id for found in await candidates(provider)] == ["SM6", "SM5"]


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (Answer(status=429, headers={"Retry-After": "3"}), Trouble.THROTTLED),
        (Answer(status=500), Trouble.UNANSWERED),
        (Answer(status=401, code=20003), Trouble.ACCOUNT),
        (Answer(status=200, end="reset"), Trouble.UNANSWERED),
        (Answer(status=200, body="a page"), Trouble.UNANSWERED),
    ],
    ids=["429", "500", "401", "reset", "page"],
)
async def test_a_look_up_that_is_not_answered_tells_nothing(
    provider: Twilio, server: TwilioStandIn, answer: Answer, trouble: Trouble
) -> None:
    """It is asked again later; "not found" would be a lie."""
    outcome = await send(provider, server, Answer())
    assert isinstance(outcome, Accepted)
    server.list_answer = lambda: answer
    for external_id in ("", outcome.external_id):
        found = await provider.find(HANDOVER, utc_now(), external_id)
        assert isinstance(found, Busy)
        assert found.trouble is trouble
