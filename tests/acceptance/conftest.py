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
    """A running Postern; it has to stop in order at the end of the test."""
    with installation.serving():
        yield installation
