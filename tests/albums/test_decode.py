import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from studiolo.albums.decode import content_sha256, decode
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.settings import PerceptionSettings

SETTINGS = PerceptionSettings()
SMALL = PerceptionSettings(working_side_px=256)


def scene(width: int = 240, height: int = 160) -> NDArray[np.uint8]:
    """A smooth picture without symmetry: red grows to the right, green downwards, blue is the top left."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    blue = 200.0 * ((x < width / 2) & (y < height / 2))
    return np.stack([255 * x / width, 255 * y / height, blue], axis=-1).astype(np.uint8)


def encode(image: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def heif(rgb_u8: NDArray[np.uint8]) -> bytes:
    pillow_heif.register_heif_opener()
    return encode(rgb_u8, "HEIF", quality=95)


def reason_of(data: bytes, perception: PerceptionSettings = SETTINGS) -> Reason:
    with pytest.raises(PhotoError) as caught:
        decode(data, perception)
    assert caught.value.detail
    return Reason(caught.value.reason)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "MPO", "AVIF"])
def test_every_format_gives_the_same_picture(tmp_path: Path, kind: str) -> None:
    lossy = {"quality": 95} if kind in ("JPEG", "WEBP", "MPO", "AVIF") else {}
    file = tmp_path / "a_name_that_lies.txt"
    file.write_bytes(encode(scene(), kind, **lossy))
    rgb_u8 = decode(file.read_bytes(), SETTINGS)
    assert rgb_u8.dtype == np.uint8
    assert rgb_u8.flags.c_contiguous
    assert difference(rgb_u8, scene()) < (12 if kind == "GIF" else 3)


def test_heic_of_a_phone_opens() -> None:
    assert difference(decode(heif(scene()), SETTINGS), scene()) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    upright = Image.fromarray(scene())
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    assert difference(decode(data, SETTINGS), scene()) < 3
    reduced = decode(data, PerceptionSettings(working_side_px=256, min_side_px=1))
    assert reduced.shape == scene().shape


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_broken_exif_says_nothing_about_the_pixels(exif: bytes) -> None:
    assert difference(decode(encode(scene(), "JPEG", quality=95, exif=exif), SETTINGS), scene()) < 3


def test_an_orientation_outside_the_standard_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(encode(scene(), "JPEG", exif=exif), SETTINGS).shape == scene().shape


def test_what_is_no_picture() -> None:
    assert reason_of(b"") == Reason.EMPTY_FILE
    for data in (
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF",
        b"\0" * 999,
    ):
        assert reason_of(data) == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "HEIF", "AVIF"])
@given(share=st.floats(0.0, 0.9))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_a_truncated_file_is_damaged(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    data = heif(noise) if kind == "HEIF" else encode(noise, kind)
    # Fewer than 16 bytes do not say yet what the file was going to be.
    assert reason_of(data[: max(16, int(len(data) * share))]) == Reason.DAMAGED


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "MPO"]))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_broken_bytes_give_pixels_or_a_reason_and_never_another_error(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(encode(scene(), kind))
    for place in random.integers(0, len(data) if seed % 2 else min(len(data), 200), 8):
        data[place] = random.integers(256)
    rgb_u8 = np.zeros((1, 1, 3), np.uint8)
    with contextlib.suppress(PhotoError):
        rgb_u8 = decode(bytes(data), SETTINGS)
    assert rgb_u8.ndim == 3
    assert rgb_u8.shape[2] == 3


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises `width` x `height` pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("size", [(12_001, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    assert reason_of(png_header(*size)) == Reason.TOO_MANY_PIXELS


def test_the_pixel_limit_is_the_setting() -> None:
    data = encode(scene(240, 160))
    assert decode(data, PerceptionSettings(max_pixels=240 * 160)).shape == (160, 240, 3)
    assert reason_of(data, PerceptionSettings(max_pixels=240 * 160 - 1)) == Reason.TOO_MANY_PIXELS


def test_too_small_before_and_after_scaling() -> None:
    assert decode(encode(scene(64, 64)), SETTINGS).shape == (64, 64, 3)
    assert reason_of(encode(scene(200, 63))) == Reason.TOO_SMALL
    assert reason_of(encode(scene(4000, 100)), PerceptionSettings(working_side_px=1600)) == Reason.TOO_SMALL


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1600, 1000), (1000, 1600), (257, 256), (2048, 2048)])
def test_the_long_side_is_reduced_and_never_enlarged(kind: str, size: tuple[int, int]) -> None:
    rgb_u8 = decode(encode(scene(*size), kind), SMALL)
    assert max(rgb_u8.shape[:2]) == 256
    assert abs(rgb_u8.shape[1] / rgb_u8.shape[0] - size[0] / size[1]) < 0.01
    expected = np.asarray(Image.fromarray(scene(*size)).resize(rgb_u8.shape[1::-1], Image.Resampling.BOX))
    assert difference(rgb_u8, expected) < 3
    assert decode(encode(scene(100, 80), kind), SMALL).shape == (80, 100, 3)


def test_transparency_lies_on_white() -> None:
    rgba = np.dstack([scene(), np.zeros((160, 240), np.uint8)])
    rgba[:80, :, 3] = 255
    rgb_u8 = decode(encode(rgba), SETTINGS)
    assert (rgb_u8[:80] == scene()[:80]).all()
    assert (rgb_u8[80:] == 255).all()
    grey = Image.merge("LA", [Image.new("L", (80, 80), 0), Image.new("L", (80, 80), 127)])
    assert (decode(encode(grey), SETTINGS) == 128).all()
    palette = Image.new("P", (80, 80), 0)
    palette.putpalette([10, 20, 30])
    assert (decode(encode(palette, transparency=0), SETTINGS) == 255).all()
    assert (decode(encode(palette), SETTINGS) == (10, 20, 30)).all()


def test_grey_of_8_and_16_bits_agree() -> None:
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert (decode(encode(grey), SETTINGS) == expected).all()
    for kind in ("PNG", "TIFF"):
        assert (decode(encode(Image.fromarray(grey.astype(np.uint16) * 257), kind), SETTINGS) == expected).all()
    floats = Image.fromarray((grey / 255).astype(np.float32))
    assert (decode(encode(floats, "TIFF"), SETTINGS) == expected).all()
    assert set(np.unique(decode(encode(Image.fromarray(grey > 127)), SETTINGS))) == {0, 255}


def test_cmyk_looks_like_its_rgb() -> None:
    data = encode(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    assert difference(decode(data, SETTINGS), scene()) < 4
    assert decode(data, PerceptionSettings(working_side_px=256, min_side_px=1)).shape == scene().shape


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("red", "blue")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    rgb_u8 = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), SETTINGS)
    assert difference(rgb_u8, np.full((80, 80, 3), (255, 0, 0), np.uint8)) < 1


def wide_gamut() -> bytes:
    """sRGB's profile with red and green primaries swapped: a colour space that shows when it is ignored."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_a_profile_is_converted_to_srgb() -> None:
    swapped = scene()[..., [1, 0, 2]]
    assert difference(decode(encode(scene(), icc_profile=wide_gamut()), SETTINGS), swapped) < 2
    transparent = np.dstack([scene(), np.full((160, 240), 255, np.uint8)])
    assert difference(decode(encode(transparent, icc_profile=wide_gamut()), SETTINGS), swapped) < 2
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(decode(encode(scene(), icc_profile=srgb), SETTINGS), scene()) < 1


def test_a_profile_that_does_not_fit_is_ignored() -> None:
    assert (decode(encode(scene(), icc_profile=b"no profile"), SETTINGS) == scene()).all()
    grey = scene()[..., 0]
    assert (decode(encode(grey, icc_profile=wide_gamut()), SETTINGS)[..., 0] == grey).all()


def test_no_warning_leaks_and_bytes_repeat() -> None:
    data = encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    huge = encode(Image.new("1", (9500, 9500)))  # Pillow warns of a bomb above 89 million pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(data, SETTINGS) == decode(data, SETTINGS)).all()
        assert decode(huge, SMALL).shape == (256, 256, 3)


def test_content_sha256() -> None:
    assert content_sha256(b"abc").startswith("ba7816bf")
    assert content_sha256(b"") != content_sha256(b"\0")
