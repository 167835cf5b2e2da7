import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studiolo.albums.records import Verdict
from studiolo.errors import SettingsError
from studiolo.perception import similarity
from studiolo.perception.similarity import Similarity

DISTANCES = st.floats(0, 3, allow_nan=False)


@given(one=DISTANCES, two=DISTANCES)
def test_the_score_falls_with_the_distance(one: float, two: float):
    calibrated = Similarity.load()
    near, far = sorted((one, two))
    assert 0 <= calibrated.score(far) <= calibrated.score(near) <= 1


@given(distance=DISTANCES)
def test_verdicts_agree_with_the_score(distance: float):
    calibrated = Similarity.load()
    verdict, score = calibrated.verdict(distance), calibrated.score(distance)
    assert (verdict == Verdict.SAME) == (distance < calibrated.same_below)
    assert (verdict == Verdict.DIFFERENT) == (distance > calibrated.different_above)
    if verdict == Verdict.SAME:
        assert score > 0.89
    if verdict == Verdict.DIFFERENT:
        assert score < 0.11


def test_even_is_even():
    calibrated = Similarity.load()
    assert calibrated.score(calibrated.even) == pytest.approx(0.5)
    assert calibrated.verdict(calibrated.even) == Verdict.UNSURE


def test_an_unknown_suite_says_what_to_do():
    with pytest.raises(SettingsError, match=r"benchmarks\.calibration"):
        Similarity.load("nobody")


def test_constants_that_contradict_each_other_are_refused():
    with pytest.raises(SettingsError, match="same_below"):
        Similarity(even=0.5, spread=0.05, same_below=0.7, different_above=0.6)


def test_a_damaged_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(similarity, "FOLDER", tmp_path)
    (tmp_path / "half.json").write_text(json.dumps({"even": 0.5}))
    with pytest.raises(SettingsError, match="spread"):
        Similarity.load("half")
