import numpy as np
import pytest
from PIL import Image

from jobs import synthesise_job
from jobs.synthesise_job import Run, run
from studiolo.errors import SettingsError
from studiolo.perception.detect import EmbeddedDetector
from studiolo.weights.fetch import pull

pytestmark = pytest.mark.slow  # a face takes about a second on a busy core


def test_numbers_are_faces_made_once_and_the_same_everywhere(tmp_path, monkeypatch, capsys):
    run(Run(2, tmp_path / "a"))
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.jpg")}
    assert sorted(first) == ["00000.jpg", "00001.jpg"]
    assert "synthesise 2/2 100%" in capsys.readouterr().err
    detector = EmbeddedDetector.open(pull("yunet"))
    for path in (tmp_path / "a").glob("*.jpg"):
        rgb_u8 = np.asarray(Image.open(path))
        assert rgb_u8.shape == (160, 160, 3)
        assert len(detector(rgb_u8, 0.7)) == 1

    (tmp_path / "a" / "00001.jpg").unlink()
    made = []
    original = synthesise_job.FaceSynthesiser.__call__
    monkeypatch.setattr(
        synthesise_job.FaceSynthesiser,
        "__call__",
        lambda self, number, side_px: made.append(number) or original(self, number, side_px),
    )
    run(Run(3, tmp_path / "a"))
    assert made == [1, 2]
    run(Run(2, tmp_path / "b", seed_start=1))
    for name in ("00001.jpg", "00002.jpg"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert (tmp_path / "a" / "00001.jpg").read_bytes() == first["00001.jpg"]


def test_what_is_finished_needs_no_model_and_another_kind_another_folder(tmp_path, monkeypatch):
    run(Run(1, tmp_path, side_px=128))
    monkeypatch.setattr(synthesise_job, "pull", lambda card: pytest.fail("nothing is missing"))
    run(Run(1, tmp_path, side_px=128))
    with pytest.raises(SettingsError, match=r"'side_px': 128.*'side_px': 160.*another folder"):
        run(Run(1, tmp_path))
    assert [path.name for path in tmp_path.glob("*.jpg")] == ["00000.jpg"]
