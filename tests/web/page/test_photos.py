"""Pictures that were dropped on the page: each is looked at, its faces found, and none harms the page."""

import base64
import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studiolo.albums.decode import decode
from studiolo.albums.records import Reason
from studiolo.albums.samples import extract_nothing_usable
from studiolo.errors import WeightsError
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.suite import open_suite
from studiolo.portraits.edit_templates import see_template
from studiolo.settings import PerceptionSettings
from tests.web.page.pictures import PAIR, group
from web.page.photos import GONE, Face, Looker, said_of_repeats
from web.types import EditTexts


@pytest.fixture(scope="module")
def reader() -> Iterator[Looker]:
    looker = Looker(PerceptionSettings(max_pixels=1_000_000))
    yield looker
    looker.close()


@pytest.fixture
def look(reader: Looker, blind: None) -> Looker:
    """One that reads photos and finds no faces."""
    return reader


def picture(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_photo_that_can_be_read_has_a_small_picture(look: Looker, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.exe"  # its name says nothing
    path.write_bytes(picture((600, 300), kind))
    dropped = look(path)
    assert (dropped.sentence, dropped.sent, dropped.face) == ("", True, False)
    assert dropped.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
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


@pytest.fixture(scope="module")
def sharp(weights: Path) -> Iterator[Looker]:
    """One that takes whole photos."""
    looker = Looker(PerceptionSettings())
    yield looker
    looker.close()


def test_the_faces_of_a_picture_are_found_where_the_workers_find_them(
    sharp: Looker, people: Path, tmp_path: Path
) -> None:
    path, settings = tmp_path / "group.jpg", PerceptionSettings()
    path.write_bytes(group(people, small=True))
    template = sharp.template(path)
    assert (template.sentence, template.file.sha256) == ("", hashlib.sha256(path.read_bytes()).hexdigest())
    assert [len(template.faces), len(template.too_small)] == [2, 1]
    left, right = template.faces
    assert left.left + left.width < 0.5 < right.left
    rgb_u8, suite = decode(path.read_bytes(), settings), open_suite("embedded")
    for face in template.faces:
        point = EditTexts(identity_id="id_" + "0" * 32, face=face.point).point
        seen = see_template(rgb_u8, suite, 128, 0.5, settings, 1.0, point)
        across = np.nonzero(seen.seen.any(axis=0))[0] / seen.seen.shape[1]
        assert face.left - 0.1 < across[0] < across[-1] < face.left + face.width + 0.1
    size = Image.open(io.BytesIO(base64.b64decode(template.file.picture.partition(",")[2]))).size
    assert max(size) == 1024


def test_a_photo_has_the_verdict_that_workers_would_give_it(sharp: Looker, people: Path, tmp_path: Path) -> None:
    Image.open(people / PAIR[0]).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.jpg")
    (tmp_path / "far.jpg").write_bytes(group(people, (), small=True))
    folders = tmp_path, extract_nothing_usable(tmp_path / "nothing")
    suite, settings, found = open_suite("embedded"), PerceptionSettings(), set[str]()
    for path in (path for folder in folders for path in sorted(folder.glob("*.jpg"))):
        dropped = sharp(path)
        if not dropped.picture:
            continue
        seen = perceive_photo(suite, decode(path.read_bytes(), settings), settings)
        found.add(dropped.sentence)
        assert dropped.face >= bool(seen.faces), path
        assert (dropped.sentence == Reason.FACE_TOO_SMALL.sentence()) == bool(not dropped.face and seen.too_small_px)
    assert found == {"", Reason.NO_FACE.sentence(), Reason.FACE_TOO_SMALL.sentence()}


def test_repeats_are_told_by_their_bytes_alone(sharp: Looker, people: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.jpg", "two.png", "other.jpg", "bad.jpg", "worse.jpg")]
    content, other = ((people / name).read_bytes() for name in PAIR)
    for path, data in zip(paths, (content, content, other, content[:900], content[:900]), strict=True):
        path.write_bytes(data)
    photos = [sharp(path) for path in paths]
    sentences = ["", Reason.DUPLICATE.sentence(), "", *[Reason.DAMAGED.sentence()] * 2]
    assert [photo.sentence for photo in said_of_repeats(photos)] == sentences
    assert [photo.sentence for photo in said_of_repeats(photos[1:])] == ["", *sentences[2:]]
    assert all(photo.sent for photo in photos)


def test_a_detector_that_cannot_be_had_is_not_asked_for_at_each_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked, looker = tmp_path / "photo.png", list[str](), Looker(PerceptionSettings())
    path.write_bytes(picture((100, 100), "PNG"))

    def unreachable(name: str) -> None:
        asked.append(name)
        raise WeightsError("no model can be had")

    monkeypatch.setattr("web.page.photos.open_detector", unreachable)
    assert [looker(path).sentence for _ in range(3)] == [""] * 3
    assert asked == ["embedded"]
    looker.close()


@pytest.mark.parametrize(("small", "why"), [(False, Reason.NO_FACE), (True, Reason.FACE_TOO_SMALL)])
def test_a_picture_without_a_face_to_draw_says_so(
    sharp: Looker, people: Path, tmp_path: Path, small: bool, why: Reason
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(group(people, (), small))
    template, photo = sharp.template(path), sharp(path)
    assert (template.sentence, template.faces, len(template.too_small)) == (why.sentence(), (), small)
    assert (photo.sentence, photo.sent, photo.face) == (why.sentence(), True, False)
    assert template.file.picture


def test_what_is_no_picture_is_no_template(look: Looker, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    assert look.template(path).sentence == GONE
    path.write_bytes(b"GIF8")
    assert look.template(path).sentence == Reason.DAMAGED.sentence()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_every_face_has_a_point_that_the_service_takes(left: float, top: float, width: float, height: float) -> None:
    face = Face(left, top, width * (1 - left), height * (1 - top))
    point = EditTexts(identity_id="id_" + "0" * 32, face=face.point).point
    assert point == pytest.approx((face.left + face.width / 2, face.top + face.height / 2), abs=1e-4)
