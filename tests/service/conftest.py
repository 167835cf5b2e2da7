"""The databases of the service's tests: a fresh one for each test, on SQLite and, in the slow tests, on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studiolo.service.database import Database, migrate
from studiolo.service.queue import JobQueue
from tests.service.clock import Clock
from tests.service.postgresql import Cluster
from tests.service.rows import add_tenant


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/service.db"
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.create_database()


@pytest.fixture
def clock() -> Clock:
    """The time of `database`, which the test moves."""
    return Clock()


@pytest.fixture
def database(url: str, clock: Clock) -> Iterator[Database]:
    """A database with all tables and the tenants `ten_a` and `ten_b`."""
    migrate(url)
    database = Database(url, clock)
    for name in ("a", "b"):
        add_tenant(database, name)
    yield database
    database.close()


@pytest.fixture
def queue(database: Database) -> JobQueue:
    """An empty queue."""
    return JobQueue(database)
