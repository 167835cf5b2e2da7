import numpy as np
import pytest
from PIL import Image

from studiolo.errors import SettingsError, WeightsError
from studiolo.portraits.upscaling import NcnnUpscaler, open_upscaler
from tests.portraits.job_rows import picture


def test_factor_1_is_the_picture_itself():
    rgb_u8 = picture(1, 32)
    np.testing.assert_array_equal(open_upscaler(1)(rgb_u8), rgb_u8)


@pytest.mark.parametrize("factor", [2, 4])
def test_upscaled_picture_shows_the_same(factor: int):
    rgb_u8 = picture(2, 24)
    large = open_upscaler(factor)(rgb_u8)
    assert (large.shape, large.dtype) == ((24 * factor, 24 * factor, 3), np.uint8)
    back = np.asarray(Image.fromarray(large).resize((24, 24), Image.Resampling.BOX), np.float64)
    assert np.abs(back - rgb_u8).mean() < 6


def test_bytes_do_not_depend_on_threads_or_on_what_came_before():
    one, two = open_upscaler(2, threads=1), open_upscaler(2, threads=2)
    first = one(picture(3, 40))
    one(picture(4, 64))
    np.testing.assert_array_equal(first, one(picture(3, 40)))
    np.testing.assert_array_equal(first, two(picture(3, 40)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (31, 17, 3)])
def test_any_size_works(shape: tuple[int, int, int]):
    rgb_u8 = np.full(shape, 90, np.uint8)
    large = open_upscaler(2)(rgb_u8)
    assert large.shape == (shape[0] * 2, shape[1] * 2, 3)
    assert np.abs(large.astype(int) - 90).max() < 25


def test_other_factors_are_settings_errors():
    with pytest.raises(SettingsError, match="got 3, wanted 1, 2 or 4"):
        open_upscaler(3)


def test_files_that_ncnn_cannot_load(tmp_path):
    (tmp_path / "x.param").write_text("nonsense")
    with pytest.raises(WeightsError, match=r"x\.param"):
        NcnnUpscaler(tmp_path / "x.param", tmp_path / "x.bin", 2)
