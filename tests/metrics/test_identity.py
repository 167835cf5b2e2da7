import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studiolo.metrics.identity import (
    bootstrap_over_people,
    compare_paired,
    distances_l2,
    likeness_by_person,
    own_and_other,
    rank_1,
    reference_distance_l2,
    sign_test,
)

REFERENCES = {"anna": np.array([[0.0, 0.0], [0.0, 2.0]]), "berta": np.array([[10.0, 0.0]])}


def test_distances_by_hand():
    np.testing.assert_allclose(distances_l2(np.array([[0, 0], [3, 4]]), np.array([[3, 4]])), [[5], [0]])


def test_distance_to_a_person_is_the_median_to_the_references():
    references = np.array([[1.0, 0], [2.0, 0], [90.0, 0]])
    assert reference_distance_l2(np.array([0.0, 0]), references) == 2.0
    assert reference_distance_l2(np.array([0.0, 0]), references[:2]) == 1.5
    with pytest.raises(ValueError, match="no references"):
        reference_distance_l2(np.array([0.0, 0]), references[:0])


@given(st.permutations(range(5)), st.integers(0, 99))
def test_distance_to_a_person_ignores_the_order_of_references_and_turns_of_the_space(order: list[int], seed: int):
    rng = np.random.default_rng(seed)
    face, references = rng.normal(size=8), rng.normal(size=(5, 8))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    wanted = reference_distance_l2(face, references)
    assert reference_distance_l2(face, references[order]) == wanted
    assert reference_distance_l2(face @ turn, references @ turn) == pytest.approx(wanted)


def test_rank_1_by_hand_and_a_tie_is_a_miss():
    queries = np.array([[0.0, 1.0], [9.0, 0.0], [4.0, 0.0], [100.0, 1.0]])
    hits = rank_1(queries, ["anna", "berta", "berta", "anna"], REFERENCES)
    assert hits.tolist() == [True, True, False, False]
    tie = {"anna": np.array([[0.0, 0.0]]), "berta": np.array([[2.0, 0.0]])}
    assert rank_1(np.array([[1.0, 0.0]] * 2), ["anna", "berta"], tie).tolist() == [False, False]


def test_rank_1_does_not_depend_on_names():
    queries, people = np.array([[0.0, 1.0], [4.0, 0.0]]), ["anna", "berta"]
    renamed = {"z": REFERENCES["anna"], "a": REFERENCES["berta"]}
    assert rank_1(queries, people, REFERENCES).tolist() == rank_1(queries, ["z", "a"], renamed).tolist()
    with pytest.raises(ValueError, match="list"):
        rank_1(queries, ["anna", "nobody"], REFERENCES)


def test_likeness_takes_people_with_both():
    portraits = {
        "anna": np.array([[3.0, 0.0], [5.0, 0.0]]),
        "berta": np.zeros((0, 2)),
        "carla": np.zeros((1, 2)),
    }
    held_out = {"anna": np.array([[0.0, 0.0]]), "berta": np.array([[0.0, 0.0]])}
    assert likeness_by_person(portraits, held_out) == {"anna": 4.0}


def test_own_and_other_by_hand():
    own, other = own_and_other({"anna": np.array([[0.0, 0.0]]), "berta": np.array([[10.0, 1.0]])}, REFERENCES)
    assert own.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(other, [10.0, np.median([np.hypot(10, 1), np.hypot(10, 1)])])


def test_bootstrap_holds_the_estimate_and_narrows_with_people():
    rng = np.random.default_rng(1)
    few, many = (
        bootstrap_over_people(list(rng.normal(size=10))),
        bootstrap_over_people(list(rng.normal(size=1000))),
    )
    for interval in (few, many):
        assert interval.low <= interval.estimate <= interval.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.0 < many.high
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_bootstrap_is_repeatable_and_ignores_order(values: list[float], random):
    shuffled = values[:]
    random.shuffle(shuffled)
    assert bootstrap_over_people(values, samples=50) == bootstrap_over_people(shuffled, samples=50)


def test_bootstrap_of_one_or_no_person():
    one = bootstrap_over_people([0.7])
    assert (one.low, one.estimate, one.high, one.people) == (0.7, 0.7, 0.7, 1)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_over_people([])


def test_comparison_counts_people():
    method = {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.8}
    control = {"a": 0.2, "b": 0.5, "c": 0.6, "d": 0.1}
    result = compare_paired(method, control)
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.difference.estimate == pytest.approx(0.3)
    swapped = compare_paired(method, control, higher_is_better=False)
    assert (swapped.wins, swapped.losses) == (1, 2)
    assert compare_paired(control, method).difference.estimate == pytest.approx(-0.3)


def test_comparison_needs_both_sides_for_everyone():
    with pytest.raises(ValueError, match="'b'"):
        compare_paired({"a": 1.0}, {"a": 0.0, "b": 0.0})


def test_sign_test_by_hand():
    assert sign_test(8, 2) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert sign_test(10, 0) == pytest.approx(2 / 1024)
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0
    assert sign_test(2, 8) == sign_test(8, 2)
