import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from studiolo.albums.geometry import invert, map_points
from studiolo.perception import chips


@given(angle=st.floats(-3, 3), scale=st.floats(0.05, 20), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_similarity_matrix_recovers_the_map(angle: float, scale: float, x: float, y: float):
    points = np.array([[0, 0], [10, 1], [4, 8], [-3, 5]], float)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, [[x], [y]]], axis=1)
    found = chips.similarity_matrix(points, map_points(matrix, points))
    assert np.allclose(found, matrix, atol=1e-6 * max(1, scale, abs(x), abs(y)))
    assert np.allclose(map_points(invert(matrix), map_points(matrix, points)), points, atol=1e-6)


def test_warp_averages_when_it_shrinks():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    chip = chips.warp(stripes, np.array([[0.1, 0, 0], [0, 0.1, 0]]), 30)
    assert np.abs(chip[2:-2, 2:-2].astype(int) - 128).max() < 30


def test_inside_is_what_the_photo_covers():
    shown = chips.inside((50, 100), np.array([[1.0, 0, 0], [0, 1, 0]]), 120)
    assert shown.sum() == 50 * 100
    assert shown[:50, :100].all()
