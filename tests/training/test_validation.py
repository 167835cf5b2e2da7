"""Which photos judge, what a score is, and which step of a training is its result."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studiolo.generation.tiny import tiny_base
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack
from studiolo.training.validation import LEAST_DIVERSITY, Score, contenders, mean_distance, score, split
from tests.training.test_pack import SETTINGS, photos, weights


@pytest.mark.parametrize("count", range(1, 21))
def test_one_photo_in_five_is_held_out_of_five_or_more(count: int) -> None:
    learned, held, in_sample = split(list(range(count)))
    assert in_sample is (count < 5)
    if in_sample:
        assert learned == held == list(range(count))
    else:
        assert sorted(learned + held) == list(range(count))
        assert len(held) == count // 5


def test_a_score_counts_pictures_without_a_face_and_looks_at_all_pairs() -> None:
    faces = [np.array([0.0, 0.0], np.float32), None, np.array([3.0, 4.0], np.float32), None]
    found = score(faces, [np.array([0.0, 0.0], np.float32)], lambda distance: 1 - distance / 10)
    assert found.likeness == pytest.approx((1.0 + 0.5) / 4)
    assert found.diversity == pytest.approx(5.0)
    assert mean_distance([np.zeros(2, np.float32)]) is None
    assert score([None, None], [np.zeros(2, np.float32)], lambda distance: 1.0) == Score(0.0, 0.0)


POINTS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5]), st.sampled_from([0.0, 0.1, 0.3, 0.9])), min_size=1)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.1, 0.8), (0.3, 0.7), (0.2, 0.9)], 1),  # the most alike
        ([(0.1, 0.8), (0.9, 0.0)], 0),  # one picture over and over, however alike
        ([(0.9, 0.0), (0.1, 0.8)], 1),  # known as such only later
        ([(0.5, 0.41), (0.1, 0.8)], 0),  # less diverse, not collapsed
        ([(0.5, 0.39), (0.1, 0.8)], 1),
        ([(0.1, 0.0), (0.3, 0.0)], 1),  # all are one picture
        ([(0.3, 0.5), (0.3, 0.9)], 0),  # the first of equals
    ],
)
def test_the_most_alike_that_has_not_collapsed_is_the_result(scores: list[tuple[float, float]], best: int) -> None:
    assert contenders([(step, *score) for step, score in enumerate(scores)])[0] == best


FIRST_OTHERS_THEN_ONE = [(0.1, 0.8), (0.4, 0.39), (0.6, 0.37), (0.7, 0.36)]
"""A training on a base that draws different people: its pictures come to show one person, and so to differ less."""


@pytest.mark.parametrize(
    ("scores", "reference_diversity", "kept"),
    [
        (FIRST_OTHERS_THEN_ONE, 0.45, [3]),  # they differ as photos of one person do
        (FIRST_OTHERS_THEN_ONE, 0.72, [3]),
        (FIRST_OTHERS_THEN_ONE, 0.76, [1]),  # a person who looks so different should differ more
        (FIRST_OTHERS_THEN_ONE, 0.79, [0]),
        (FIRST_OTHERS_THEN_ONE, None, [0]),
        ([*FIRST_OTHERS_THEN_ONE, (0.9, 0.2)], 0.45, [3]),  # one picture over and over
        ([(0.1, 0.05), (0.3, 0.04)], 0.45, [1, 0]),  # the base itself differs less
        ([(0.1, 0.0), (0.3, 0.0)], 0.0, [1]),
    ],
)
def test_a_training_that_comes_to_show_one_person_has_not_collapsed(
    scores: list[tuple[float, float]], reference_diversity: float | None, kept: list[int]
) -> None:
    curve = [(step, *score) for step, score in enumerate(scores)]
    assert contenders(curve, reference_diversity) == kept


@given(POINTS, st.sampled_from([None, 0.0, 0.1, 0.3, 2.0]))
def test_whatever_comes_the_result_was_kept(
    scores: list[tuple[float, float]], reference_diversity: float | None
) -> None:
    curve = [(step, *score) for step, score in enumerate(scores)]
    kept: set[int] = set()
    for count in range(1, len(curve) + 1):
        found = contenders(curve[:count], reference_diversity)
        assert set(found) <= kept | {count - 1}
        kept = set(found)
        most = max(diversity for _, _, diversity in curve[:count])
        floor = LEAST_DIVERSITY * (most if reference_diversity is None else min(most, reference_diversity))
        eligible = [point for point in curve[:count] if point[2] >= floor]
        assert found[0] == max(eligible, key=lambda point: point[1])[0]


def trained(
    likeness: dict[int, float], diversity: dict[int, float] | None = None, **changes: int
) -> tuple[Learner, dict[int, dict[str, torch.Tensor]]]:
    """A training that scores so at its steps, and what it had learned there."""
    settings = SETTINGS.model_copy(update={"steps": 8, "validate_every": 2, "validation_patience": 2, **changes})
    pack = Pack(tiny_base(), settings, 2)
    learner, known = pack.learner("anna", photos(0), 0), {}

    def tick() -> None:
        if learner.due:
            step = len(learner.losses)
            learner.judge(Score(likeness[step], (diversity or {}).get(step, 0.1)))
            known[step] = weights(learner)
            assert not learner.due

    waiting = [learner]
    pack.run(lambda _: [waiting.pop()] if waiting else [], lambda _: None, tick)
    return learner, known


@pytest.mark.parametrize(
    ("likeness", "steps", "best"),
    [
        ({2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}, 8, 8),
        (
            {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3},
            8,
            4,
        ),  # the first of equals
        ({2: 0.5, 4: 0.3, 6: 0.2}, 6, 2),  # ends early
    ],
)
def test_the_best_step_is_the_result(likeness: dict[int, float], steps: int, best: int) -> None:
    learner, known = trained(likeness)
    assert [step for step, _, _ in learner.curve] == list(likeness)
    assert len(learner.losses) == steps
    assert learner.choose() == best
    assert all(torch.equal(known[best][name], weight) for name, weight in weights(learner).items())


def test_a_step_kept_beside_the_best_becomes_it_when_that_turns_out_to_have_collapsed() -> None:
    learner, known = trained(
        {2: 0.1, 4: 0.9, 6: 0.05, 8: 0.04}, {2: 0.5, 4: 0.3, 6: 0.8, 8: 0.8}, validation_patience=3
    )
    assert list(learner._kept) == [2, 6]  # 4 was the best until 6
    again = Pack(tiny_base(), learner.settings, 1).learner("anna", photos(0), 0)
    again.load_state_dict(learner.state_dict())
    for one in (learner, again):
        assert one.choose() == 2
        assert all(torch.equal(known[2][name], weight) for name, weight in weights(one).items())


def test_a_last_step_between_two_validations_is_judged_too() -> None:
    learner, _ = trained({3: 0.1, 6: 0.2, 8: 0.3}, validate_every=3)
    assert learner.choose() == 8


def test_the_best_outlives_an_interruption() -> None:
    learner, known = trained({2: 0.5, 4: 0.3, 6: 0.2})
    again = Pack(tiny_base(), learner.settings, 1).learner("anna", photos(0), 0)
    again.load_state_dict(learner.state_dict())
    assert again.finished
    assert again.choose() == 2
    assert all(torch.equal(known[2][name], weight) for name, weight in weights(again).items())


def test_without_validation_the_last_step_is_the_result() -> None:
    learner, _ = trained({}, validate_every=0)
    before = weights(learner)
    assert learner.choose() == 8
    assert all(torch.equal(before[name], weight) for name, weight in weights(learner).items())
