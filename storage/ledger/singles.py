"""Single sends: one message, in the ledger a batch of its own, so that all that holds for messages holds for it.

Its rows and its job are one transaction, and small ones: whoever asks for it waits for them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from postern.errors import Refusal
from postern.model import BatchStatus, IdKind, Language, new_id
from storage.database import Database
from storage.jobs import SEND_OTP, SEND_SINGLE, JobBoard
from storage.ledger.batches import add_batch
from storage.ledger.message_ids import head_of, message_id_of
from storage.ledger.uploads import lock_campaign
from storage.tables import message_ids, messages

_ROW = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """A message that is to be sent by itself: what a row of a valid file would say."""

    campaign_id: str
    recipient: str  # digits with country code
    language: Language
    values: Mapping[str, str]  # by parameter
    segments: int
    is_otp: bool = False  # a one-time password goes before all others


def enqueue_single(database: Database, jobs: JobBoard, single: Single, *, now: datetime) -> str:
    """Let a message be sent, before any batch of its campaign.

    Returns:
        the message's id.

    Raises:
        Refusal: the campaign was deleted.
        sqlalchemy.exc.NoResultFound: there is no such campaign.
    """
    batch_id = new_id(IdKind.BATCH)
    message_id = message_id_of(batch_id, _ROW)
    kind = SEND_OTP if single.is_otp else SEND_SINGLE
    with database.write() as connection:
        if not lock_campaign(connection, single.campaign_id):
            raise Refusal("campaign_deleted", "The campaign was deleted; nothing more is sent for it.")
        number = add_batch(
            database,
            connection,
            batch_id,
            campaign_id=single.campaign_id,
            status=BatchStatus.MESSAGES_ENQUEUED.value,
            total=1,
            first_row=_ROW,
            last_row=_ROW,
            is_indexed=True,
            created_at=now,
            updated_at=now,
            enqueued_at=now,
        )
        connection.execute(
            messages.insert().values(
                batch=number,
                row=_ROW,
                recipient=single.recipient,
                language=single.language.value,
                values=json.dumps(dict(single.values), ensure_ascii=False),
                segments=single.segments,
            )
        )
        connection.execute(message_ids.insert().values(batch=number, head=head_of(message_id), row=_ROW))
        jobs.enqueue(connection, kind, f"single:{batch_id}", batch_id, partition=single.campaign_id)
    return message_id
