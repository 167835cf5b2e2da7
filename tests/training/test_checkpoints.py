import pytest
import torch

from studiolo.errors import TrainingError
from studiolo.training.checkpoints import Budget, load_checkpoint, save_checkpoint


def test_round_trip_and_replacement(tmp_path) -> None:
    path = tmp_path / "deeper" / "a.pt"
    assert load_checkpoint(path) is None
    for value in (1, 2):
        save_checkpoint(path, {"weights": [torch.full((2,), value)], "steps": value})
    state = load_checkpoint(path)
    assert state["steps"] == 2
    assert torch.equal(state["weights"][0], torch.tensor([2, 2]))
    assert [item.name for item in path.parent.iterdir()] == ["a.pt"]


def test_a_failed_save_keeps_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"steps": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"steps": lambda: None})
    assert load_checkpoint(path) == {"steps": 1}


def test_a_damaged_file_is_named(tmp_path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match=r"a\.pt"):
        load_checkpoint(path)


def test_what_was_spent_before_a_resume_counts() -> None:
    steps, minutes = Budget(steps=10), Budget(minutes=1)
    steps.resume(5, 1.0)
    minutes.resume(5, 30.0)
    assert steps.progress == 0.5
    assert 0.5 <= minutes.progress < 0.6
    assert Budget(minutes=0).progress == 1
