"""The gallery as a person meets it: opened from disk in a browser, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from studiolo.albums.records import Reason
from studiolo.portraits.gallery import INLINE_PEOPLE, write_gallery
from studiolo.portraits.styles import all_styles
from tests.portraits.job_rows import ODD_NAME, Job
from tests.portraits.test_summary import figures, wanted

pytestmark = pytest.mark.slow

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
LOAD_ALL = """async () => {
    document.querySelectorAll("details").forEach((item) => { item.open = true; });
    const images = [...document.images];
    images.forEach((image) => { image.loading = "eager"; });
    await Promise.all(images.map((image) => image.decode().catch(() => null)));
    return images.filter((image) => !image.naturalWidth || !image.alt).map((image) => image.src);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "no chromium: run `make test-slow`, which installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs on disk: `few` people, shown in the index, and `many`, shown as cards."""
    root = tmp_path_factory.mktemp("out put #1")
    for name, extra in (("few", 0), ("many", INLINE_PEOPLE)):
        job = Job()
        job.add("anna", ("studio", "warm-film"))
        job.add(ODD_NAME, accepted=5)
        job.add("a" * 80, accepted=1)
        job.add("nobody", failed=True)
        for i in range(extra):
            job.add(f"customer-{i:03}", accepted=1)
        write_gallery(job.people, figures(job), all_styles(), wanted(job), job.access)
        for path, content in job.files.items():
            place = root / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return root


@pytest.fixture
def open_page(browser: Browser) -> Iterator[object]:
    """`open_page(path, width_px)`: a page without network; what it complained about ends the test."""
    complaints: list[str] = []
    context = browser.new_context(offline=True, color_scheme="dark")

    def opened(path: Path, width_px: int = 1280) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width_px, "height": 844})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield opened
    context.close()
    assert complaints == []


PAGES = ["few/gallery/index.html", "many/gallery/index.html", "few/gallery/people/anna.html"]


@pytest.mark.parametrize("width_px", [390, 1280])
@pytest.mark.parametrize("path", PAGES)
def test_everything_loads_and_fits(open_page, output: Path, path: str, width_px: int):
    page = open_page(output / path, width_px)
    assert page.evaluate("document.images.length") > 3
    assert page.evaluate(LOAD_ALL) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_names_are_shown_as_written(open_page, output: Path):
    page = open_page(output / "few/gallery/index.html")
    assert page.get_by_role("heading", name=ODD_NAME).count() == 1


def test_a_portrait_opens_large_by_keyboard_and_closes(open_page, output: Path):
    page = open_page(output / "few/gallery/people/anna.html")
    first = page.locator("a.zoom").first
    first.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog.lightbox img")
    large.wait_for()
    assert large.get_attribute("alt") == first.locator("img").get_attribute("alt")
    page.keyboard.press("ArrowRight")
    assert large.get_attribute("alt") == page.locator("a.zoom img").nth(1).get_attribute("alt")
    page.keyboard.press("Escape")
    page.locator("dialog.lightbox").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.matches('a.zoom')")


def test_reasons_unfold_by_keyboard(open_page, output: Path):
    page = open_page(output / "few/gallery/people/anna.html")
    reason = page.get_by_text(Reason.LOW_QUALITY.sentence())
    assert not reason.is_visible()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    reason.wait_for()


def test_a_person_is_found_among_many_and_opened(open_page, output: Path):
    page = open_page(output / "many/gallery/index.html")
    page.get_by_label("Find a person").fill("CUSTOMER-007")
    shown = page.locator(".card:visible")
    assert shown.count() == 1
    shown.get_by_role("link").click()
    assert page.get_by_role("heading", level=1).inner_text() == "customer-007"
    page.get_by_role("link", name="All people").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Portraits"
