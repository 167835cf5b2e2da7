import numpy as np
import pytest

from studiolo.metrics.distributions import frechet_distance, nearest_cosines


def _with_moments(mean, spread, rng, count=40):
    """Rows with exactly this mean and covariance."""
    rows = rng.normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return rows @ np.linalg.cholesky(np.asarray(spread)).T + mean


def test_frechet_of_equal_sets_is_nothing_and_of_moved_ones_the_square_of_the_way():
    rows = np.random.default_rng(0).normal(size=(30, 5))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + np.array([3.0, 0, 4, 0, 0])) == pytest.approx(25)


def test_frechet_of_commuting_covariances_is_the_distance_of_their_deviations():
    rng = np.random.default_rng(1)
    a = _with_moments([0, 0, 0], np.diag([1.0, 4.0, 9.0]), rng)
    b = _with_moments([1, 0, 0], np.diag([4.0, 4.0, 1.0]), rng)
    assert frechet_distance(a, b) == pytest.approx(1 + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2)


def test_frechet_of_general_covariances_in_two_dimensions():
    # tr (AB)^1/2 of 2 x 2 matrices = sqrt(tr AB + 2 sqrt(det AB)).
    first, second = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.6], [-0.6, 3.0]])
    rng = np.random.default_rng(2)
    a, b = _with_moments([0, 0], first, rng), _with_moments([0, 0], second, rng)
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(a, b) == pytest.approx(np.trace(first) + np.trace(second) - 2 * root)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


def test_frechet_takes_fewer_rows_than_features_and_refuses_one():
    rng = np.random.default_rng(3)
    few, others = rng.normal(size=(6, 50)), rng.normal(size=(6, 50))
    assert 0 < frechet_distance(few, others) < np.inf
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(few[:1], others)


def test_nearest_by_direction_around_the_mean():
    known = np.array([[11.0, 10], [9, 10], [10, 11], [10, 9]])
    cosines, places = nearest_cosines(np.array([[15.0, 10], [10, 4], [13, 13]]), known)
    np.testing.assert_allclose(cosines, [1, 1, np.sqrt(0.5)])
    assert places[:2].tolist() == [0, 3]


def test_a_known_row_is_not_its_own_neighbour():
    known = np.random.default_rng(4).normal(size=(20, 8))
    cosines, places = nearest_cosines(known, known, made_of_known=True)
    assert (places != np.arange(20)).all()
    assert cosines.max() < 1
    first, _ = nearest_cosines(known[:5], known, made_of_known=True)
    np.testing.assert_allclose(first, cosines[:5])
    copied, found = nearest_cosines(known, known)
    np.testing.assert_allclose(copied, 1)
    assert found.tolist() == list(range(20))
    with pytest.raises(ValueError, match="at least 2"):
        nearest_cosines(known, known[:1])
