"""Whatever the simulator took is marked SIMULATED in what the command line lists and shows, on both databases."""

import json
from typing import Any

import pytest
from support.domain import NOW, RECIPIENT, SIMULATOR, add_campaign, enqueued_batch, message_id, record_results
from typer.testing import CliRunner

from postern.cli.app import app
from postern.model import MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.ledger import messages, simulated
from storage.ledger.accounts import SendingAccount
from storage.ledger.batches import get_batch
from storage.ledger.cancelling import NOBODY, Stopped, end_unsent
from storage.ledger.claiming import claim
from storage.ledger.results import Result
from storage.ledger.simulated import count_simulated, simulated_batches

pytest_plugins = ["support.databases"]

MAGIC = "6511111111"
REAL = SendingAccount(id="account", provider="twilio", simulated=frozenset({MAGIC}))


class Desk:
    """Batches in a ledger, and the command line."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self.database = database
        self.jobs = jobs

    def batch(self, account: SendingAccount, recipients: list[str]) -> str:
        """A batch that an account has taken."""
        batch_id = enqueued_batch(self.database, self.jobs, add_campaign(self.database, rate=1e6), recipients)
        self.send(batch_id, account)
        return batch_id

    def send(self, batch_id: str, account: SendingAccount, rows: tuple[int, int] = (2, 1000)) -> None:
        claimed = claim(self.database, batch_id=batch_id, rows=rows, rate=1e6, most=1000, account=account, now=NOW)
        results = [Result(attempt_id=one.attempt_id, status=MessageStatus.SENT) for one in claimed.messages]
        record_results(self.database, claimed.token, results, now=NOW)

    def said(self, *arguments: str) -> str:
        settings = {"POSTERN_DATABASE_URL": self.database.url, "COLUMNS": "200"}
        result = CliRunner().invoke(app, arguments, env=settings)
        assert result.exit_code == 0, result.output
        return result.output

    def told(self, *arguments: str) -> Any:
        return json.loads(self.said(*arguments, "--json"))


@pytest.fixture
def desk(database: Database, jobs: Jobs) -> Desk:
    """Nothing sent yet."""
    return Desk(database, jobs)


def test_what_the_simulator_took_is_marked(desk: Desk) -> None:
    """In every listing and page of the command line, for people and for programs."""
    batch_id = desk.batch(SIMULATOR, [RECIPIENT] * 2)
    upload_id, message = str(get_batch(desk.database, batch_id).upload_id), message_id(batch_id, 2)
    for arguments in (
        ("upload", "list"),
        ("upload", "show", upload_id),
        ("batch", "list"),
        ("batch", "show", batch_id),
        ("message", "list", "--batch", batch_id),
        ("message", "show", message),
    ):
        assert "SIMULATED" in desk.said(*arguments), arguments
        told = desk.told(*arguments)
        for document in told if isinstance(told, list) else [told]:
            assert document["simulated"] is True, arguments
    assert desk.told("batch", "show", batch_id)["numSimulated"] == 2
    (attempt,) = desk.told("message", "show", message)["messageAttempts"]
    assert (attempt["provider"], attempt["simulated"]) == ("simulator", True)
    assert "costs 0" in desk.said("message", "show", message)


def test_what_a_provider_took_is_not(desk: Desk) -> None:
    """Nor what nobody was handed; the provider is named all the same."""
    batch_id = desk.batch(REAL, [RECIPIENT] * 2)
    waiting = enqueued_batch(desk.database, desk.jobs, add_campaign(desk.database), [RECIPIENT])
    assert [document["simulated"] for document in desk.told("batch", "list")] == [False, False]
    assert [document["simulated"] for document in desk.told("upload", "list")] == [False, False]
    for arguments in (
        ("batch", "list"),
        ("batch", "show", batch_id),
        ("message", "list", "--batch", batch_id),
        ("message", "list", "--batch", waiting),
        ("message", "show", message_id(batch_id, 2)),
    ):
        assert "SIMULATED" not in desk.said(*arguments)
    assert "twilio" in desk.said("message", "show", message_id(batch_id, 2))


def test_of_a_mixed_batch_each_message_tells(desk: Desk) -> None:
    """As in the test environment, where only the simulator's numbers are its own."""
    batch_id = desk.batch(REAL, [RECIPIENT, MAGIC, RECIPIENT])
    found = desk.told("message", "list", "--batch", batch_id)
    assert [message["simulated"] for message in found] == [False, True, False]
    assert desk.said("message", "list", "--batch", batch_id).count("SIMULATED") == 1
    assert "the simulator took 1 message of it" in desk.said("batch", "show", batch_id)
    assert [document["simulated"] for document in desk.told("batch", "list")] == [True]


def test_a_long_list_has_all_attempts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts, as no database takes so many parameters at once."""
    monkeypatch.setattr(messages, "_ROWS_AT_ONCE", 2)
    batch_id = desk.batch(SIMULATOR, [RECIPIENT] * 5)
    found = desk.told("message", "list", "--batch", batch_id)
    assert [(one["row"], len(one["messageAttempts"])) for one in found] == [(row, 1) for row in range(2, 7)]


def test_what_was_never_handed_over_has_no_provider(desk: Desk) -> None:
    """An attempt that says why it was not sent."""
    batch_id = enqueued_batch(desk.database, desk.jobs, add_campaign(desk.database), [RECIPIENT])
    end_unsent(desk.database, Stopped(1, 2, 2, "It was cancelled."), 2, 2, now=NOW)
    (message,) = desk.told("message", "list", "--batch", batch_id)
    (attempt,) = message["messageAttempts"]
    assert (NOBODY, attempt["provider"], attempt["simulated"], message["simulated"]) == ("", None, False, False)


def test_a_batch_that_changed_its_provider_is_found_from_either_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list looks at so many attempts of a batch; the batch's own page counts all."""
    monkeypatch.setattr(simulated, "_ENDS", 2)
    parts = {
        "first": (SIMULATOR, REAL, REAL),
        "last": (REAL, REAL, SIMULATOR),
        "middle": (REAL, SIMULATOR, REAL),
        "none": (REAL, REAL, REAL),
    }
    batches = {}
    for name, accounts in parts.items():
        batches[name] = enqueued_batch(desk.database, desk.jobs, add_campaign(desk.database, rate=1e6), [RECIPIENT] * 9)
        for account, rows in zip(accounts, ((2, 4), (5, 7), (8, 10)), strict=True):
            desk.send(batches[name], account, rows)
    found = simulated_batches(desk.database, list(batches.values()))
    assert found == {batches["first"], batches["last"]}
    counts = {name: count_simulated(desk.database, batch_id) for name, batch_id in batches.items()}
    assert counts == {"first": 3, "last": 3, "middle": 3, "none": 0}
