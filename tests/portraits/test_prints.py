import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from studiolo.portraits.prints import HEADROOM, PrintSize, crop_around, encode_print, is_print
from tests.portraits.job_rows import picture

SIZES = [PrintSize.parse(text) for text in ("4x5", "8x10@240", "5x7", "7x5", "3.5x5", "2x2@600")]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_a_print_has_exactly_its_pixels_its_dpi_and_srgb(size: PrintSize):
    crop = crop_around((30, 20, 66, 70), 96, 96, size)
    assert crop is not None
    content = encode_print(picture(1), crop, size)
    assert encode_print(picture(1), crop, size) == content
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        assert image.size == (round(size.width_in * size.dpi), round(size.height_in * size.dpi))
        assert image.info["dpi"] == pytest.approx((size.dpi, size.dpi))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileName(profile)


@given(st.data(), st.sampled_from(SIZES), st.integers(64, 900), st.integers(64, 900))
def test_the_whole_face_is_inside_and_the_crop_inside_the_picture(data, size, width, height):
    x = sorted(data.draw(st.tuples(st.floats(-20, width + 20), st.floats(-20, width + 20))))
    y = sorted(data.draw(st.tuples(st.floats(-20, height + 20), st.floats(-20, height + 20))))
    crop = crop_around((x[0], y[0], x[1], y[1]), width, height, size)
    face = np.clip([x[0], y[0], x[1], y[1]], 0, [width, height, width, height])
    aspect = size.size_px[0] / size.size_px[1]
    largest = (min(width, height * aspect), min(height, width / aspect))
    if crop is None:
        assert face[2] - face[0] > largest[0] or face[3] - face[1] > largest[1]
        return
    left, top, right, bottom = crop
    assert (right - left, bottom - top) == pytest.approx(largest)
    slack = 1e-6 * max(width, height)
    assert left >= 0
    assert top >= 0
    assert right <= width + slack
    assert bottom <= height + slack
    assert left <= face[0] + slack
    assert top <= face[1] + slack
    assert right >= face[2] - slack
    assert bottom >= face[3] - slack


def test_headroom_is_a_share_of_the_free_height_while_the_picture_has_it():
    crop = crop_around((400, 400, 600, 600), 1000, 1000, PrintSize.parse("5x4"))
    assert crop is not None
    assert (400 - crop[1]) / (800 - 200) == pytest.approx(HEADROOM)
    assert crop_around((400, 10, 600, 210), 1000, 1000, PrintSize.parse("5x4"))[1] == 0  # type: ignore[index]


def test_a_print_keeps_what_it_crops_to():
    """A white square where the face is: it fills the print as its share of the crop says."""
    rgb_u8 = np.zeros((200, 200, 3), np.uint8)
    rgb_u8[60:140, 70:130] = 255
    size = PrintSize.parse("4x5@100")
    crop = crop_around((70, 60, 130, 140), 200, 200, size)
    assert crop is not None
    print_u8 = np.asarray(Image.open(io.BytesIO(encode_print(rgb_u8, crop, size))))
    assert (print_u8 > 128).all(axis=2).sum() == pytest.approx(60 * 80 * (500 / 200) ** 2, rel=0.02)


def test_a_file_says_whether_it_is_a_print():
    rgb_u8 = np.zeros((64, 64, 3), np.uint8)
    assert is_print(encode_print(rgb_u8, (0, 0, 64, 64), PrintSize.parse("4x4@100")))
    others = [b"", b"no picture"]
    for profile in (None, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        buffer = io.BytesIO()
        Image.fromarray(rgb_u8).save(buffer, "JPEG", dpi=(100, 100), icc_profile=profile)
        others.append(buffer.getvalue())
    assert not any(map(is_print, others))


def test_a_face_wider_than_the_crop_is_refused():
    assert crop_around((10, 10, 90, 60), 100, 100, PrintSize.parse("2x4")) is None


@pytest.mark.parametrize("text", ["4", "4x", "x5", "4x5x6", "4x5@", "0x5", "4x99", "4x5@20", "four by five", ""])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match=r"wanted|should|greater|less"):
        PrintSize.parse(text)


def test_a_size_is_called_as_it_is_ordered():
    assert [PrintSize.parse(text).name for text in ("4X5", "4.0x5@300", "8x10@240")] == ["4x5", "4x5", "8x10@240"]
