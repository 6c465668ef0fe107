"""Identifiers: what they look like, and that many at once are those made one by one."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from postern.model import IdKind, derived_id, derived_ids, is_id, new_id


@given(parent=st.uuids(), names=st.lists(st.text(max_size=20), max_size=5))
def test_many_derived_ids_are_those_made_one_by_one(parent: uuid.UUID, names: list[str]) -> None:
    """By the standard library's UUIDv5."""
    batch = f"batch_{parent}"
    assert derived_ids(IdKind.MESSAGE, batch, names) == [derived_id(IdKind.MESSAGE, batch, name) for name in names]


def test_a_derived_id_is_a_version_5_uuid_and_always_the_same() -> None:
    """Of the kind asked for, whatever the parent's kind is."""
    made = derived_id(IdKind.BATCH, "upload_6ba7b810-9dad-11d1-80b4-00c04fd430c8", "python.org")
    assert made == "batch_886313e1-3b8a-5372-9b90-0c9aee199e5d"  # the example of Python's documentation
    assert uuid.UUID(made.removeprefix("batch_")).version == 5


def test_an_id_is_safe_as_a_file_name_or_none() -> None:
    """Nothing but the kind and a lower-case UUID passes."""
    made = new_id(IdKind.UPLOAD)
    assert is_id(IdKind.UPLOAD, made)
    for other in (made.upper(), f"{made}\n", f"../{made}", made.replace("upload", "batch"), "upload_", made + "/"):
        assert not is_id(IdKind.UPLOAD, other)
