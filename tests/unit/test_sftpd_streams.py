"""The buffer that a connection reads from: it has to behave as the bytes that asyncssh made it for."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from sftpd.seams.streams import Inbox

STEPS = st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 40)), max_size=40)
MUCH = bytes(range(256)) * 300  # more than is copied back into the shared memory


def receive(inbox: Inbox, data: bytes) -> None:
    """As the event loop does."""
    inbox.room()[: len(data)] = data
    inbox.came(len(data))


@given(STEPS, st.booleans())
def test_it_is_read_as_bytes_are(steps: list[bytes | int], is_shared: bool) -> None:
    """Appended to, measured, peeked into, searched, and cut off at the front; wherever the bytes lie."""
    model, inbox = b"", Inbox()
    for step in steps:
        if isinstance(step, bytes):
            model += step
            if is_shared:
                receive(inbox, step)
            else:
                inbox += step
        elif step <= len(model):
            assert inbox[: step // 2] == model[: step // 2]
            assert inbox[step // 2 : step] == model[step // 2 : step]
            assert inbox.view(step) == model[:step]
            assert inbox.find(b"\n", 0, step) == model.find(b"\n", 0, step)
            model, inbox = model[step:], cast(Inbox, inbox[step:])
            if is_shared:
                inbox.settle()
        assert len(inbox) == len(model)
        assert bool(inbox) is bool(model)
    assert inbox[: len(model) + 1] == model


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=40), st.integers(0, 60)), max_size=40))
def test_connections_that_share_memory_keep_what_is_theirs(turns: list[tuple[int, bytes, int]]) -> None:
    """In each turn one of them receives, reads a part, and leaves the memory to the next."""
    models, inboxes = [b""] * 3, [Inbox() for _ in range(3)]
    for number, data, read in turns:
        models[number] += data
        receive(inboxes[number], data)
        taken = min(read, len(models[number]))
        assert inboxes[number].view(taken) == models[number][:taken]
        inboxes[number].skip(taken)
        inboxes[number].settle()
        models[number] = models[number][taken:]
    assert [inbox[:2000] for inbox in inboxes] == models


def test_much_that_nobody_reads_is_kept() -> None:
    """While asyncssh waits for something it reads nothing."""
    inbox = Inbox()
    for _turn in range(3):
        receive(inbox, MUCH)
        inbox.settle()
    assert len(inbox) == 3 * len(MUCH)
    assert inbox[: 3 * len(MUCH)] == 3 * MUCH
