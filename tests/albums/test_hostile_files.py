"""Photos made to harm whoever opens them: bombs end as rows with a reason, of polyglots only the pixels are kept."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.settings import PerceptionSettings, SelectionSettings
from tests.albums.test_bad_input import perceive
from tests.albums.test_decode import difference, encode, heif, png_header, scene
from tests.polyglots import MARK, polyglots

MIB = 2**20


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(PerceptionSettings(decode_mib=256, decode_seconds=5))
    yield decoder
    decoder.close()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """The scene as a PNG with one more chunk, right behind its header."""
    png = encode(scene())
    return png[:33] + chunk(kind, content) + png[33:]


def deflated(size: int) -> bytes:
    """So many zeros, a thousandth as long."""
    packer, parts = zlib.compressobj(9), []
    for _ in range(size // MIB):
        parts.append(packer.compress(bytes(MIB)))
    return b"".join([*parts, packer.flush()])


def tiff_that_leads_to_itself() -> bytes:
    """Its first directory says that it comes next."""
    tiff = bytearray(encode(scene(), "TIFF"))
    directory = int.from_bytes(tiff[4:8], "little")
    entries = int.from_bytes(tiff[directory : directory + 2], "little")
    after = directory + 2 + 12 * entries
    tiff[after : after + 4] = directory.to_bytes(4, "little")
    return bytes(tiff)


def resized(data: bytes, at: int, order: str, *sides: int) -> bytes:
    """With these sides, 16 bits each, in its header."""
    return data[:at] + struct.pack(order + "H" * len(sides), *sides) + data[at + 2 * len(sides) :]


def jpeg_of(height: int, width: int) -> bytes:
    jpeg = encode(scene(), "JPEG")
    return resized(jpeg, jpeg.index(b"\xff\xc0") + 5, ">", height, width)


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes over the whole picture."""
    jpeg = encode(scene(4000, 4000), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + scan * (20 * MIB // len(scan)) + jpeg[-2:]


def heif_of(width: int, height: int) -> bytes:
    data = heif(scene())
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


PICTURE, IN_TIME = Reason.NONE, Reason.TOO_SLOW
"""`IN_TIME`: a picture, or not when it takes longer than it may."""
HOSTILE: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "a PNG whose pixels go on for 300 MB": (
        lambda: png_header(240, 160)[:33] + chunk(b"IDAT", deflated(300 * MIB)) + chunk(b"IEND", b""),
        PICTURE,
    ),
    "a PNG with a text of 300 MB": (lambda: with_chunk(b"zTXt", b"Comment\0\0" + deflated(300 * MIB)), Reason.DAMAGED),
    "a PNG with a profile of 300 MB": (lambda: with_chunk(b"iCCP", b"p\0\0" + deflated(300 * MIB)), Reason.DAMAGED),
    "a PNG with a chunk longer than itself": (
        lambda: encode(scene())[:33] + b"\x7f\xff\xff\xffzTXtx",
        Reason.DAMAGED,
    ),
    "a JPEG that says 65,500 px a side": (lambda: jpeg_of(65_500, 65_500), Reason.TOO_MANY_PIXELS),
    "a GIF that says 65,535 px a side": (
        lambda: resized(encode(scene(), "GIF"), 6, "<", 65_535, 65_535),
        Reason.TOO_MANY_PIXELS,
    ),
    "a HEIC that says 60,000 px a side": (lambda: heif_of(60_000, 60_000), Reason.TOO_MANY_PIXELS),
    "a TIFF that leads to itself": (tiff_that_leads_to_itself, PICTURE),
    "a JPEG of very many scans": (jpeg_of_many_scans, IN_TIME),
}
"""What each is, and what it ends as. Bombs by their header or within the limits are in test_bad_input."""


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_opened_or_a_row_with_a_reason(decoder: IsolatedDecoder, what: str) -> None:
    write, expected = HOSTILE[what]
    file = write()
    assert len(file) < 25 * MIB  # what is taken
    reason = PICTURE
    try:
        decoder(file)
    except PhotoError as error:
        reason = Reason(error.reason)
    assert reason in ({expected} if expected != IN_TIME else {PICTURE, IN_TIME})
    assert difference(decoder(encode(scene())), scene()) == 0  # the next photo


@pytest.mark.parametrize("what", polyglots(Image.new("RGB", (8, 8))))
def test_of_a_polyglot_there_are_its_pixels(decoder: IsolatedDecoder, what: str) -> None:
    file = polyglots(Image.fromarray(scene()))[what]
    assert MARK in file
    assert difference(decoder(file), scene()) < 12
    assert MARK not in decoder(file).tobytes()


def test_what_is_kept_of_an_album_of_polyglots_holds_none_of_them(people: Path, tmp_path: Path) -> None:
    """References and masks are pictures of our own making."""
    with Image.open(people / "P001" / "portrait.jpg") as portrait:
        portrait.thumbnail((768, 768))
        files = polyglots(portrait.copy())
    album = tmp_path / "albums" / "anna"
    album.mkdir(parents=True)
    for name in ("a JPEG with a zip behind it", "a PNG with a page behind it", "a JPEG with a page in its EXIF"):
        (album / f"{name}.jpg").write_bytes(files[name])
    (row,) = perceive(album.parent, SelectionSettings())
    assert row["references"]
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.suffix == ".png" for path in kept)
    for path in kept:
        assert MARK not in path.read_bytes(), path
        if path.suffix == ".png":
            assert Image.open(io.BytesIO(path.read_bytes())).info == {}
