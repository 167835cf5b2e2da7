import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jobs import base_job
from jobs.base_job import Run, run
from studiolo.errors import SettingsError, TrainingError
from studiolo.generation.base import load_base, save_pipeline
from studiolo.generation.tiny import tiny_base

PICTURES = 6


@pytest.fixture
def wanted(tmp_path) -> Run:
    """A run of a second on a tiny base and pictures of noise."""
    save_pipeline(tiny_base(), tmp_path / "init")
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(PICTURES):
        Image.fromarray(rng.integers(0, 255, (80, 80, 3), np.uint8)).save(data / f"{number}.png")
        rows.append(json.dumps({"file": f"{number}.png", "trigger": "a handsome man", "tags": ["smile"]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))
    return Run(data, 0.02, tmp_path / "out", init=tmp_path / "init", captions=tmp_path / "captions.jsonl")


def test_it_trains_packages_and_goes_on(wanted: Run) -> None:
    run(wanted)
    first = load_base(wanted.out / "base")
    assert first.vae_scale_factor == 8
    assert any(not np.array_equal(*pair) for pair in _weights(first, load_base(wanted.init)))
    sheets = sorted((wanted.out / "sheets").iterdir())
    assert sheets
    run(wanted)  # the minutes are spent: packages the same again
    assert all(np.array_equal(*pair) for pair in _weights(first, load_base(wanted.out / "base")))
    assert sorted((wanted.out / "sheets").iterdir()) == sheets


def _weights(first, second):
    pairs = zip(first.unet.parameters(), second.unet.parameters(), strict=True)
    return [(one.numpy(), two.numpy()) for one, two in pairs]


def test_what_cannot_work_is_refused_first(wanted: Run, tmp_path) -> None:
    with pytest.raises(SettingsError, match="cuda"):
        run(Run(wanted.data, 1, wanted.out, device="cuda:99"))
    for change in ({"data": "dtaa"}, {"init": "inti"}, {"captions": "capitons.jsonl"}):
        misspelt = {name: tmp_path / entry for name, entry in change.items()}
        with pytest.raises(SettingsError, match=r"nothing is there.*did you mean '(data|init|captions\.jsonl)'"):
            run(replace(wanted, **misspelt))
    with pytest.raises(SettingsError, match="unet"):
        run(replace(wanted, init=wanted.data))
    assert not wanted.out.exists()


def test_a_run_that_fails_is_closed_as_failed(wanted: Run, monkeypatch) -> None:
    from mlflow import MlflowClient

    def diverge(*_: object, **__: object) -> None:
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(base_job, "train_until_spent", diverge)
    with pytest.raises(TrainingError):
        run(wanted)
    client = MlflowClient(f"sqlite:///{wanted.out}/mlflow.db")
    (found,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert found.info.status == "FAILED"


def test_a_damaged_picture_does_not_end_the_captioning(people, tmp_path, capsys) -> None:
    good = (people / "P001" / "portrait.jpg").read_bytes()
    (tmp_path / "a-good.jpg").write_bytes(good)
    (tmp_path / "b-cut.jpg").write_bytes(good[:100])
    (tmp_path / "c-empty.jpg").write_bytes(b"")
    captions = base_job.write_captions(tmp_path, tmp_path / "captions.jsonl")
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    assert [row["file"] for row in rows] == ["a-good.jpg"]
    said = capsys.readouterr().err
    assert "b-cut.jpg" in said
    assert "c-empty.jpg" in said
