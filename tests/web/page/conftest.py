"""The page over the real application, which answers behind a real server; keys of two tenants."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from studiolo.settings import PerceptionSettings
from tests.web.server import served
from tests.web.world import SETTINGS, World
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
        return httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False, limits=limits)

    def studio(self) -> Studio:
        """What the tabs are given."""
        return Studio(SETTINGS, self.http(), Looker(PerceptionSettings()))

    def request(self, by: str | None = "anna") -> Any:
        """What Gradio gives the tabs of a browser that is signed in, or is not."""
        return SimpleNamespace(cookies={} if by is None else {COOKIE: self.world.tokens[by]})


@pytest.fixture
def front(world: World) -> Iterator[Front]:
    with served(world.app) as url:
        yield Front(world, url)


@pytest.fixture
def browser(front: Front) -> Iterator[TestClient]:
    """The page as somebody's browser asks it, not signed in."""
    page = create_page(SETTINGS, front.url)
    with TestClient(page, base_url="http://studio.example", follow_redirects=False) as client:
        yield client


def signed_in(browser: TestClient, front: Front, by: str = "anna") -> TestClient:
    """The same, as a tenant."""
    browser.cookies.clear()
    browser.cookies.set(COOKIE, front.world.tokens[by])
    return browser
