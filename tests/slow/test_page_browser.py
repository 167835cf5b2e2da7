"""The studio page in a real browser over a service that runs: from an album to a portrait that was downloaded."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from studiolo.albums.decode import decode
from studiolo.portraits.files import decode_portrait
from studiolo.settings import PerceptionSettings
from tests.slow.studio_page import Running, photos_of, running
from tests.slow.visitor import DESK, LONG_MS, PHONE, SOON_MS, Visitor, launched, visiting
from tests.web.page.pictures import group

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOSTILE = "<img src=x onerror=alert(1)>${alert(2)}{{7*7}}"
TABS = ("Album", "Portraits", "Edit", "Jobs", "My data")


@pytest.fixture(scope="module")
def studio(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Browser, studio: Running) -> Iterator[Visitor]:
    with calm(browser, studio.url, studio.token) as visitor:
        yield visitor


@pytest.fixture
def other(browser: Browser, studio: Running) -> Iterator[Visitor]:
    """Somebody of another studio, whose people nobody else meets."""
    with calm(browser, studio.url, studio.service.keys.create("other").token) as visitor:
        yield visitor


@contextmanager
def calm(browser: Browser, url: str, token: str) -> Iterator[Visitor]:
    """A visitor whose browser complains of nothing."""
    visitor = visiting(browser, url, token)
    yield visitor
    visitor.context.close()
    assert visitor.elsewhere == []
    assert visitor.complaints == []


def test_from_an_album_to_a_portrait_that_was_downloaded_and_erased(visitor: Visitor, people: Path) -> None:
    page = visitor.page
    visitor.sign_in()
    (cookie,) = visitor.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""
    visitor.drop(photos_of(people, "P001"))
    expect(page.locator("#dropped")).to_contain_text("4 of 5 photos will be sent")
    assert page.locator("#dropped img").count() == 4
    expect(page.locator("#dropped .photo.ok")).to_have_count(4)
    expect(page.locator("#dropped")).to_contain_text("portrait.jpg A face was found.")
    visitor.consent("Anna")
    visitor.send()
    expect(page.locator("#album-notice")).to_contain_text("Anna is being learned from 4 photos", timeout=SOON_MS)
    visitor.learned()
    expect(page.locator("#person .photo")).to_have_count(4)
    expect(page.locator("#person svg polyline")).to_be_visible()

    visitor.open("Portraits")
    visitor.order("Anna", "studio", 2)
    expect(page.locator("#making [role=progressbar]")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#results .portraits img")).to_have_count(2, timeout=LONG_MS)
    for picture in page.locator("#results .portraits img").all():
        assert "Anna" in str(picture.get_attribute("alt"))
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert archive.namelist() == ["portrait-01.png", "portrait-02.png"]
        rgb_u8, inside = decode_portrait(archive.read("portrait-01.png"))
    assert rgb_u8.shape == (256, 256, 3)
    assert "seed" in inside

    visitor.open("Jobs")
    expect(page.locator("#jobs .job")).to_have_count(2, timeout=SOON_MS)
    expect(page.locator("#jobs")).to_contain_text("Studio, Anna")
    visitor.open("My data")
    expect(page.locator("#kept")).to_contain_text("4 photos", timeout=SOON_MS)
    expect(page.locator("#kept")).to_contain_text("Studio, Anna")
    page.get_by_label("Whom", exact=True).first.click()
    page.get_by_role("option", name="Anna").click()
    page.get_by_label("Erase their photos").check()
    page.get_by_role("button", name="Erase for good").click()
    expect(page.locator("#erased")).to_contain_text("Anna was erased", timeout=LONG_MS)
    with page.expect_download() as receipt:
        page.get_by_role("link", name="Download the signed receipt").click()
    assert '"signature"' in Path(receipt.value.path()).read_text()
    expect(page.locator("#kept")).to_contain_text("Nobody has been learned")


def test_a_face_in_a_picture_is_drawn_anew_and_shown_beside_what_was_there(
    other: Visitor, studio: Running, people: Path, tmp_path: Path
) -> None:
    page, path = other.page, tmp_path / "group.jpg"
    path.write_bytes(group(people))
    other.sign_in()
    other.drop(photos_of(people, "P002")[:4])
    other.consent("Berta")
    other.send()
    expect(page.locator("#person h3")).to_have_text("Berta", timeout=SOON_MS)
    other.learned()

    other.open("Edit")
    expect(page.get_by_label("As whom").first).to_have_value("Berta", timeout=SOON_MS)
    page.get_by_role("button", name="Make pictures").click()
    expect(page.locator("#editing [role=alert]")).to_contain_text("Drop a picture to edit.", timeout=SOON_MS)
    other.drop_template(path, faces=2)
    page.get_by_role("button", name="Make pictures").click()
    expect(page.locator("#editing [role=alert]")).to_contain_text("Choose which face", timeout=SOON_MS)
    other.edit("Face 1 (left)", count=1)
    expect(page.locator("#template-seen span.face").first).to_have_css("border-color", "rgb(47, 111, 106)")
    expect(page.locator("#editing [role=progressbar]")).to_be_visible(timeout=LONG_MS)
    expect(page.locator("#edits .edits img")).to_have_count(1, timeout=LONG_MS)
    picture = page.locator("#edits .edits img")
    assert "Berta" in str(picture.get_attribute("alt"))
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    made, _ = decode_portrait(page.request.get(f"{studio.url}/{picture.get_attribute('src')}").body())
    template = decode(path.read_bytes(), PerceptionSettings())
    middle = template.shape[1] // 2
    assert np.array_equal(made[:, middle:], template[:, middle:])
    assert not np.array_equal(made[:, :middle], template[:, :middle])

    seen = "getComputedStyle(document.querySelector('#edits .before'))"
    assert "data:image/jpeg" in page.evaluate(f"{seen}.backgroundImage")
    slider = page.get_by_label("how much of it is shown as it was before")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("51")
    assert page.evaluate(f"{seen}.clipPath") == "inset(0px 49% 0px 0px)"
    page.keyboard.press("End")
    assert page.evaluate(f"{seen}.clipPath") == "inset(0px 0% 0px 0px)"
    for size in (PHONE, DESK):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        assert other.narrow()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert archive.namelist() == ["portrait-01.png"]


def test_words_of_people_stay_words(visitor: Visitor, people: Path, studio: Running) -> None:
    page = visitor.page
    visitor.sign_in()
    visitor.drop(photos_of(people, "P001")[4:])
    visitor.consent(HOSTILE)
    visitor.send()
    expect(page.locator("#album-notice")).to_contain_text("None of these files is a picture.", timeout=SOON_MS)
    page.reload()
    visitor.drop(photos_of(people, "P001")[:1])
    visitor.consent(HOSTILE)
    visitor.send()
    expect(page.locator("#album-notice")).to_contain_text(HOSTILE, timeout=SOON_MS)
    expect(page.locator("#person h3")).to_have_text(HOSTILE, timeout=SOON_MS)
    visitor.open("Jobs")
    expect(page.locator("#jobs h3").first).to_have_text(f"Learning {HOSTILE}", timeout=SOON_MS)
    button = page.get_by_role("button", name="Cancel: Learning")
    if button.count():  # it may have been learned meanwhile
        button.click()
    visitor.open("My data")
    expect(page.locator("#kept th[scope=row]").first).to_contain_text(HOSTILE, timeout=SOON_MS)


def test_what_goes_wrong_is_said(visitor: Visitor, studio: Running) -> None:
    page = visitor.page
    page.goto(studio.url)
    page.get_by_label("Your API key").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This key is not known")
    visitor.complaints.clear()  # the browser's own line about a 401
    visitor.sign_in()
    visitor.send()
    expect(page.locator("#album-notice [role=alert]")).to_contain_text("Give the person a name.", timeout=SOON_MS)
    visitor.open("Portraits")
    page.get_by_text("Finer settings").click()
    expect(page.get_by_label("Seed")).to_have_value("")
    page.locator("#styles input[value='-']").check()
    page.get_by_role("button", name="Make portraits").click()
    expect(page.locator("#making [role=alert]")).to_contain_text("Choose of whom", timeout=SOON_MS)
    page.get_by_label("Of whom").first.click()
    page.get_by_role("option", name="Nobody in particular").click()
    page.get_by_role("button", name="Make portraits").click()
    expect(page.locator("#making [role=alert]")).to_contain_text("a style, a prompt, or both", timeout=SOON_MS)
    visitor.open("My data")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.locator("#erased [role=alert]")).to_contain_text("tick the box", timeout=SOON_MS)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your API key")).to_be_visible(timeout=SOON_MS)
    assert visitor.context.cookies() == []


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_fits_and_goes_by_keyboard(browser: Browser, studio: Running, size: tuple[int, int]) -> None:
    visitor = visiting(browser, studio.url, studio.token, size)
    visitor.sign_in()
    page = visitor.page
    for name in TABS:
        if size == DESK:
            page.get_by_role("tab", name=name).focus()
            page.keyboard.press("Enter")
        else:
            visitor.open(name)
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        assert visitor.narrow(), name
    visitor.open("Portraits")
    first = page.locator("#styles input").first
    expect(first).to_be_checked(timeout=SOON_MS)
    first.focus()
    page.keyboard.press("Tab")  # to Gradio each is a group of its own, so arrows lead nowhere
    page.keyboard.press("Space")
    expect(page.locator("#styles input").nth(1)).to_be_checked()
    expect(first).not_to_be_checked()
    assert visitor.complaints == []
    visitor.context.close()
