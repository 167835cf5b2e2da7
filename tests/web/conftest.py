"""The endpoint over a fresh database and store, with the keys of two tenants.

The database is SQLite; for the core of the tests, in the slow ones, it is PostgreSQL too.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studiolo.service.metrics import MemoryMeters
from studiolo.service.service import Service
from tests.service.postgresql import Cluster
from tests.service.test_service import settings as service_settings
from tests.web.world import SETTINGS, LiveMemory, World
from web.app import create_app


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> None:
    """Nothing here takes long."""
    request.node.add_marker(pytest.mark.timeout(60))


_ON_POSTGRESQL = frozenset(
    f"tests.web.{name}" for name in ("test_events", "test_gate", "test_identities", "test_jobs", "test_portraits")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The core is tried on both databases; of tests with a table, whose rows differ in the request alone, nothing."""
    if "database_kind" in metafunc.fixturenames:
        rows = any(metafunc.definition.iter_markers("parametrize"))
        both = not rows and metafunc.module.__name__ in _ON_POSTGRESQL
        kinds = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)] if both else ["sqlite"]
        metafunc.parametrize("database_kind", kinds)


@pytest.fixture
def meters() -> MemoryMeters:
    """What the service measures."""
    return MemoryMeters()


@pytest.fixture
def service(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path, meters: MemoryMeters
) -> Iterator[Service]:
    """All parts of the library."""
    place: dict[str, str] = {}
    if database_kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        place = {"database": cluster.create_database()}
    service = Service.open(service_settings(tmp_path, **place), meters)
    yield service
    service.close()


@pytest.fixture
def live() -> LiveMemory:
    """Progress that the test tells."""
    return LiveMemory()


@pytest.fixture
def app(service: Service, live: LiveMemory) -> FastAPI:
    """The application."""
    return create_app(service, SETTINGS, live, lambda _: {})


@pytest.fixture
def world(service: Service, app: FastAPI) -> Iterator[World]:
    """Clients with the keys of two tenants."""
    with TestClient(app) as client:
        yield World(service, app, client)
