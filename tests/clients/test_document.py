"""The page on clients says what the tests expect. It is written from a full run, `make docs-clients`."""

import re

from clients.cases import CASES, Ending
from clients.catalogue import CLIENTS
from clients.document import PAGE, command_lines, matrix_table
from clients.matrix import ending_of

TEXT = PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_the_table_that_the_tests_expect() -> None:
    """A client, a case or an expectation that changed without a new run shows here."""
    assert [line for line in matrix_table() if line not in TEXT] == []


def test_the_page_has_the_command_lines_that_the_tests_run() -> None:
    """What is recommended is what was run."""
    assert [line for line in command_lines() if line not in TEXT] == []


def test_the_page_says_of_every_client_which_it_was_and_what_it_printed() -> None:
    """A line for its version, one for its algorithms, and one for each refusal."""
    for client in CLIENTS.values():
        refused = [
            CASES[name].title
            for name in CASES
            if name not in client.cannot and ending_of(client, name) is Ending.REFUSED
        ]
        assert all(any(line.startswith(f"| {client.title} | {title} | ") for line in TEXT) for title in refused)
        assert any(line.startswith(f"| {client.title} | {client.source} | ") for line in TEXT)
        assert any(re.match(rf"\| {re.escape(client.title)} \| \S*(sha256|nistp)", line) for line in TEXT)
