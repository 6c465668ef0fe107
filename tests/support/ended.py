"""Attempts as they ended, put straight into the ledger, for tests of what counts them."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from support.domain import NOW

from postern.model import IdKind, MessageStatus, new_id
from storage.database import Database
from storage.tables import attempts, batches


def add_attempt(
    database: Database, batch_id: str, row: int, *, number: int = 1, sent_at: datetime = NOW, **values: Any
) -> None:
    """An attempt at the message of a row: a success by a real provider unless told otherwise."""
    batch = sa.select(batches.c.number).where(batches.c.id == batch_id).scalar_subquery()
    fields: dict[str, Any] = {
        "id": new_id(IdKind.ATTEMPT),
        "batch": batch,
        "row": row,
        "number": number,
        "status": MessageStatus.SUCCESS.value,
        "claim": "claim",
        "provider": "twilio",
        "external_id": "SM1",
        "inferred": False,
        "created_at": sent_at,
        "sent_at": sent_at,
        "updated_at": sent_at,
    }
    with database.write() as connection:
        connection.execute(attempts.insert().values(**{**fields, **values}))
