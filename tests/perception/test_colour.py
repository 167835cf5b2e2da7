import numpy as np
import pytest

from studiolo.perception import colour


def tone(rgb: tuple[int, int, int]) -> colour.Tone:
    found = colour.tone_of(np.full((20, 20, 3), rgb, np.uint8), np.ones((20, 20), np.bool_))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((5, 5, 5), "black"),
        ((20, 140, 40), "green"),
        ((20, 60, 200), "blue"),
        ((110, 70, 40), "brown"),
        ((190, 20, 20), "red"),
        ((240, 210, 40), "yellow"),
        ((250, 170, 190), "pink"),
    ],
)
def test_plain_colours_have_their_name(rgb: tuple[int, int, int], name: str):
    assert colour.surface_colour(tone(rgb)) == name


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((20, 17, 16), "black"),
        ((90, 60, 40), "brown"),
        ((205, 175, 130), "blonde"),
        ((190, 190, 188), "grey"),
        ((150, 70, 35), "red"),
    ],
)
def test_hair_colours_have_their_name(rgb: tuple[int, int, int], name: str):
    assert colour.hair_colour(tone(rgb)) == name


def test_few_pixels_have_no_colour():
    picture, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.bool_)
    mask[:5, :5] = True
    assert colour.tone_of(picture, mask) is None


def test_agreement_tells_plain_from_patchwork():
    mask = np.ones((40, 40), np.bool_)
    plain = colour.tone_of(np.full((40, 40, 3), 120, np.uint8), mask)
    noise = colour.tone_of(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), mask)
    assert plain is not None
    assert noise is not None
    assert plain.agreement == 1
    assert noise.agreement < 0.5
