from collections.abc import Callable

import numpy as np
import pytest

from studiolo.albums.records import UNKNOWN
from studiolo.errors import SettingsError
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto
from studiolo.perception.suite import PERCEPTION_CARDS, Suite, open_detector, open_suite
from studiolo.weights.cards import card_ids

Photos = dict[tuple[str, str], RgbU8]
Perceived = dict[tuple[str, str], PerceivedPhoto]


@pytest.mark.parametrize("open_models", [open_suite, open_detector])
def test_a_misspelt_suite_gets_the_nearest_name(open_models: Callable[[str], object]):
    with pytest.raises(SettingsError, match="did you mean 'embedded'"):
        open_models("embeded")


def test_suites_name_cards_that_exist():
    assert {card for cards in PERCEPTION_CARDS.values() for card in cards} <= set(card_ids())


def test_sample_portraits_are_safe(suite: Suite, photos: Photos):
    for photo in photos.values():
        assert 0 <= suite.safety.score(photo) < 0.3


def test_attributes_of_the_sample_women(perceived: Perceived):
    for seen in perceived.values():
        attributes = seen.faces[0]["attributes"]
        assert attributes["p_female"] > 0.5
        assert 15 < attributes["age_years"] < 60
        assert (attributes["glasses"], attributes["headwear"], attributes["ears"]) == (UNKNOWN,) * 3


def test_person_mask_tells_the_person_from_the_wall(suite: Suite, photos: Photos):
    photo = photos["P001", "portrait.jpg"]
    mask = suite.person_mask(photo)
    assert mask.shape == photo.shape[:2]
    assert mask.dtype == np.float32
    middle = mask[mask.shape[0] // 3 : mask.shape[0] // 2, mask.shape[1] * 2 // 5 : mask.shape[1] * 3 // 5]
    assert middle.mean() > 0.9
    assert mask[:40, :40].mean() < 0.1
