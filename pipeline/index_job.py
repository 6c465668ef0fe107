"""The job that writes the index of a batch's messages by their ids, once the batch is on its way."""

from postern.logs import get_logger
from storage.database import Database
from storage.engine import Engine, persistently
from storage.jobs import INDEX_MESSAGES
from storage.ledger.message_index import index_messages

log = get_logger(__name__)


def register(engine: Engine, database: Database) -> None:
    """Let this worker write indexes."""

    async def index(batch_id: str) -> None:
        messages = await persistently(index_messages, database, batch_id)
        log.info("batch.indexed", batch_id=batch_id, messages=messages)

    engine.register(INDEX_MESSAGES, index)
