"""The table of operations against asyncssh's own."""

import re
from inspect import getsource

import pytest
from asyncssh.sftp import SFTPServerHandler

from sftpd.handler import DropBox
from sftpd.operations import EXTENSIONS, OPERATIONS, Operation
from sftpd.refusals import RefusalCode, refuse
from sftpd.seams import GateHandler, check_seams

THEIRS = SFTPServerHandler._packet_handlers
SERVED = [key for key, operation in OPERATIONS.items() if operation.refusal is None]
REFUSED = [key for key, operation in OPERATIONS.items() if operation.refusal is not None]


def test_the_table_names_every_operation_of_asyncssh() -> None:
    """A new operation has to be judged before a new asyncssh can be used."""
    assert set(OPERATIONS) == set(THEIRS)


def test_the_gate_answers_nothing_that_is_not_in_the_table() -> None:
    """The handler's table is ours, entry by entry."""
    assert set(GateHandler._packet_handlers) == set(OPERATIONS)
    assert not set(map(id, GateHandler._packet_handlers.values())) & set(map(id, THEIRS.values()))


def test_only_served_extensions_are_announced() -> None:
    """A client is not told of what it would be refused."""
    assert [name for name, _version in EXTENSIONS] == [key for key in SERVED if isinstance(key, bytes)]
    assert GateHandler._extensions == list(EXTENSIONS)


@pytest.mark.parametrize("key", REFUSED)
def test_the_drop_box_has_no_method_for_what_is_refused(key: int | bytes) -> None:
    """Even a hole in the table would lead nowhere: read, links and copies are not there at all."""
    reached = set(re.findall(r"self\._server\.(\w+)\(", getsource(THEIRS[key])))
    shared = {"write", "fstat", "stat", "convert_attrs"}  # copy-data writes, too, after it has read
    assert not [name for name in reached - shared if hasattr(DropBox, name)]


@pytest.mark.parametrize("key", SERVED)
def test_the_drop_box_has_a_method_for_what_is_served(key: int | bytes) -> None:
    """What the table serves can be served."""
    reached = set(re.findall(r"self\._server\.(\w+)\(", getsource(THEIRS[key])))
    only_in_later_versions = {"open56", "convert_attrs", "format_longname"}
    assert not [name for name in reached - only_in_later_versions if not hasattr(DropBox, name)]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_every_refused_operation_has_its_sentence(operation: Operation) -> None:
    """A refusal can always be said."""
    if operation.refusal is not None:
        assert str(refuse(operation.refusal, operation=operation.name)).endswith(".")


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_is_a_sentence(code: RefusalCode) -> None:
    """Each code has a sentence, which names what it is about."""
    values = {
        "found": "x",
        "size": 1,
        "limit": 2,
        "final": "f",
        "operation": "o",
        "support_id": "s",
        "place": "p",
        "count": 3,
    }
    sentence = str(refuse(code, name="n", **values))
    assert sentence.endswith(".")
    assert "{" not in sentence


def test_the_installed_asyncssh_passes_the_check() -> None:
    """The start-up check holds for the version that is pinned."""
    check_seams()
