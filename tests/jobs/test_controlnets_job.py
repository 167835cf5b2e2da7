import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs.controlnets_job import Run, run
from studiolo.albums.decode import decode
from studiolo.albums.geometry import align_and_crop
from studiolo.errors import SettingsError
from studiolo.generation.base import save_pipeline
from studiolo.generation.controlnets import load_controlnets
from studiolo.generation.tiny import tiny_base
from studiolo.perception.suite import open_suite
from studiolo.settings import PerceptionSettings


@pytest.fixture
def wanted(tmp_path: Path, people: Path) -> Run:
    """A run of a second on a tiny base and two faces."""
    save_pipeline(tiny_base(), tmp_path / "init")
    data, suite, rows = tmp_path / "data", open_suite("embedded"), []
    data.mkdir()
    for person in ("P001", "P002"):
        photo = decode((people / person / "portrait.jpg").read_bytes(), PerceptionSettings())
        face = suite.detector(photo, 0.7)[0]
        crop, _ = align_and_crop(photo, face.bbox_xyxy_px, face.landmarks_px, 160, 0.6)
        Image.fromarray(crop).save(data / f"{person}.png")
        rows.append(json.dumps({"file": f"{person}.png", "trigger": "a handsome man", "tags": ["smile"]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))
    return Run(data, 0.02, tmp_path / "out", init=tmp_path / "init", captions=tmp_path / "captions.jsonl")


def test_it_trains_saves_and_goes_on(wanted: Run) -> None:
    run(wanted)
    first = load_controlnets(wanted.out / "controlnets")
    assert sorted(first) == ["edges", "pose"]
    assert all(network.controlnet_mid_block.weight.any() for network in first.values())
    sheets = sorted((wanted.out / "sheets").iterdir())
    assert sheets
    for picture in wanted.data.iterdir():
        picture.unlink()  # what was seen is kept
    run(wanted)  # the minutes are spent: saves the same again
    again = load_controlnets(wanted.out / "controlnets")
    for name, network in first.items():
        assert all(map(torch.equal, network.parameters(), again[name].parameters()))
    assert sorted((wanted.out / "sheets").iterdir()) == sheets


def test_other_captions_are_learned_from_anew(wanted: Run) -> None:
    run(wanted)
    seen = (wanted.out / "examples.pt").read_bytes()
    assert wanted.captions is not None
    wanted.captions.write_text(wanted.captions.read_text().replace("smile", "laugh"))
    run(wanted)
    assert (wanted.out / "examples.pt").read_bytes() != seen


def test_what_cannot_work_is_refused_first(wanted: Run) -> None:
    with pytest.raises(SettingsError, match="cuda"):
        run(replace(wanted, device="cuda:99"))
    with pytest.raises(SettingsError, match="nothing is there"):
        run(replace(wanted, captions=wanted.captions.with_name("capitons.jsonl")))
    assert not wanted.out.exists()
