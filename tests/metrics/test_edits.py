import numpy as np
import pytest

from studiolo.metrics.edits import landmark_distance, seam_error

LANDMARKS = np.random.default_rng(0).uniform(0, 100, (68, 2))


def test_the_landmark_distance_has_no_unit() -> None:
    eyes = float(np.linalg.norm(LANDMARKS[36] - LANDMARKS[45]))
    moved = LANDMARKS + np.array([3.0, 4.0])
    assert landmark_distance(LANDMARKS, LANDMARKS) == 0
    assert landmark_distance(moved, LANDMARKS) == pytest.approx(5 / eyes)
    assert landmark_distance(7 * moved, 7 * LANDMARKS) == pytest.approx(landmark_distance(moved, LANDMARKS))


def test_the_seam_is_what_differs_beside_the_mask() -> None:
    rng = np.random.default_rng(1)
    template = rng.integers(20, 200, (60, 60, 3), np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    inside, near, far = template.copy(), template + np.uint8(10), template.copy()
    inside[mask] = 0
    far[:10] = 255
    assert seam_error(template, template, mask, 4.0) == 0
    assert seam_error(template, inside, mask, 4.0) == 0
    assert seam_error(template, far, mask, 4.0) == 0
    assert seam_error(template, near, mask, 4.0) == pytest.approx(10)
    assert seam_error(template, near, np.ones((60, 60), bool), 4.0) == 0
