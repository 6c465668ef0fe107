"""Ids of messages: many at once are those made one by one, and their heads have their order."""

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from postern.model import IdKind, derived_id
from storage.ledger.message_ids import head_of, heads_of, uuids_of


@given(parent=st.uuids(), rows=st.lists(st.integers(2, 10_000_000), max_size=20))
def test_many_ids_are_those_made_one_by_one(parent: uuid.UUID, rows: list[int]) -> None:
    """By the standard library's UUIDv5."""
    batch_id = f"batch_{parent}"
    made = [f"message_{uuid.UUID(bytes=raw.tobytes())}" for raw in uuids_of(batch_id, rows)]
    assert made == [derived_id(IdKind.MESSAGE, batch_id, str(row)) for row in rows]


@given(ids=st.lists(st.uuids(), min_size=1, max_size=20))
def test_heads_have_the_order_of_ids(ids: list[uuid.UUID]) -> None:
    """One by one or many at once; each fits a signed number of eight bytes."""
    heads = [head_of(f"message_{one}") for one in sorted(ids)]
    assert heads == sorted(heads)
    assert -(2**63) <= heads[0] <= heads[-1] < 2**63
    raw = np.array([list(one.bytes) for one in sorted(ids)], np.uint8)
    assert heads_of(raw).tolist() == heads
