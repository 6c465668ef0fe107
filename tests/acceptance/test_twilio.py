"""From the stock client's put to Twilio and back: a stand-in for Twilio takes the messages and reports on them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.installation import Installation, until
from support.twilio import AUTH_TOKEN, TwilioStandIn, new_account

HEADER = "recipient,language,recipient_name,topic\n"


@pytest.fixture
def server() -> Iterator[TwilioStandIn]:
    """Twilio's place."""
    with TwilioStandIn() as server:
        yield server


@pytest.fixture
def postern(tmp_path: Path, server: TwilioStandIn) -> Iterator[Installation]:
    """A Postern that sends there, and that people reach by another address than Twilio's reports come in by."""
    settings = {"POSTERN_PUBLIC_URL": "https://postern.example", "POSTERN_TWILIO_AUTH_TOKEN": AUTH_TOKEN}
    with Installation(tmp_path, **server.environment(), **settings).serving() as postern:
        yield postern


def test_messages_go_to_twilio_and_reports_come_back(postern: Installation, server: TwilioStandIn) -> None:
    """Each once, by the service's account; what Twilio reports is what people see, and a forger changes nothing."""
    web = postern.announcement("web")
    assert web is not None
    by = f"http://{web['host']}:{web['port']}"
    campaign_id, key = postern.enrolled()
    numbers = [f"65912345{number:02}" for number in range(40)]
    postern.put(campaign_id, key, HEADER + "".join(f"{number},english,Emily,passport\n" for number in numbers))
    upload = postern.outcome()
    until("all hand-overs", lambda: len(server.taken) == 40)
    assert server.by_recipient() == dict.fromkeys(numbers, 1)
    body = server.taken[0].fields["Body"]
    assert body.startswith("Immigration Office\n\n---\n\nDear Emily, your passport is ready.\n\n---\n\n")
    assert server.report(server.taken[0], "failed", code=30003, token="a forger's", by=by) == 403
    for taken in server.taken[1:]:
        assert server.report(taken, "delivered", token=AUTH_TOKEN, by=by) == 204
    assert server.report(server.taken[0], "undelivered", code=30003, token=AUTH_TOKEN, by=by) == 204
    assert postern.final_batch(upload["batchId"])["messages"] == {"success": 39, "failure": 1}
    messages = postern.postern("message", "list", "--batch", upload["batchId"])
    (failed,) = [one["messageAttempts"][-1] for one in messages if one["latestStatus"] == "failure"]
    assert (failed["errorCode"], failed["errorNote"]) == ("recipient_unavailable", "Twilio error 30003")
    assert failed["externalAttemptId"] == server.taken[0].sid

    # An agency's own account: messages wait for its credentials, and go by it.
    own = new_account()
    server.account, server.keys = own, {own.api_key_sid: own.api_key_secret}
    internal, staff = postern.new_campaign(channel="internal"), postern.new_key("staff")
    postern.enrol(internal, staff)
    until("the gate to know the key", lambda: postern.sftp(internal, staff, "ls").returncode == 0)
    postern.put(internal, staff, HEADER + "6580000001,english,Emily,roster\n")
    until("the alarm", lambda: "has no credentials" in postern.log.read_text())
    file = postern.folder / "credentials.json"
    file.write_text(json.dumps(own.model_dump()))
    postern.postern("campaign", "credentials", internal, "--from", str(file))
    until("the hand-over", lambda: len(server.taken) == 41)
    assert server.taken[-1].fields["MessagingServiceSid"] == own.messaging_service_sid
    log = postern.log.read_text()
    secrets = (own.api_key_secret, own.account_sid, AUTH_TOKEN, "6580000001", numbers[0])
    assert not [secret for secret in secrets if secret in log]
