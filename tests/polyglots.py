"""Files that are a photo and something else as well. Each holds `MARK`, which nobody may ever be sent."""

import io
import zipfile

from PIL import Image

MARK = b"POLYGLOT-PAYLOAD"
_PAGE = b"<html><script>alert('" + MARK + b"')</script></html>"


def polyglots(photo: Image.Image) -> dict[str, bytes]:
    """By what they are: the photo in each is whole."""
    jpeg, png = _encoded(photo, "JPEG"), _encoded(photo, "PNG")
    exif = Image.Exif()
    exif[0x010E], exif[0x8298] = _PAGE.decode(), MARK.decode()
    return {
        "a JPEG with a zip behind it": jpeg + _archive(),
        "a JPEG with a page in its comment": jpeg[:2] + _segment(0xFE, _PAGE) + jpeg[2:],
        "a JPEG with a page in its EXIF": _encoded(photo, "JPEG", exif=exif),
        "a JPEG with a program behind it": jpeg + b"\x7fELF" + MARK,
        "a JPEG with a PDF in it": jpeg[:2] + _segment(0xEA, b"%PDF-1.7\n" + MARK) + jpeg[2:] + b"%%EOF",
        "a JPEG with a second one behind it": jpeg + _encoded(photo, "JPEG", comment=MARK),
        "a PNG with a page behind it": png + _PAGE,
        "a PNG with a zip behind it": png + _archive(),
        "a GIF that is a script": _encoded(photo, "GIF") + b"*/alert('" + MARK + b"')",
        "a WebP with a page behind it": _encoded(photo, "WEBP") + _PAGE,
    }


def _encoded(photo: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    photo.convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../" + MARK.decode(), MARK)
    return buffer.getvalue()
