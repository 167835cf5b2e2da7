"""A browser before the studio page: what customers do there, and what the browser complains of."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, expect

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--force-color-profile=srgb"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SOON_MS = 60_000
LONG_MS = 300_000
"""Longest that learning a person and making portraits may take here: half a minute each on idle cores."""
DESK, PHONE = (1280, 900), (390, 844)
_HANGS_UP = "signal is aborted without reason"
"""Said in the browser when Gradio ends a stream of its own."""


@dataclass
class Visitor:
    """Somebody at the page, and what their browser complained of."""

    context: BrowserContext
    page: Page
    url: str
    token: str
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Requests to any other address than the page's."""

    def sign_in(self) -> None:
        """Through the door."""
        self.page.goto(self.url)
        self.page.get_by_label("Your API key").fill(self.token)
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

    def drop_template(self, path: Path, faces: int) -> None:
        """A picture to edit, with so many faces in it."""
        self.page.locator("#template input[type=file]").set_input_files(str(path))
        expect(self.page.locator("#template-seen span.face")).to_have_count(faces, timeout=SOON_MS)

    def edit(self, face: str, count: int) -> None:
        """Draw a face of the picture anew, as the first person."""
        self.page.get_by_label(face).check()
        number = self.page.get_by_label("number input for How many").last
        number.fill(str(count))
        number.press("Tab")
        self.page.get_by_role("button", name="Make pictures").click()

    def consent(self, name: str) -> None:
        """The rest of the form."""
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.get_by_label("Who consents", exact=True).fill(name)
        self.page.get_by_label("This consent was given to me").check()

    def send(self) -> None:
        """The album."""
        self.page.get_by_role("button", name="Learn this person").click()

    def learned(self) -> None:
        """Wait for the person that is shown."""
        expect(self.page.locator("#person .badge.ready")).to_be_visible(timeout=LONG_MS)

    def order(self, name: str, style: str, count: int) -> None:
        """Portraits of the first person, of this name."""
        expect(self.page.get_by_label("Of whom").first).to_have_value(name, timeout=SOON_MS)
        self.page.locator(f"#styles input[value='{style}']").check()
        number = self.page.get_by_label("number input for How many").first
        number.fill(str(count))
        number.press("Tab")
        self.page.get_by_role("button", name="Make portraits").click()

    def narrow(self) -> bool:
        """Whether nothing sticks out at the side."""
        width = self.page.viewport_size["width"]  # type: ignore[index]
        return bool(self.page.evaluate("document.documentElement.scrollWidth") <= width)


def visiting(browser: Browser, url: str, token: str, size: tuple[int, int] = DESK, dark: bool = False) -> Visitor:
    """A new visitor, with a browser that remembers nothing."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    visitor = Visitor(context, context.new_page(), url, token)
    host = urlsplit(url).netloc

    def requested(request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https") and urlsplit(request.url).netloc != host:
            visitor.elsewhere.append(request.url)

    context.on("request", requested)

    def complained(words: str) -> None:
        if _HANGS_UP not in words:
            visitor.complaints.append(words)

    visitor.page.on("pageerror", lambda error: complained(str(error)))
    visitor.page.on("dialog", lambda dialog: visitor.complaints.append(f"dialog: {dialog.message}"))
    visitor.page.on(
        "console",
        lambda said: complained(f"{said.text} {said.location}") if said.type == "error" else None,
    )
    return visitor


def launched(playwright: Playwright) -> Browser:
    """Debian's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("no chromium: run `make test-slow`, which installs it")
    return playwright.chromium.launch(executable_path=chromium, args=FLAGS)
