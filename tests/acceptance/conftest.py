"""Fixtures of the acceptance tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.installation import Installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """A Postern that is not running yet."""
    return Installation(tmp_path)


@pytest.fixture
def postern(installation: Installation) -> Iterator[Installation]:
    """A running Postern of the test's own; it has to stop in order at the end of the test."""
    with installation.serving():
        yield installation


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("shared")).serving() as installation:
        yield installation


@pytest.fixture
def shared(_running: Installation, tmp_path: Path) -> Installation:
    """A running Postern for tests that leave it running: a start takes more than most tests.

    What came of other tests' campaigns is not seen, but for what lies in the spool. It has to stop in order after the
    last of the module.
    """
    _running.begin(tmp_path)
    return _running
