"""Pictures of the studio page for docs/page.md: `python -m tests.slow.page_pictures docs/images`."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from studiolo.albums.samples import extract_people
from tests.slow.studio_page import (
    DESK,
    LONG_MS,
    PHONE,
    SOON_MS,
    Visitor,
    launched,
    photos_of,
    running,
    visiting,
)

_MOST_COLOURS = 256


def main(out: str) -> None:
    """Everything, from an album on."""
    folder = Path(out)
    with tempfile.TemporaryDirectory() as place, running(Path(place), steps=20, training_steps=150) as studio:
        extract_people(Path(place) / "people", count=1)
        with sync_playwright() as playwright:
            browser = launched(playwright)
            desk = visiting(browser, studio, DESK)
            desk.page.goto(studio.url)
            shot(desk, folder / "page-sign-in.png", whole=False)
            desk.sign_in()
            shot(desk, Path(place) / "empty.png")
            album(desk, photos_of(Path(place) / "people", "P001"), folder)
            portraits(desk, folder)
            others(desk, folder)
            phones(visiting(browser, studio, PHONE), Path(place), folder)
            dark = visiting(browser, studio, DESK, dark=True)
            dark.sign_in()
            dark.learned()
            shot(dark, folder / "page-dark.png")
            browser.close()


def album(desk: Visitor, photos: list[Path], folder: Path) -> None:
    """Photos with their verdicts, and a person who was learned, with a sample sheet."""
    desk.drop(photos)
    desk.consent("Anna")
    shot(desk, folder / "page-album-dropped.png")
    desk.send()
    desk.learned()
    desk.page.get_by_role("button", name="Make a sample sheet").click()
    expect(desk.page.locator("#person .sheet img")).to_have_count(4, timeout=LONG_MS)
    shot(desk, folder / "page-album.png")


def portraits(desk: Visitor, folder: Path) -> None:
    """Portraits while they are drawn, and their results."""
    desk.open("Portraits")
    desk.order("warm-film", 4)
    expect(desk.page.locator("#making .stage img")).to_be_visible(timeout=LONG_MS)
    shot(desk, folder / "page-making.png")
    expect(desk.page.locator("#results .portraits img").first).to_be_visible(timeout=LONG_MS)
    shot(desk, folder / "page-portraits.png")


def others(desk: Visitor, folder: Path) -> None:
    """Jobs and data."""
    for tab, name, part in (("Jobs", "jobs", "#jobs .job"), ("My data", "data", "#kept table")):
        desk.open(tab)
        expect(desk.page.locator(part).first).to_be_visible(timeout=SOON_MS)
        shot(desk, folder / f"page-{name}.png")


def phones(phone: Visitor, place: Path, folder: Path) -> None:
    """Three tabs on a phone, side by side."""
    phone.sign_in()
    phone.learned()
    shots = []
    for tab, part in (("Album", "#photos"), ("Portraits", "#styles"), ("Jobs", "#jobs .job")):
        phone.open(tab)
        expect(phone.page.locator(part).first).to_be_visible(timeout=SOON_MS)
        path = place / f"{tab}.png"
        shot(phone, path, whole=False)
        shots.append(Image.open(path).convert("RGB"))
    gap, (width, height) = 24, shots[0].size
    sheet = Image.new("RGB", (len(shots) * (width + gap) + gap, height + 2 * gap), "#d9d3c8")
    for number, one in enumerate(shots):
        sheet.paste(one, (gap + number * (width + gap), gap))
    save(sheet, folder / "page-phone.png")


def shot(visitor: Visitor, path: Path, whole: bool = True) -> None:
    """The page as it is, when all its pictures are there."""
    page = visitor.page
    page.evaluate(
        "Promise.all([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))"
    )
    page.wait_for_timeout(600)
    page.screenshot(path=path, full_page=whole)
    save(Image.open(path).convert("RGB"), path)


def save(picture: Image.Image, path: Path) -> None:
    """A small PNG."""
    picture.quantize(_MOST_COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
