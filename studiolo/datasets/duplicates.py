"""Rows that hold the same file, or nearly the same picture. Pure functions over all rows of a release.

Of duplicates the first stays. Memory is some bytes a row, and the pairs that are alike.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""In place of the index of a row that is kept instead."""

_BANDS, _BAND_BITS = 8, 8
MOST_BITS = _BANDS - 1
"""Two hashes that differ in no more bits have one of their eight bands in common."""

_BLOCK = 1024


def exact_duplicates(contents: NDArray[np.uint8], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the index of the first candidate with the same content, `NONE` where there is none before it.

    `contents` [N, 32]; rows that are no `candidates` [N] are neither duplicates nor duplicated.
    """
    found = np.full(len(contents), NONE, np.int64)
    indices = np.flatnonzero(candidates)
    if len(indices):
        texts = np.ascontiguousarray(contents[indices]).view("V32").reshape(-1)
        _, first, group = np.unique(texts, return_index=True, return_inverse=True)
        earliest = indices[first[group]]
        found[indices] = np.where(earliest < indices, earliest, NONE)
    return found


def near_duplicates(
    hashes: NDArray[np.uint64],
    images: NDArray[np.float16],
    candidates: NDArray[np.bool_],
    bits: int,
    cosine: float,
) -> NDArray[np.int64]:
    """For each row the index of the first kept candidate that it is nearly the same as, `NONE` for those kept.

    `hashes` [N] may differ in at most `bits` (up to `MOST_BITS`), and the embeddings `images` [N, D], around their
    mean, have at least this `cosine`. Rows are judged in their order, against those kept before: what is like a
    duplicate and not like its original stays.
    """
    found = np.full(len(hashes), NONE, np.int64)
    indices = np.flatnonzero(candidates)
    mean = _mean(images, indices)
    pairs = [pair for pair in _alike(hashes[indices], bits) if len(pair)]
    if not pairs:
        return found
    unique = np.unique(indices[np.concatenate(pairs)], axis=0)
    unique = unique[_cosines(images, mean, unique) >= cosine]
    for earlier, later in unique[np.lexsort((unique[:, 0], unique[:, 1]))].tolist():
        if found[later] == NONE and found[earlier] == NONE:
            found[later] = earlier
    return found


def _alike(hashes: NDArray[np.uint64], bits: int) -> Iterator[NDArray[np.int64]]:
    """Pairs [P, 2] of positions, the earlier first, that share a band and differ in at most `bits`; some come twice."""
    for band in range(_BANDS):
        values = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(values, kind="stable")
        borders = np.flatnonzero(np.diff(values[order])) + 1
        for group in np.split(order, borders):
            for begin in range(0, len(group), _BLOCK):
                some = group[begin : begin + _BLOCK]
                others = group[begin:]
                near = np.bitwise_count(hashes[some][:, None] ^ hashes[others][None]) <= bits
                row, column = np.nonzero(np.triu(near, k=1))
                yield np.stack([some[row], others[column]], axis=1)


def _mean(images: NDArray[np.float16], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    total = np.zeros(images.shape[1], np.float64)
    for begin in range(0, len(indices), _BLOCK):
        total += images[indices[begin : begin + _BLOCK]].sum(axis=0, dtype=np.float64)
    return total / max(len(indices), 1)


def _cosines(images: NDArray[np.float16], mean: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    found = np.zeros(len(pairs))
    for begin in range(0, len(pairs), _BLOCK):
        some = pairs[begin : begin + _BLOCK]
        one, other = (images[some[:, side]].astype(np.float64) - mean for side in (0, 1))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        found[begin : begin + _BLOCK] = (one * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found
