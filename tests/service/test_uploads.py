"""What of an album is taken, before any of it is decoded."""

import io

import pytest
from PIL import Image

from studiolo.errors import RefusedError, UnsupportedError
from studiolo.service.settings import UploadSettings
from studiolo.service.uploads import AlbumMeter, check_photo

SETTINGS = UploadSettings(max_photos=3, max_photo_mib=1, max_album_mib=2)
MIB = 2**20


def refusal(photos: list[list[int]]) -> tuple[int, str] | None:
    """What is said about an album of photos that come in as chunks of so many bytes."""
    meter = AlbumMeter(SETTINGS)
    try:
        for chunks in photos:
            meter.begin_photo()
            for chunk in chunks:
                meter.take(chunk)
    except RefusedError as error:
        return error.status, error.reason
    return None


@pytest.mark.parametrize(
    ("photos", "wanted"),
    [
        ([[MIB], [MIB // 2, MIB // 2], []], None),
        ([[1], [1], [1], []], (413, "too_many_photos")),
        ([[MIB, 1]], (413, "photo_too_large")),
        ([[MIB], [MIB], [1]], (413, "album_too_large")),
    ],
)
def test_the_first_byte_too_many_ends_it(photos: list[list[int]], wanted: tuple[int, str] | None):
    assert refusal(photos) == wanted


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_pictures_are_known_by_their_first_bytes(kind: str):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    check_photo(file.getvalue()[:16])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"<svg>", b"%PDF-1.7", b"PK\x03\x04", b"\x80\x04pickle" + b"x" * 20]
)
def test_other_files_are_refused(content: bytes):
    with pytest.raises(UnsupportedError, match="not a picture") as refused:
        check_photo(content)
    assert (refused.value.status, refused.value.reason) == (415, "not_an_image")
