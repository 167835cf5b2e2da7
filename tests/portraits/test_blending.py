import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from studiolo.albums.geometry import map_points
from studiolo.perception.chips import warp
from studiolo.portraits.blending import blend, enlarged, feathered, placed, placed_mask

PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
HW = (150, 190)


def scene(hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """A smooth picture; no two places look alike."""
    y, x = np.mgrid[: hw[0], : hw[1]].astype(float)
    return np.rint(127.5 + 90 * np.stack([np.sin(x / 19), np.cos(y / 23), np.sin((x + y) / 31)], -1)).astype(np.uint8)


def matrix(turn_deg: float, scale: float, side: int = 64) -> NDArray[np.float64]:
    """A crop of `side` around the middle of the scene."""
    a = np.radians(turn_deg)
    turn = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([HW[1] / 2, HW[0] / 2])
    return np.concatenate([turn, ((side - 1) / 2 - turn @ centre)[:, None]], axis=1)


@given(seed=st.integers(0, 2**16), width=st.floats(0.0, 30.0))
@PROPERTY
def test_outside_the_mask_no_byte_changes(seed: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    rgb, drawn = rng.integers(0, 256, (2, 40, 50, 3), np.uint8)
    mask = np.zeros((40, 50), bool)
    y, x = rng.integers(0, 30, 2)
    mask[y : y + 10, x : x + 20] = True
    seen = feathered(mask, width)
    assert seen.dtype == np.float32
    assert not seen[~mask].any()
    assert (seen[mask] > 0).all()
    assert seen.max() <= 1
    mixed = blend(rgb, drawn, seen)
    assert np.array_equal(mixed[~mask], rgb[~mask])
    between = (np.minimum(rgb, drawn) <= mixed) & (mixed <= np.maximum(rgb, drawn))
    assert between.all()
    assert np.array_equal(blend(rgb, drawn, np.ones((40, 50), np.float32)), drawn)
    assert np.array_equal(blend(rgb, rgb, seen), rgb)


def test_the_feather_rises_from_the_rim_to_the_middle() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    seen = feathered(mask, 10.0)
    row = seen[30, 10:31]
    assert (np.diff(row) >= 0).all()
    assert row[0] < 0.1
    assert (row[10:] == 1).all()
    assert not feathered(np.zeros((5, 5), bool), 3.0).any()


@pytest.mark.parametrize("turn_deg", [0.0, 20.0, -75.0])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_a_crop_comes_back_to_where_it_was(turn_deg: float, scale: float) -> None:
    rgb, m, side = scene(), matrix(turn_deg, scale), 64
    back = placed(warp(rgb, m, side), m, HW)
    mask = np.zeros((side, side), bool)
    mask[6:-6, 6:-6] = True
    where = placed_mask(mask, m, HW)
    assert where.any()
    assert np.abs(back[where].astype(int) - rgb[where]).max() <= 8
    y, x = np.nonzero(where)
    inside = map_points(m, np.stack([x, y], -1))
    assert (inside > 4.5).all()
    assert (inside < side - 5.5).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_an_enlarged_crop_shows_the_same_part(factor: int) -> None:
    rgb, m = scene(), matrix(15.0, 0.8)
    small, large = warp(rgb, m, 64), warp(rgb, enlarged(m, factor), 64 * factor)
    blocks = large.reshape(64, factor, 64, factor, 3).mean(axis=(1, 3))
    assert np.abs(blocks - small).max() <= 3
    assert np.array_equal(m, matrix(15.0, 0.8))
