import sys

import numpy as np
import pytest

from studiolo.errors import SettingsError, WeightsError
from studiolo.metrics.distributions import nearest_cosines
from studiolo.perception.detect import RgbU8
from studiolo.perception.features import CARD, DIMENSIONS, EmbeddedFeatures
from studiolo.perception.runtime import VinoModel
from studiolo.weights.fetch import pull

Photos = dict[tuple[str, str], RgbU8]


@pytest.fixture(scope="module")
def features() -> EmbeddedFeatures:
    return EmbeddedFeatures.open(pull(CARD))


def test_a_flipped_and_cropped_picture_is_nearest_to_itself(features: EmbeddedFeatures, photos: Photos):
    squares = [photo[: min(photo.shape[:2]), : min(photo.shape[:2])] for photo in photos.values()]
    changed = [square[len(square) // 10 : -len(square) // 10, ::-1][:, len(square) // 10 :] for square in squares]
    known, queries = (np.stack([features(picture) for picture in side]) for side in (squares, changed))
    assert known.shape == (len(squares), DIMENSIONS)
    _, places = nearest_cosines(queries, known)
    assert places.tolist() == list(range(len(squares)))


def test_equal_pictures_give_equal_features_whatever_came_before(features: EmbeddedFeatures):
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 255, (40, 60, 3), np.uint8), rng.integers(0, 255, (300, 400, 3), np.uint8)
    first = features(small)
    other = features(large)
    assert np.array_equal(first, features(small))
    assert np.isfinite(other).all()
    assert not np.array_equal(first, other)


def test_a_tensor_that_is_not_there_gets_the_nearest_name():
    with pytest.raises(WeightsError, match=r"did you mean '/backbone/layernorm/Add_1_output_0'"):
        VinoModel(pull(CARD) / "vit_s_focus.onnx", 1, output="/backbone/layernorm/Add_1_outptu_0")


def test_without_openvino_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingsError, match=r"openvino is not installed; install studiolo\[faces\]"):
        EmbeddedFeatures.open(pull(CARD))
