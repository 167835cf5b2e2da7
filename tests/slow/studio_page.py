"""The studio page as customers meet it: the whole service behind it in this process, a browser in front."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, expect

from actors.dispatcher import Dispatcher
from actors.finisher import PortraitFinisher
from actors.leased_trainer import LeasedTrainer
from actors.sampler import Sampler
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.service import Service
from tests.actors.house import House
from tests.actors.leased import working
from tests.jobs.finished_job import empty_database
from tests.web.server import served
from web.app import create_app
from web.page.app import create_page

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--force-color-profile=srgb"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SOON_MS = 30_000
LONG_MS = 240_000
"""Longest that learning a person and making portraits may take here: half a minute each on idle cores."""
DESK, PHONE = (1280, 900), (390, 844)


@dataclass
class Running:
    """A service that runs, and its page."""

    url: str
    service: Service
    token: str


@contextmanager
def running(folder: Path, steps: int = 10, training_steps: int = 12, slots: int = 2) -> Iterator[Running]:
    """The embedded suite and base behind `/v1` and the page, in `folder`, with a short training."""
    settings = EndpointSettings.model_validate(
        {
            "database": f"sqlite:///{folder}/service.db",
            "store": str(folder / "store"),
            "receipt_key": str(folder / "receipts.pem"),
            "provenance": {"development": str(folder / "provenance")},
            "generation": {"steps": steps, "slots": slots, "accept_similarity": 0.0, "face_share": (0.05, 1.0)},
            "face_lora": {"steps": training_steps, "batch_size": 2, "views_per_photo": 2, "slots": 1},
            "trainer": {"poll_s": 0.2},
            "dispatcher": {"poll_s": 0.1},
            "web": {"poll_s": 0.2},
        }
    )
    with ExitStack() as parts:
        service = Service.open(settings)
        parts.callback(service.close)
        service.store.write_bytes("mlflow.db", empty_database())
        house = EmbeddedHouse(service, settings)
        parts.callback(house.close)
        dispatcher: Dispatcher = house.dispatcher()
        trainer = LeasedTrainer(service, settings, "trainer-1")
        trainer.open()
        parts.enter_context(working(trainer))
        elsewhere = lambda name: {**house.sampler.forget(name), **house.finisher.forget(name)}  # noqa: E731
        endpoint = parts.enter_context(served(create_app(service, settings, dispatcher.live, elsewhere)))
        page = parts.enter_context(served(create_page(settings, endpoint)))
        yield Running(page, service, service.keys.create("studio").token)


class EmbeddedHouse(House):
    """One sampler and one finisher with the embedded models."""

    def __init__(self, service: Service, settings: EndpointSettings) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.service, self.settings, self.dispatchers = service, settings, []
        self.sampler = Sampler(service.store, settings.base, settings.generation)
        self.sampler.open()
        self.finisher = PortraitFinisher(service.store, settings.suite, settings.generation)
        self.finisher.open()
        self.threads = ThreadPoolExecutor(2)


@dataclass
class Visitor:
    """Somebody at the page, and what their browser complained of."""

    context: BrowserContext
    page: Page
    running: Running
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Requests to any other address than the page's."""

    def sign_in(self) -> None:
        """Through the door."""
        self.page.goto(self.running.url)
        self.page.get_by_label("Your API key").fill(self.running.token)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("tab", name="Album")).to_be_visible(timeout=SOON_MS)
        expect(self.page.get_by_role("button", name="Learn this person")).to_be_visible(timeout=SOON_MS)

    def open(self, tab: str) -> None:
        """One of the tabs."""
        self.page.get_by_role("tab", name=tab).click()

    def drop(self, photos: list[Path]) -> None:
        """Photos on the album."""
        self.page.locator("#photos input[type=file]").set_input_files([str(path) for path in photos])
        expect(self.page.locator("#dropped .photo")).to_have_count(len(photos), timeout=SOON_MS)

    def consent(self, name: str) -> None:
        """The rest of the form."""
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Who consents").fill(name)
        self.page.get_by_label("This consent was given to me").check()

    def send(self) -> None:
        """The album."""
        self.page.get_by_role("button", name="Learn this person").click()

    def learned(self) -> None:
        """Wait for the person that is shown."""
        expect(self.page.locator("#person .badge.ready")).to_be_visible(timeout=LONG_MS)

    def order(self, style: str, count: int) -> None:
        """Portraits of the first person."""
        self.page.locator(f"#styles input[value='{style}']").check()
        number = self.page.get_by_label("number input for How many")
        number.fill(str(count))
        number.press("Tab")
        self.page.get_by_role("button", name="Make portraits").click()

    def narrow(self) -> bool:
        """Whether nothing sticks out at the side."""
        width = self.page.viewport_size["width"]  # type: ignore[index]
        return bool(self.page.evaluate("document.documentElement.scrollWidth") <= width)


def visiting(browser: Browser, running: Running, size: tuple[int, int] = DESK, dark: bool = False) -> Visitor:
    """A new visitor, with a browser that remembers nothing."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    visitor = Visitor(context, context.new_page(), running)
    host = urlsplit(running.url).netloc

    def requested(request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https") and urlsplit(request.url).netloc != host:
            visitor.elsewhere.append(request.url)

    context.on("request", requested)
    visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    visitor.page.on("dialog", lambda dialog: visitor.complaints.append(f"dialog: {dialog.message}"))
    visitor.page.on(
        "console",
        lambda said: visitor.complaints.append(f"{said.text} {said.location}") if said.type == "error" else None,
    )
    return visitor


def launched(playwright: Playwright) -> Browser:
    """Debian's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("no chromium: run `make test-slow`, which installs it")
    return playwright.chromium.launch(executable_path=chromium, args=FLAGS)


def photos_of(people: Path, person: str) -> list[Path]:
    """A good album, with a file that is no picture."""
    folder = people / person
    notes = folder.parent / "notes.jpg"
    notes.write_text("this is no picture")
    names = ("portrait.jpg", "selfie.jpg", "expression-01-neutral.jpg", "expression-02-happy.jpg")
    return [*(folder / name for name in names), notes]


if __name__ == "__main__":  # look around: python -m tests.slow.studio_page FOLDER
    with running(Path(sys.argv[1])) as found:
        print(found.url, found.token, flush=True)
        input()
