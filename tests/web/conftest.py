"""The endpoint over a fresh SQLite database and store, with the keys of two tenants."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studiolo.service.service import Service
from tests.service.test_service import settings as service_settings
from tests.web.world import SETTINGS, LiveMemory, World
from web.app import create_app


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> None:
    """Nothing here takes long."""
    request.node.add_marker(pytest.mark.timeout(60))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """All parts of the library."""
    service = Service.open(service_settings(tmp_path))
    yield service
    service.close()


@pytest.fixture
def live() -> LiveMemory:
    """Progress that the test tells."""
    return LiveMemory()


@pytest.fixture
def app(service: Service, live: LiveMemory) -> FastAPI:
    """The application."""
    return create_app(service, SETTINGS, live)


@pytest.fixture
def world(service: Service, app: FastAPI) -> Iterator[World]:
    """Clients with the keys of two tenants."""
    with TestClient(app) as client:
        yield World(service, app, client)
