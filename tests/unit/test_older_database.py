"""The SQL of docs/operations.md that ends what may have been sent, tried on both databases."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.domain import (
    NOW,
    RECIPIENT,
    SECOND,
    SIMULATOR,
    add_campaign,
    change_message,
    enqueued_batch,
    validating_upload,
    write_batch,
)

from postern.errors import Refusal
from postern.model import MessageStatus
from storage.database import Database
from storage.engine import Jobs
from storage.ledger.batches import count_messages
from storage.ledger.cancelling import cancel_batch
from storage.ledger.claiming import claim

pytest_plugins = ["support.databases"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_what_waits_of_released_batches_ends(database: Database, jobs: Jobs) -> None:
    """Nothing of it is claimed; a batch that is being written is left as it is, and cannot be cancelled yet."""
    campaign = add_campaign(database, rate=1e6)
    released = enqueued_batch(database, jobs, campaign, [RECIPIENT] * 3)
    change_message(database, released, 2, latest_status="success")
    change_message(database, released, 3, latest_status="created")
    written = write_batch(database, validating_upload(database, jobs, campaign), [RECIPIENT] * 2)
    (statement,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with database.write() as connection:
        connection.execute(sa.text(statement.strip().rstrip(";")))
    found = {status: number for status, number in count_messages(database, released).items() if number}
    assert found == {MessageStatus.SUCCESS: 1, MessageStatus.FAILURE: 2}
    left = {status: number for status, number in count_messages(database, written).items() if number}
    assert left == {MessageStatus.ENQUEUED: 2}
    later = NOW + 60 * SECOND
    claimed = claim(database, batch_id=released, rows=(1, 1000), rate=1e6, most=100, account=SIMULATOR, now=later)
    assert not claimed.messages
    with pytest.raises(Refusal):
        cancel_batch(database, jobs, written, actor="operator", now=later)
