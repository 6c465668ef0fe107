"""The buffer that a connection reads from: it has to behave as the bytes that asyncssh made it for."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from sftpd.seams.streams import Inbox

STEPS = st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 40)), max_size=40)


@given(STEPS)
def test_it_is_read_as_bytes_are(steps: list[bytes | int]) -> None:
    """Appended to, measured, peeked into, searched, and cut off at the front."""
    model, inbox = b"", Inbox()
    for step in steps:
        if isinstance(step, bytes):
            model += step
            inbox += step
        elif step <= len(model):
            assert inbox[: step // 2] == model[: step // 2]
            assert inbox[step // 2 : step] == model[step // 2 : step]
            assert inbox.find(b"\n", 0, step) == model.find(b"\n", 0, step)
            model, inbox = model[step:], cast(Inbox, inbox[step:])
        assert len(inbox) == len(model)
        assert bool(inbox) is bool(model)
    assert inbox[: len(model)] == model
