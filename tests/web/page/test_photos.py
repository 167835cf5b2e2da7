"""Photos that were dropped on the page: each is looked at, and none harms the page."""

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from studiolo.albums.records import Reason
from studiolo.settings import PerceptionSettings
from web.page.photos import GONE, Looker


@pytest.fixture(scope="module")
def look() -> Iterator[Looker]:
    looker = Looker(PerceptionSettings(max_pixels=1_000_000))
    yield looker
    looker.close()


def picture(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_photo_that_can_be_read_has_a_small_picture(look: Looker, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.exe"  # its name says nothing
    path.write_bytes(picture((600, 300), kind))
    dropped = look(path)
    assert (dropped.sentence, dropped.sent) == ("", True)
    content = base64.b64decode(dropped.picture.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (220, 110)


@pytest.mark.parametrize(
    ("content", "reason", "sent"),
    [
        (b"", Reason.EMPTY_FILE, False),
        (b"<html><script>alert(1)</script></html>", Reason.NOT_AN_IMAGE, False),
        (b"\x80\x04\x95" + b"pickle" * 20, Reason.NOT_AN_IMAGE, False),
        (picture((600, 300))[:400], Reason.DAMAGED, True),
        (picture((2000, 1000), "PNG"), Reason.TOO_MANY_PIXELS, True),
        (picture((10, 10)), Reason.TOO_SMALL, True),
    ],
)
def test_one_that_cannot_says_why(look: Looker, tmp_path: Path, content: bytes, reason: Reason, sent: bool) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    dropped = look(path)
    assert (dropped.sentence, dropped.picture, dropped.sent) == (reason.sentence(), "", sent)


def test_one_that_was_removed_meanwhile_says_so(look: Looker, tmp_path: Path) -> None:
    dropped = look(tmp_path / "photo.jpg")
    assert (dropped.sentence, dropped.picture, dropped.sent) == (GONE, "", False)


def test_many_are_looked_at_at_once(look: Looker, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(picture((100 + number, 100), "PNG"))
    found: list[str] = []
    threads = [threading.Thread(target=lambda path=path: found.append(look(path).sentence)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert found == [""] * 6
