"""The page over the real application, which answers behind a real server; keys of two tenants."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from studiolo.errors import WeightsError
from studiolo.service.metrics import MemoryMeters
from studiolo.service.service import Service
from studiolo.settings import PerceptionSettings
from tests.service.test_service import settings as service_settings
from tests.web.server import served
from tests.web.world import SETTINGS, LiveMemory, World
from web.app import create_app
from web.page.app import create_page
from web.page.client import Client
from web.page.gate import COOKIE
from web.page.photos import Looker
from web.page.studio import Studio


@dataclass
class Front:
    """The world behind a real server, and what the page needs to ask it."""

    world: World
    url: str

    def client(self, by: str = "anna") -> Client:
        """A client with a tenant's key."""
        return Client(self.http(), self.world.tokens[by])

    def http(self) -> httpx.AsyncClient:
        """Connections to the endpoint, none of which is kept for another event loop."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, limits=limits)

    def studio(self) -> Studio:
        """What the tabs are given."""
        return Studio(SETTINGS, self.http(), Looker(PerceptionSettings()))

    def request(self, by: str | None = "anna") -> Any:
        """What Gradio gives the tabs of a browser that is signed in, or is not."""
        return SimpleNamespace(cookies={} if by is None else {COOKIE: self.world.tokens[by]})


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No faces can be looked for."""

    def unreachable(_: str) -> None:
        raise WeightsError("no model can be had")

    monkeypatch.setattr("web.page.photos.open_detector", unreachable)


@pytest.fixture
def front(world: World) -> Iterator[Front]:
    with served(world.app) as url:
        yield Front(world, url)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, TestClient]]:
    """One world and its page for all tests of a module: Gradio takes a second to build it."""
    service = Service.open(service_settings(tmp_path_factory.mktemp("service")), MemoryMeters())
    app = create_app(service, SETTINGS, LiveMemory(), lambda _: {})
    with TestClient(app) as asking, served(app) as url:
        page = create_page(SETTINGS, url)
        with TestClient(page, base_url="http://studio.example", follow_redirects=False) as client:
            yield Front(World(service, app, asking), url), client
    service.close()


@pytest.fixture
def house(opened: tuple[Front, TestClient]) -> Front:
    """The world behind `browser`."""
    return opened[0]


@pytest.fixture
def browser(opened: tuple[Front, TestClient]) -> TestClient:
    """The page as somebody's browser asks it, not signed in."""
    opened[1].cookies.clear()
    return opened[1]


def signed_in(browser: TestClient, front: Front, by: str = "anna") -> TestClient:
    """The same, as a tenant."""
    browser.cookies.clear()
    browser.cookies.set(COOKIE, front.world.tokens[by])
    return browser
