"""Identifiers: what they look like."""

import uuid
from datetime import UTC, datetime, timedelta

from postern.model import IdKind, derived_id, is_id, new_id, new_ids

NOW = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)  # of the example in RFC 9562, appendix A.6


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
    """Well-formed, of version 7, all different, even of one moment; none where none is asked for."""
    made = new_ids(IdKind.ATTEMPT, 10_000, NOW)
    assert len({*made, *new_ids(IdKind.ATTEMPT, 10_000, NOW)}) == 20_000
    for one in made:
        found = uuid.UUID(one.removeprefix("attempt_"))
        assert is_id(IdKind.ATTEMPT, one)
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert new_ids(IdKind.ATTEMPT, 0, NOW) == []


def test_many_ids_are_in_the_order_of_their_time() -> None:
    """As many as there are of one moment, and after those of the one before; the time can be read from them."""
    earlier = new_ids(IdKind.ATTEMPT, 4_096, NOW)
    later = new_ids(IdKind.ATTEMPT, 4_096, NOW + timedelta(milliseconds=1))
    assert earlier + later == sorted(earlier + later)
    assert earlier[0].startswith("attempt_017f22e2-79b0-7000-")
