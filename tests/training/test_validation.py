"""Which photos judge, what a score is, and which step of a training is its result."""

import numpy as np
import pytest
import torch

from studiolo.generation.tiny import tiny_base
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack
from studiolo.training.validation import Score, score, split
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
    assert score([None, None], [np.zeros(2, np.float32)], lambda distance: 1.0) == Score(0.0, 0.0)


def trained(likeness: dict[int, float], **changes: int) -> tuple[Learner, dict[int, dict[str, torch.Tensor]]]:
    """A training that scores so at its steps, and what it had learned there."""
    settings = SETTINGS.model_copy(update={"steps": 8, "validate_every": 2, "validation_patience": 2, **changes})
    pack = Pack(tiny_base(), settings, 2)
    learner, known = pack.learner("anna", photos(0), 0), {}

    def tick() -> None:
        if learner.due:
            step = len(learner.losses)
            learner.judge(Score(likeness[step], 0.1))
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
