"""Signing in and out, and the pictures of the page."""

import io
import os
import re
import time
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fontTools.ttLib import TTFont

from studiolo.portraits.styles import all_styles
from tests.web.page.conftest import Front, signed_in
from tests.web.world import SETTINGS
from web.page.app import create_page
from web.page.gate import COOKIE

ASSETS = Path("web/page/assets")


def test_a_good_key_signs_in_by_a_cookie_that_no_script_reads(browser: TestClient, house: Front) -> None:
    answer = browser.post("/sign-in", data={"key": f" {house.world.tokens['anna']} "})
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={house.world.tokens['anna']};")
    for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert "Secure" not in cookie
    secure = browser.post("/sign-in", data={"key": house.world.tokens["anna"]}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["set-cookie"]
    browser.cookies.set(COOKIE, house.world.tokens["anna"])
    home = browser.get("/")
    assert home.status_code == 200
    assert house.world.tokens["anna"] not in home.text


@pytest.mark.parametrize(
    "key", ["", "nonsense", "studiolo_1234567890_" + "x" * 40, "<script>alert(1)</script>", "ключ"]
)
def test_a_bad_key_is_refused_and_not_shown(browser: TestClient, key: str) -> None:
    answer = browser.post("/sign-in", data={"key": key})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "This key is not known" in answer.text
    assert key == "" or key not in answer.text


def test_signing_out_takes_the_cookie_away(browser: TestClient, house: Front) -> None:
    answer = signed_in(browser, house).post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "sign-in")
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert "cache" in answer.headers["clear-site-data"]


def test_pictures_are_fetched_with_the_key_of_whoever_asks(browser: TestClient, house: Front) -> None:
    job_id = house.world.ask("POST", "/v1/portraits", json={"style": "studio", "count": 2}).json()["id"]
    anna = signed_in(browser, house)
    assert anna.get(f"/portraits/{job_id}.zip").status_code == 404
    house.world.make(2)
    pictures = [anna.get(f"/portraits/{job_id}/{number}.png") for number in range(2)]
    wanted = [house.world.ask("GET", f"/v1/jobs/{job_id}/images/{number}").content for number in range(2)]
    assert [one.content for one in pictures] == wanted
    assert pictures[0].headers["content-type"] == "image/png"
    assert pictures[0].headers["cache-control"].startswith("private")
    assert pictures[0].headers["vary"] == "Cookie"
    archive = anna.get(f"/portraits/{job_id}.zip")
    assert "attachment" in archive.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.namelist() == ["portrait-01.png", "portrait-02.png"]
        assert [opened.read(name) for name in opened.namelist()] == wanted
    bert = signed_in(browser, house, "bert")
    for path in (f"/portraits/{job_id}/0.png", f"/portraits/{job_id}.zip", "/portraits/job_x/0.png"):
        assert bert.get(path).status_code == 404
    assert anna.get(f"/portraits/{job_id}/9.png").status_code == 404


def test_below_a_prefix_all_of_it_stays_there(house: Front) -> None:
    """As Ray Serve asks: with the whole path, and which part of it is the prefix."""
    page = create_page(SETTINGS, house.url)
    with TestClient(page, "http://studio.example", root_path="/studio", follow_redirects=False) as client:
        bare = client.get("/studio")
        assert (bare.status_code, bare.headers["location"]) == (308, "/studio/")
        assert client.get("/studio/").headers["location"] == "sign-in"
        signed = client.post("/studio/sign-in", data={"key": house.world.tokens["anna"]})
        assert (signed.status_code, signed.headers["location"]) == (303, "./")
        assert "Path=/studio/;" in signed.headers["set-cookie"]
        assert "page.css" in client.get("/studio/").text
        assert client.get("/studio/config").json()["root"].endswith("/studio")
        assert client.get("/studio/gradio_api/info").status_code == 404
        assert "Path=/studio/;" in client.post("/studio/sign-out").headers["set-cookie"]


def test_every_style_has_a_picture_and_a_rule_that_shows_it(browser: TestClient, house: Front) -> None:
    names = set(all_styles(None)) - {"plain"}  # that is the person alone
    css = browser.get("/page.css").text
    assert set(re.findall(r'value="([\w-]+)"\]\)::before \{ background-image', css)) == names
    for name in names:
        assert signed_in(browser, house).get(f"/styles/{name}.jpg").headers["content-type"] == "image/jpeg"
    assert browser.get("/styles/nothing.jpg").status_code == 404


def test_nothing_of_the_page_comes_from_elsewhere(browser: TestClient, house: Front) -> None:
    client = signed_in(browser, house)
    home = client.get("/").text
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]+)"', home)
    assert loaded
    assert [one for one in loaded if re.match(r"(?:https?:)?//", one)] == []
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    for sheet in (client.get("/theme.css").text, client.get("/page.css").text):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet)


def test_the_fonts_have_letters(browser: TestClient) -> None:
    """Of some fonts Gradio has the part for other languages alone."""
    urls = re.findall(r'url\("(static/[^"]+)"\)', browser.get("/page.css").text)
    assert urls
    for url in urls:
        font = TTFont(io.BytesIO(browser.get(f"/{url}").content))
        assert font.getBestCmap().keys() >= {*range(32, 127)}, url


def test_no_control_is_an_api(browser: TestClient, house: Front) -> None:
    config = signed_in(browser, house).get("/config").json()
    assert config["dependencies"]
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}


def test_the_cache_is_emptied_on_a_timer_and_at_the_end(house: Front) -> None:
    quick = SETTINGS.model_copy(update={"page": SETTINGS.page.model_copy(update={"cache_s": 0.3})})
    page = create_page(quick, house.url)
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert oct(cache.stat().st_mode)[-3:] == "700"
    with TestClient(page) as client:
        client.cookies.set(COOKIE, house.world.tokens["anna"])
        answer = client.post("/gradio_api/upload", files={"files": ("me.jpg", b"photo", "image/jpeg")})
        (path,) = answer.json()
        assert Path(path).is_relative_to(cache)
        assert client.get(f"/gradio_api/file={path}").status_code == 404
        give_up_s = time.monotonic() + 60
        while [*cache.rglob("*")]:
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
        client.post("/gradio_api/upload", files={"files": ("me.jpg", b"photo", "image/jpeg")})
    assert not cache.exists()


def test_the_endpoint_may_be_away(browser: TestClient, house: Front) -> None:
    with TestClient(create_page(SETTINGS, "http://127.0.0.1:9"), follow_redirects=False) as client:
        client.cookies.set(COOKIE, house.world.tokens["anna"])
        home = client.get("/")
        assert (home.status_code, home.headers["retry-after"]) == (503, "5")
        assert "cannot be reached" in home.text
        assert client.post("/sign-in", data={"key": "studiolo_x"}).status_code == 503
        assert client.get("/healthz").status_code == 200
