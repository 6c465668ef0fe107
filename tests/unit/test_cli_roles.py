"""What a role's command takes."""

from typer.testing import CliRunner

from postern.cli.app import app
from postern.cli.roles import QUEUES
from storage.jobs import Queue


def test_a_worker_can_be_given_any_queue() -> None:
    """The names on the command line, which load nothing for it, are those of the queues."""
    assert sorted(QUEUES) == sorted(queue.value for queue in Queue)


def test_an_unknown_queue_is_named() -> None:
    """And those that there are."""
    result = CliRunner().invoke(app, ["worker", "--queues", "files,mail"])
    assert result.exit_code == 2
    for word in ("'mail'", *QUEUES):
        assert word in result.output
