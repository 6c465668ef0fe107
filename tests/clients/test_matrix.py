"""Every client through every case: exit status, what it prints, what the gate accepted, what the owner is told."""

from collections.abc import Callable

import pytest
from clients.cases import CASES, IS_FULL
from clients.catalogue import CLIENTS, Client
from clients.matrix import Result, wrong

CELLS = [
    (client, name)
    for client, each in CLIENTS.items()
    for name, case in CASES.items()
    if name not in each.cannot and (IS_FULL or not case.is_long)
]


@pytest.mark.parametrize(("client", "case"), CELLS)
def test_a_client_ends_as_the_contract_says(
    require: Callable[[str], Client], results: Callable[[str, str], Result], client: str, case: str
) -> None:
    """The catalogue says what is expected of this client where the contract leaves it open."""
    known = require(client)
    result = results(client, case)
    assert wrong(known, case, result) == [], result.output
