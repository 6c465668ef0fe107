"""One gate for all clients, and a board on which several of them play at once."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from clients.cases import CASES
from clients.catalogue import CLIENTS, Client, missing
from clients.gate import Gate
from clients.matrix import Result, compile_programs, run_case

AT_ONCE = 4  # clients; most of them wait most of the time
CAMPAIGNS = 1500


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate process."""
    gate = Gate(tmp_path_factory.mktemp("gate"))
    gate.prepare(CAMPAIGNS)
    compile_programs(gate.folder)
    with gate.serving():
        yield gate


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, gate: Gate) -> Iterator[Callable[[str, str], Result]]:
    """Gives the result of a client's case; all that this session asks for are run, several at once."""
    cells = [
        (item.callspec.params["client"], item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and "results" in item.fixturenames
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures: dict[tuple[str, str], Future[Result]] = {
            (client, case): pool.submit(run_case, gate, CLIENTS[client], CASES[case])
            for client, case in cells
            if not missing(CLIENTS[client])
        }
        try:
            yield lambda client, case: futures[client, case].result()
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def require() -> Callable[[str], Client]:
    """Gives a client that is installed. Where it is not, the test is skipped; in CI, where all are, it fails."""

    def required(name: str) -> Client:
        why = missing(CLIENTS[name])
        if why and os.environ.get("CI"):
            pytest.fail(why)
        if why:
            pytest.skip(why)
        return CLIENTS[name]

    return required
