"""How near one set of pictures lies to another, in the space of their features. Pure functions.

Shapes: N, M pictures, D features.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def frechet_distance(a_ND: Floats, b_MD: Floats) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of two sets of at least 2 (Heusel et al. 2017, eq. 6).

    A squared distance, 0 for equal means and covariances S. Its bias falls with the sizes, so compare only distances
    between sets of the same sizes. Raises `ValueError` for a set of fewer than 2.
    """
    if min(len(a_ND), len(b_MD)) < 2:
        raise ValueError(f"frechet_distance: got sets of {len(a_ND)} and {len(b_MD)}, wanted at least 2 in each")
    a, b = np.asarray(a_ND, np.float64), np.asarray(b_MD, np.float64)
    spread_a, spread_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    # S_a S_b has the eigenvalues of R S_b R with R the root of S_a, which is symmetric: no complex rounding.
    root = _root(spread_a)
    shared = np.linalg.eigvalsh(root @ spread_b @ root)
    covariance = np.trace(spread_a) + np.trace(spread_b) - 2 * np.sqrt(np.maximum(shared, 0)).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + max(covariance, 0.0))


def nearest_cosines(
    queries_ND: Floats, known_MD: Floats, *, made_of_known: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Largest cosine [N] of each query with a known row, around the mean of `known`, and that row's place [N].

    Around the mean, because all faces share a direction. With `made_of_known` query i is known row i or a changed copy
    of it, and does not find that row: what a picture finds that is not among the known. Raises `ValueError` without two
    known rows.
    """
    if len(known_MD) < 2:
        raise ValueError(f"nearest_cosines: got {len(known_MD)} known rows, wanted at least 2")
    centre = np.asarray(known_MD, np.float64).mean(axis=0)
    cosines = _directions(queries_ND - centre) @ _directions(known_MD - centre).T
    if made_of_known:
        np.fill_diagonal(cosines, -np.inf)
    places = cosines.argmax(axis=1)
    return cosines[np.arange(len(places)), places], places


def _root(spread_DD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values, vectors = np.linalg.eigh(spread_DD)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _directions(rows_ND: Floats) -> npt.NDArray[np.float64]:
    rows = np.asarray(rows_ND, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
