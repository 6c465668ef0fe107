"""What waits, on both databases: messages that no provider was handed yet."""

from support.domain import NOW, RECIPIENT, add_campaign, change_message, enqueued_batch, validating_upload, write_batch

from postern.model import MessageStatus
from storage.backlog import waiting_messages
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.cancelling import cancel_batch

pytest_plugins = ["support.databases"]


def test_messages_wait_until_they_are_handed_over(database: Database, jobs: Jobs) -> None:
    """Counted by campaign; those of a retry wait, too."""
    assert waiting_messages(database) == {}
    one, other = add_campaign(database), add_campaign(database)
    first = enqueued_batch(database, jobs, one, [RECIPIENT] * 5)
    enqueued_batch(database, jobs, one, [RECIPIENT] * 2)
    enqueued_batch(database, jobs, other, [RECIPIENT] * 3)
    assert waiting_messages(database) == {one.id: 7, other.id: 3}
    for row, status in enumerate((MessageStatus.SENDING, MessageStatus.SENT, MessageStatus.CREATED), start=2):
        change_message(database, first, row, latest_status=status.value)
    assert waiting_messages(database) == {one.id: 5, other.id: 3}


def test_what_may_not_be_sent_does_not_wait(database: Database, jobs: Jobs) -> None:
    """A batch that is being written, and one that was cancelled."""
    campaign = add_campaign(database)
    write_batch(database, validating_upload(database, jobs, campaign), [RECIPIENT] * 4)
    assert waiting_messages(database) == {}
    batch_id = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 2)
    cancel_batch(database, jobs, batch_id, actor="operator", now=NOW)
    assert waiting_messages(database) == {}


def test_many_batches_are_counted(database: Database, jobs: Jobs) -> None:
    """More than one query takes."""
    campaign = add_campaign(database)
    for _ in range(4):
        enqueued_batch(database, jobs, campaign, [RECIPIENT])
    assert waiting_messages(database, at_once=3) == {campaign.id: 4}
