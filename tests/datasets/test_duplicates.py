import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from studiolo.datasets.duplicates import MOST_BITS, NONE, exact_duplicates, near_duplicates


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_the_first_of_equal_contents_stays(rows: list[tuple[int, bool]]) -> None:
    contents = np.array([[0] * 31 + [value] for value, _ in rows], np.uint8).reshape(-1, 32)
    candidates = np.array([candidate for _, candidate in rows], np.bool_)
    found = exact_duplicates(contents, candidates)
    for index, (value, candidate) in enumerate(rows):
        before = [other for other in range(index) if rows[other] == (value, True)]
        assert found[index] == (before[0] if candidate and before else NONE)


def test_contents_that_end_in_zeros_are_told_apart() -> None:
    contents = np.zeros((2, 32), np.uint8)
    contents[0, 0], contents[1, :2] = 7, (7, 1)
    assert exact_duplicates(contents, np.ones(2, np.bool_)).tolist() == [NONE, NONE]


def brute_force(
    hashes: NDArray[np.uint64], images: NDArray[np.float16], candidates: NDArray[np.bool_], bits: int, cosine: float
) -> list[int]:
    around = images.astype(np.float64) - images[candidates].astype(np.float64).mean(axis=0)
    found = [NONE] * len(hashes)
    for later in np.flatnonzero(candidates).tolist():
        for earlier in np.flatnonzero(candidates[:later]).tolist():
            near = int(hashes[later] ^ hashes[earlier]).bit_count() <= bits
            length = np.linalg.norm(around[later]) * np.linalg.norm(around[earlier])
            alike = around[later] @ around[earlier] >= cosine * max(length, 1e-12)
            if near and alike and found[earlier] == NONE and found[later] == NONE:
                found[later] = earlier
    return found


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, MOST_BITS), st.sampled_from([-1.0, 0.0, 0.8]))
def test_near_duplicates_are_those_of_every_pair_compared(seed: int, bits: int, cosine: float) -> None:
    rng = np.random.default_rng(seed)
    count = 60
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    images = rng.normal(size=(count, 8)).astype(np.float16)
    for _ in range(60):  # copies with a few bits turned, so that there is something to find
        one, other = rng.integers(0, count, 2)
        hashes[other] = hashes[one]
        for bit in rng.integers(0, 64, rng.integers(0, 10)):
            hashes[other] ^= np.uint64(1) << np.uint64(bit)
        images[other] = images[one] + 0.1 * rng.normal(size=8).astype(np.float16)
    candidates = rng.random(count) < 0.8
    found = near_duplicates(hashes, images, candidates, bits, cosine).tolist()
    assert found == brute_force(hashes, images, candidates, bits, cosine)


def test_without_candidates_there_is_nothing_to_find() -> None:
    nobody = np.zeros(3, np.bool_)
    assert near_duplicates(np.zeros(3, np.uint64), np.zeros((3, 4), np.float16), nobody, 3, 0.5).tolist() == [NONE] * 3
    assert exact_duplicates(np.zeros((3, 32), np.uint8), nobody).tolist() == [NONE] * 3
