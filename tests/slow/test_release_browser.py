"""A release's page as a person meets it: opened from disk in a browser, on a desk and on a phone."""

import csv
import json
from pathlib import Path

import pytest

from studiolo.datasets.browser import INDEX, write_browser
from studiolo.datasets.card import write_card
from studiolo.storage.store import Store
from tests.datasets.release import NAME, ODD, write_release
from tests.slow.test_gallery_browser import LOAD_ALL, browser, open_page  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("data set #1"))
    write_release(store, count=70, rows_per_file=40)
    write_browser(store, NAME, write_card(store, NAME))
    path = store.local_path(f"releases/{NAME}/{INDEX}")
    assert path is not None
    return path


@pytest.mark.parametrize("width_px", [390, 1280])
def test_everything_loads_and_fits(open_page, page_path: Path, width_px: int):  # noqa: F811
    page = open_page(page_path, width_px)
    assert page.locator(".faces li").count() == 60
    assert page.evaluate(LOAD_ALL) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    page.get_by_role("button", name="Show more").click()
    assert page.locator(".faces li").count() == 70
    page.locator(".faces button").nth(3).click()
    page.locator("dialog.face[open]").wait_for()
    assert page.evaluate("document.querySelector('dialog.face').scrollWidth") <= width_px


def test_the_filter_finds_by_words_part_and_numbers(open_page, page_path: Path):  # noqa: F811
    page = open_page(page_path)
    status = page.locator(".found [role=status]")
    page.get_by_label("Find").fill("zoë ALERT")
    assert page.locator(".faces .name").first.inner_text() == f"photos/{ODD}"
    found = int(status.inner_text().split()[0])
    assert 0 < found < 70
    page.get_by_label("Gender").select_option("woman")
    assert int(status.inner_text().split()[0]) < found
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("70 faces", exact=True).wait_for()
    page.get_by_label("Part", exact=True).select_option("-brows")
    assert status.inner_text() == "1 of 70 faces"
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Order").select_option("-age")
    first = page.locator(".faces .score").first.inner_text()
    page.get_by_label("Order").select_option("age")
    assert first != page.locator(".faces .score").first.inner_text()


def test_a_face_is_read_by_keyboard_with_masks_and_captions(open_page, page_path: Path):  # noqa: F811
    page = open_page(page_path)
    page.locator(".faces button").first.focus()
    page.keyboard.press("Enter")
    face = page.locator("dialog.face")
    face.locator("img").wait_for()
    before = face.locator("h2").inner_text(), face.locator("img").get_attribute("src")
    assert face.locator("svg path").count() == 7
    caption = face.locator(".captions li[data-part=eyes]")
    assert not caption.locator(".claims").is_visible()
    caption.focus()
    assert face.locator("path.picked").get_attribute("data-part") == "eyes"
    page.keyboard.press("Enter")
    assert "expression.eye_openness" in caption.locator(".claims").inner_text()
    face.get_by_label("nose").uncheck()
    assert not face.locator("path[data-part=nose]").is_visible()
    page.keyboard.press("ArrowRight")
    assert (face.locator("h2").inner_text(), face.locator("img").get_attribute("src")) != before
    assert not face.locator("path[data-part=nose]").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.faces button')")


def test_a_sample_is_exported_for_labelling(open_page, page_path: Path, tmp_path: Path):  # noqa: F811
    page = open_page(page_path)
    page.get_by_label("Split").select_option("train")

    def exported(form: str) -> str:
        page.get_by_role("button", name="Export for labelling").click()
        page.get_by_label("Faces", exact=True).fill("9")
        page.get_by_label("Form").select_option(form)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save").click()
        download.value.save_as(tmp_path / form)
        return (tmp_path / form).read_text()

    tasks = json.loads(exported("tasks"))
    assert len(tasks) == 9
    for task in tasks:
        results = task["predictions"][0]["result"]
        assert {one["value"]["polygonlabels"][0] for one in results} >= {"face", "nose", "mouth"}
        assert all(0 <= x <= 100 for one in results for point in one["value"]["points"] for x in point)
        place = page_path.parent / task["data"]["image"].removeprefix("http://localhost:8000/")
        assert place.is_file()
    assert json.loads(exported("tasks")) == tasks
    rows = list(csv.DictReader(exported("csv").splitlines()))
    assert {row["row_id"] for row in rows} == {task["data"]["row_id"] for task in tasks}
