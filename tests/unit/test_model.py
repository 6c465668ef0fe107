"""Identifiers: what they look like."""

import uuid

from postern.model import IdKind, derived_id, is_id, new_id, new_ids


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


def test_many_ids_are_as_good_as_one_at_a_time() -> None:
    """Well-formed, of version 4, all different; none where none is asked for."""
    made = new_ids(IdKind.ATTEMPT, 1_000)
    assert len(set(made)) == 1_000
    assert all(is_id(IdKind.ATTEMPT, one) and uuid.UUID(one.removeprefix("attempt_")).version == 4 for one in made)
    assert new_ids(IdKind.ATTEMPT, 0) == []
