"""Every bad input we know of, one line each: what becomes of it, and that it harms no other photo.

Files and pixels first, through the isolated decoder in one sitting; then albums with faces, through the models.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter

from actors.perceiver import Perceiver
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import PERCEIVED_SCHEMA, Reason, Status
from studiolo.albums.sources import INPUT_SCHEMA, list_albums, read_bytes
from studiolo.errors import PhotoError
from studiolo.perception.pose import Pose
from studiolo.perception.quality import WEIGHTS, combine, eyes_score, pose_score
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.store import Store
from tests.albums.test_decode import difference, encode, heif, png_header, scene, wide_gamut
from tests.albums.test_selection import decided, face, photo

LIMITS = PerceptionSettings(decode_mib=256)


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(LIMITS)
    yield decoder
    decoder.close()


# Files that give a picture

Expected = NDArray[np.uint8]


def turned(orientation: int) -> bytes:
    """The scene as a camera held in another way stores it."""
    stored = Image.fromarray(scene())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored if undo is None else stored.transpose(Image.Transpose(undo)), "JPEG", quality=95, exif=exif)


def grey() -> Expected:
    return np.repeat(scene()[..., :1], 3, axis=2)


def half_transparent() -> bytes:
    return encode(np.dstack([scene(), np.where(np.arange(240) < 120, 255, 0)[None].repeat(160, 0).astype(np.uint8)]))


def half_white() -> Expected:
    picture = scene()
    picture[:, 120:] = 255
    return picture


def animated() -> bytes:
    frames = [Image.fromarray(scene()), Image.new("RGB", (240, 160), "blue")]
    return encode(frames[0], "PNG", save_all=True, append_images=frames[1:])


GOOD: dict[str, tuple[Callable[[], bytes], Callable[[], Expected]]] = {
    "a PNG whose name says JPEG": (lambda: encode(scene()), scene),
    "HEIC": (lambda: heif(scene()), scene),
    "AVIF": (lambda: encode(scene(), "AVIF", quality=95), scene),
    "CMYK": (lambda: encode(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95), scene),
    "16-bit grey": (lambda: encode(Image.fromarray(scene()[..., 0].astype(np.uint16) * 257)), grey),
    "8-bit grey": (lambda: encode(scene()[..., 0], "JPEG", quality=95), grey),
    "transparent": (half_transparent, half_white),
    "animated": (animated, scene),
    "a profile of a wide gamut": (lambda: encode(scene(), icc_profile=wide_gamut()), lambda: scene()[..., [1, 0, 2]]),
    "a profile that is broken": (lambda: encode(scene(), icc_profile=b"no profile"), scene),
    "EXIF that is broken": (lambda: encode(scene(), "JPEG", quality=95, exif=b"Exif\0\0broken"), scene),
    **{f"EXIF orientation {n}": (lambda n=n: turned(n), scene) for n in range(1, 9)},
}


@pytest.mark.parametrize("what", GOOD)
def test_an_odd_file_that_is_a_picture(decoder: IsolatedDecoder, what: str) -> None:
    write, expected = GOOD[what]
    assert difference(decoder(write()), expected()) < 4


# Display P3's primaries, adapted to D50 (ICC: columns of the matrix to XYZ), and sRGB's, as s15Fixed16
DISPLAY_P3 = {"r": (0.51512, 0.2412, -0.00105), "g": (0.29198, 0.69225, 0.04189), "b": (0.1571, 0.06657, 0.78407)}


def display_p3() -> bytes:
    """The profile of a phone's wide-gamut photos: sRGB's with the primaries of Display P3."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for channel, xyz in DISPLAY_P3.items():
        tag = profile.index(f"{channel}XYZ".encode(), 128)
        place = int.from_bytes(profile[tag + 4 : tag + 8], "big")
        for number, value in enumerate(xyz):
            at = place + 8 + 4 * number
            profile[at : at + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    return bytes(profile)


def test_colours_of_a_wide_gamut_photo_are_those_it_was_taken_with(decoder: IsolatedDecoder) -> None:
    """A skin tone given in Display P3 is (224, 172, 150) in sRGB; ignored, it would come out paler."""
    stored = Image.new("RGB", (80, 80), (215, 174, 154))
    seen = decoder(encode(stored, icc_profile=display_p3()))[40, 40].astype(int)
    assert np.abs(seen - (224, 172, 150)).max() <= 2
    assert np.abs(seen - (215, 174, 154)).max() >= 4


# Files that give none

BAD: dict[str, tuple[Callable[[], bytes], Reason, str]] = {
    "empty": (lambda: b"", Reason.EMPTY_FILE, "0 bytes"),
    "text": (lambda: b"Dear studio, please find", Reason.NOT_AN_IMAGE, "begins with 44 65 61 72"),
    "a web page": (lambda: b"<!DOCTYPE html><html><body>404", Reason.NOT_AN_IMAGE, "begins with 3c 21"),
    "a truncated JPEG": (lambda: encode(scene(), "JPEG")[:-900], Reason.DAMAGED, "JPEG: "),
    "half a header": (lambda: encode(scene(), "JPEG")[:20], Reason.DAMAGED, "begins with ff d8 ff"),
    "a truncated HEIC": (lambda: heif(scene())[:-200], Reason.DAMAGED, ""),
    "a bomb by its header": (lambda: png_header(20_000, 20_000), Reason.TOO_MANY_PIXELS, "400000000 pixels"),
    "a bomb within the limit of pixels": (
        lambda: encode(Image.new("1", (10_900, 10_900))),
        Reason.TOO_MUCH_MEMORY,
        "10900x10900 px: limit 256 MiB",
    ),
    "one pixel": (lambda: encode(Image.new("RGB", (1, 1))), Reason.TOO_SMALL, "1x1 px"),
    "a line": (lambda: encode(Image.new("RGB", (4000, 3))), Reason.TOO_SMALL, "4000x3 px"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_usable_picture(decoder: IsolatedDecoder, what: str) -> None:
    write, reason, detail = BAD[what]
    with pytest.raises(PhotoError) as caught:
        decoder(write())
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True), caught.value
    assert Reason(caught.value.reason).sentence().endswith(".")
    assert difference(decoder(encode(scene())), scene()) == 0  # the next photo


# Albums, through the models


@pytest.fixture(scope="module")
def album(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The photos of one album of everything, by uri, as perception and selection leave them."""
    folder = tmp_path_factory.mktemp("bad") / "albums" / "anna"
    folder.mkdir(parents=True)
    secret = folder.parent.parent / "secret.jpg"
    secret.write_bytes((people / "P002" / "portrait.jpg").read_bytes())
    fill(folder, people / "P001", people / "P002", secret)
    (row,) = perceive(folder.parent, SelectionSettings(max_references=40))
    assert (row["status"], len(row["photos"])) == (Status.OK, len(OUTCOMES))
    return {photo["uri"]: photo for photo in row["photos"]}


def fill(folder: Path, anna: Path, ben: Path, secret: Path) -> None:
    portrait = Image.open(anna / "portrait.jpg").convert("RGB")
    portrait.thumbnail((768, 768))
    friend = Image.open(ben / "portrait.jpg").convert("RGB").resize(portrait.size)

    def save(name: str, picture: Image.Image) -> None:
        picture.save(folder / name, quality=95)

    for name in ("portrait.jpg", "selfie.jpg", "expression-01-neutral.jpg", "expression-02-happy.jpg"):
        (folder / name).write_bytes((anna / name).read_bytes())
    (folder / "portrait (1).jpg").write_bytes((anna / "portrait.jpg").read_bytes())
    for name in ("with blank.jpg", "Zoë 日本.jpg", "line\nbreak.jpg"):
        save(name, portrait.rotate({"w": 0, "Z": 1, "l": 2}[name[0]], fillcolor=(128, 128, 128)))
    (folder / "text.jpg").write_text("words")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "outside.jpg").symlink_to(secret)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    save("wall.jpg", Image.new("RGB", (640, 480), (140, 130, 120)))
    far = Image.new("RGB", (640, 480), (128, 128, 128))
    far.paste(portrait.resize((60, 60)), (290, 200))
    save("far.jpg", far)
    two = Image.new("RGB", (2 * portrait.width, portrait.height))
    two.paste(portrait, (0, 0))
    two.paste(friend, (portrait.width, 0))
    save("two.jpg", two)
    save("friend.jpg", friend)
    save("blurred.jpg", portrait.filter(ImageFilter.GaussianBlur(portrait.width / 50)))
    save("dark.jpg", portrait.point(lambda level: level // 14))


USED = (Status.OK, Reason.NONE, "")
OUTCOMES: dict[str, tuple[Status, Reason, str]] = {
    "portrait.jpg": (Status.DROPPED, Reason.DUPLICATE, "same bytes as 'portrait (1).jpg'"),
    "portrait (1).jpg": USED,
    "selfie.jpg": USED,
    "expression-01-neutral.jpg": USED,
    "expression-02-happy.jpg": USED,
    "with blank.jpg": USED,
    "Zoë 日本.jpg": USED,
    "line\nbreak.jpg": USED,
    "text.jpg": (Status.FAILED, Reason.NOT_AN_IMAGE, "begins with 77 6f"),
    "empty.jpg": (Status.FAILED, Reason.EMPTY_FILE, "0 bytes"),
    "outside.jpg": (Status.FAILED, Reason.UNREADABLE, "a link that leaves the album"),
    "gone.jpg": (Status.FAILED, Reason.UNREADABLE, "a link that leads to no file"),
    "pipe.jpg": (Status.FAILED, Reason.UNREADABLE, "neither a file nor a folder"),
    "wall.jpg": (Status.DROPPED, Reason.NO_FACE, ""),
    "far.jpg": (Status.DROPPED, Reason.FACE_TOO_SMALL, "px across, wanted 48"),
    "two.jpg": (Status.DROPPED, Reason.SEVERAL_FACES, "2 faces, the largest"),
    "friend.jpg": (Status.DROPPED, Reason.OTHER_PERSON, "person 1 of the album"),
    "blurred.jpg": (Status.DROPPED, Reason.LOW_QUALITY, "mostly because the face is blurred (sharpness 0."),
    "dark.jpg": (Status.DROPPED, Reason.LOW_QUALITY, "mostly because the face is too dark or too bright (exposure 0."),
}


@pytest.mark.parametrize("uri", OUTCOMES)
def test_a_photo_of_an_album_of_everything(album: dict[str, dict[str, Any]], uri: str) -> None:
    row, (status, reason, detail) = album[uri], OUTCOMES[uri]
    assert (row["status"], row["reason"], detail in row["detail"]) == (status, reason, True), row["detail"]
    assert bool(Reason(row["reason"]).sentence()) == (status != Status.OK)


FAULTS: dict[str, tuple[str, float, str]] = {
    "closed eyes": ("eyes", eyes_score(0.05), "mostly because the eyes are closed (eyes 0.00; quality 0."),
    "an extreme pose": (
        "pose",
        pose_score(Pose(yaw_deg=75.0, pitch_deg=0.0, roll_deg=0.0)),
        "mostly because the face is turned away (pose 0.06; quality 0.",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_a_middling_face_is_named_with_its_number(what: str) -> None:
    part, score, detail = FAULTS[what]
    parts = dict.fromkeys(WEIGHTS, 0.6) | {part: score}
    seen = face()
    seen["quality"] = {**parts, "score": combine(parts)}
    rows = decided(photo("bad.jpg", seen), photo("good.jpg", face()))
    assert (rows["bad.jpg"]["status"], rows["bad.jpg"]["reason"]) == (Status.DROPPED, Reason.LOW_QUALITY)
    assert detail in rows["bad.jpg"]["detail"]
    assert rows["good.jpg"]["status"] == Status.OK


def perceive(albums: Path, selection: SelectionSettings) -> list[dict[str, Any]]:
    actor = Perceiver(Store(albums.parent / "out"), "embedded", PerceptionSettings(), selection)
    actor.open()
    rows = pa.Table.from_pylist([source.row() for source in list_albums(str(albums))], INPUT_SCHEMA)
    table = actor(rows)
    assert table.schema == PERCEIVED_SCHEMA
    actor.decode.close()
    return list(table.to_pylist())


def test_albums_of_which_nothing_survives_are_rows_with_reasons(people: Path, tmp_path: Path) -> None:
    """Nobody, only broken files, a minor where they are refused, unsafe photos: the album after them is as ever."""
    albums = tmp_path / "albums"
    for name in ("empty", "broken", "young"):
        (albums / name).mkdir(parents=True)
    (albums / "broken" / "a.jpg").write_text("words")
    (albums / "broken" / "b.jpg").write_bytes(b"")
    (albums / "young" / "portrait.jpg").write_bytes((people / "P001" / "portrait.jpg").read_bytes())
    refusing = SelectionSettings(minors="refuse", adult_age=80)  # everybody is below 80
    rows = {row["album_id"]: row for row in perceive(albums, refusing)}
    assert [(row["status"], row["reason"], row["references"]) for row in rows.values()] == [
        ("failed", Reason.NOTHING_USABLE, []),
        ("failed", Reason.EMPTY_ALBUM, []),
        ("failed", Reason.APPARENT_MINOR, []),
    ]
    assert rows["broken"]["detail"] == "0 of 2 usable, wanted 1: 1 empty_file, 1 not_an_image"
    assert "adults from 80" in rows["young"]["detail"]
    everything_is_unsafe = SelectionSettings(unsafe_above=0.0, adult_age=80)
    (_, _, row) = sorted(perceive(albums, everything_is_unsafe), key=lambda row: str(row["album_id"]))
    assert [photo["reason"] for photo in row["photos"]] == [Reason.UNSAFE]
    assert "limit 0" in row["photos"][0]["detail"]
    (_, _, row) = sorted(perceive(albums, SelectionSettings(adult_age=80)), key=lambda row: str(row["album_id"]))
    assert [(photo["status"], photo["apparent_minor"]) for photo in row["photos"]] == [("ok", True)]


def test_a_file_without_permission_is_unreadable(people: Path, tmp_path: Path) -> None:
    """As root every file can be read, so there it is tried as nobody."""
    (tmp_path / "albums" / "anna").mkdir(parents=True)
    closed = tmp_path / "albums" / "anna" / "closed.jpg"
    closed.write_bytes((people / "P001" / "portrait.jpg").read_bytes())
    closed.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PhotoError) as caught:
            read_bytes(str(closed))
    finally:
        if root:
            os.seteuid(0)
    assert caught.value.reason == Reason.UNREADABLE
    assert "Permission" in caught.value.detail
