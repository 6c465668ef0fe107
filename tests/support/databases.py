"""Fixtures: fresh databases on SQLite and on PostgreSQL, migrated or empty.

Migrating takes half a second, so it is done once a session and kind; each test gets a copy.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgresql import Cluster, postgresql

from storage.database import Database
from storage.engine import Jobs
from storage.migrate import migrate

__all__ = ["postgresql"]  # the fixture comes along with those that stand on it

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database that tests copy."""
    path = tmp_path_factory.mktemp("migrated") / "postern.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_template(postgresql: Cluster) -> str:
    """The name of a migrated PostgreSQL database that tests copy."""
    name = postgresql.create()
    _migrate(postgresql.url(name))
    return name


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """A migrated SQLite database."""
    path = tmp_path / "home" / "postern.db"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(migrated_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql: Cluster, migrated_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database."""
    name = postgresql.create(template=migrated_template)
    yield postgresql.url(name)
    postgresql.drop(name)


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind in turn that nothing has touched yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'home' / 'postern.db'}"
        return
    cluster = request.getfixturevalue("postgresql")
    name = cluster.create()
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Connections to a migrated database of each kind in turn."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def jobs(database_url: str) -> Iterator[Jobs]:
    """The job board of the same database: the engine's own."""
    jobs = Jobs(database_url)
    yield jobs
    jobs.close()


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.dispose()
