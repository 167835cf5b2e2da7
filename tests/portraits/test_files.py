import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from studiolo.errors import StoreError
from studiolo.portraits.files import PARAMETERS_KEY, decode_portrait, encode_portrait, image_sha256, is_portrait
from tests.portraits.job_rows import picture, png

SETTINGS = {
    "prompt": "a girl, smile",
    "negative_prompt": "hat",
    "seed": 7,
    "steps": 30,
    "guidance_scale": 2.0,
    "face_weight": 1.0,
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@settings(max_examples=30, deadline=None)
@given(prompt=TEXT, seed=st.integers(0, 2**63 - 1), side=st.integers(1, 40))
def test_round_trip(prompt: str, seed: int, side: int):
    rgb_u8, inside = picture(seed % 1000, side), {"prompt": prompt, "seed": seed, "loras": [["a", 0.5]]}
    read, found = decode_portrait(encode_portrait(rgb_u8, inside))
    np.testing.assert_array_equal(read, rgb_u8)
    assert found == inside


def test_same_input_gives_the_same_bytes_whatever_the_order_of_settings():
    turned = dict(reversed(SETTINGS.items()))
    assert encode_portrait(picture(1), SETTINGS) == encode_portrait(picture(1), turned)


def test_web_interfaces_find_their_parameters():
    with Image.open(io.BytesIO(encode_portrait(picture(1, 64), SETTINGS))) as image:
        text = image.text[PARAMETERS_KEY]
    assert text == "a girl, smile\nNegative prompt: hat\nSteps: 30, CFG scale: 2.0, Seed: 7, Size: 64x64"


def test_settings_that_json_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        encode_portrait(picture(1), {"similarity": float("nan")})


@pytest.mark.parametrize("content", [b"", b"no picture", png(picture(1)), encode_portrait(picture(1), {})[:200]])
def test_files_that_are_none_of_ours(content: bytes):
    with pytest.raises(StoreError, match="portrait file"):
        decode_portrait(content)


def test_a_file_says_whether_it_is_a_portrait():
    assert is_portrait(encode_portrait(picture(1), SETTINGS))
    assert is_portrait(encode_portrait(picture(1), {}))
    assert not any(map(is_portrait, (b"", b"no picture", png(picture(1)), b"iTXtstudiolo\0")))


def test_hash_follows_pixels_not_storage():
    rgb_u8 = picture(3)
    again, _ = decode_portrait(encode_portrait(rgb_u8, SETTINGS))
    assert image_sha256(again) == image_sha256(rgb_u8) == image_sha256(np.asfortranarray(rgb_u8))
    other = rgb_u8.copy()
    other[0, 0, 0] ^= 1
    assert image_sha256(other) != image_sha256(rgb_u8)
    assert image_sha256(rgb_u8.reshape(48, 192, 3)) != image_sha256(rgb_u8)
