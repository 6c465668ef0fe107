"""The jobs that programs leave for each other: their names and the queues that they wait in.

Programs never import each other; whoever wants something done enqueues one of these, in the transaction
that makes it necessary (`storage.engine.Jobs`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import sqlalchemy as sa


class Queue(StrEnum):
    """The queues, apart so that no kind of work waits behind another."""

    FILES = "files"
    WORKBOOKS = "workbooks"
    OTP = "otp"  # one-time passwords, a message each; partitioned by campaign
    SINGLE = "single"  # other messages that are sent one by one; the same
    BATCH = "batch"  # partitioned by campaign: few chunks of a campaign at a time
    NOTICES = "notices"
    INDEXES = "indexes"  # behind batches; nobody waits for them
    DECISIONS = "decisions"  # what was decided about batches: retries, ends
    DOUBTS = "doubts"  # hand-overs that nobody knows the outcome of; partitioned by batch, told ones apart


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job: the name of its workflow, and its queue."""

    name: str
    queue: Queue


PROCESS_UPLOAD = JobKind(name="process_upload", queue=Queue.FILES)  # (upload id)
MAKE_WORKBOOK = JobKind(name="make_workbook", queue=Queue.WORKBOOKS)  # (upload id)
SEND_CHUNK = JobKind(name="send_chunk", queue=Queue.BATCH)  # (batch id, first row, last row)
SEND_NOTICE = JobKind(name="send_notice", queue=Queue.NOTICES)  # (notice id)
INDEX_MESSAGES = JobKind(name="index_messages", queue=Queue.INDEXES)  # (batch id)
# (batch id, after row, failed until or "", whether our own conclusions may be repeated)
ENQUEUE_RETRIES = JobKind(name="enqueue_retries", queue=Queue.DECISIONS)
SEND_AGAIN = JobKind(name="send_again", queue=Queue.BATCH)  # (batch id, first row, last row)
SEND_OTP = JobKind(name="send_otp", queue=Queue.OTP)  # (batch id)
SEND_SINGLE = JobKind(name="send_single", queue=Queue.SINGLE)  # (batch id)
SETTLE_DOUBTS = JobKind(
    name="settle_doubts", queue=Queue.DOUBTS
)  # (batch id, attempt ids, whether their senders said so)
END_UNSENT = JobKind(name="end_unsent", queue=Queue.DECISIONS)  # (batch id or campaign id)


class JobBoard(Protocol):
    """Where jobs are left; see `storage.engine.Jobs`."""

    def enqueue(
        self, connection: sa.Connection, kind: JobKind, job_id: str, *arguments: Any, partition: str | None = None
    ) -> None:
        """Leave a job in the caller's transaction. The same id twice is one job."""
        ...
