"""A look learned from pictures: a style that the studio job and the endpoint take."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.style_job import Run, run
from studiolo.errors import SettingsError
from studiolo.generation.adapters import Adapters
from studiolo.generation.base import load_base
from studiolo.generation.lora_files import base_layers, inspect_lora
from studiolo.portraits.styles import load_style, style_lora_path
from studiolo.settings import FaceLoraSettings
from studiolo.training.style_lora import train_style
from studiolo.weights.fetch import pull

pytestmark = pytest.mark.timeout(120)
SMALL = FaceLoraSettings(batch_size=1, views_per_photo=1, resolution=64, precision="float32", targets=("to_q", "to_v"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate(((300, 200), (128, 400))):
        Image.new("RGB", size, (90 * number, 40, 120)).save(folder / f"{number}.jpg")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".DS_Store").write_text("junk")
    return folder


def test_a_style_is_learned_that_everybody_takes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Run(pictures, "an oil painting", "oil", tmp_path / "styles", steps=2, rank=4)
    path = run(wanted, SMALL)
    assert "notes.txt: This file is not a picture" in capsys.readouterr().err
    style = load_style("oil", tmp_path / "styles")
    assert (style.title, style.words, style_lora_path(style)) == ("an oil painting", "an oil painting", path)
    layers = base_layers(pull("embedded-base"))
    found = inspect_lora(io.BytesIO(path.read_bytes()), layers, 16)
    assert found.rank == 4
    assert found.layers == sum(name.endswith(("to_q", "to_v")) for name in layers if name.startswith("unet."))
    updates = Adapters(load_base(pull("embedded-base"))).mix([(str(path), 1.0)]).unet
    assert any(up_OR.abs().max() > 0 for _, up_OR in updates.values())  # it has learned something
    again = run(Run(pictures, "an oil painting", "oil", tmp_path / "again", steps=2, rank=4), SMALL)
    assert again.read_bytes() == path.read_bytes()


def test_its_loss_falls_on_the_pictures(pictures: Path) -> None:
    """On one flat colour, which is soon learned."""
    base = load_base(pull("embedded-base"))
    flat = [np.full((128, 128, 3), (200, 30, 30), np.uint8)]
    settings = SMALL.model_copy(update={"steps": 30, "rank": 4, "alpha": 4.0, "batch_size": 2})
    lora = train_style(base, flat, "red", settings)
    untouched = train_style(base, flat, "red", settings.model_copy(update={"learning_rate": 1e-12}))
    assert lora.final_loss < untouched.final_loss
    assert not any(torch.isnan(weight).any() for weight in lora.weights.values())


def test_what_cannot_be_learned_is_refused_before_the_base_is_loaded(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.style_job.pull", lambda card: pytest.fail("nothing is to be learned"))
    (pictures / "0.jpg").unlink()
    (pictures / "1.jpg").unlink()
    for wanted, says in (
        (Run(pictures, "x", "oil", tmp_path), "holds none that can be read"),
        (Run(tmp_path / "gone", "x", "oil", tmp_path), "pictures"),
        (Run(pictures, "x", "../oil", tmp_path), "wanted a name"),
        (Run(pictures, " ", "oil", tmp_path), "words for the look"),
    ):
        with pytest.raises(SettingsError, match=says):
            run(wanted)
