import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.training.looks import LOOKS, greyscale, put_look, without_lost_colours


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """Patches of soft colour, [96, 96, 3]."""
    patches = np.random.default_rng(seed).integers(60, 200, (6, 6, 3), np.uint8)
    return np.kron(patches, np.ones((16, 16, 1), np.uint8))


@pytest.mark.parametrize("words", LOOKS)
def test_a_look_is_plain_to_see_and_the_same_each_time(words: str) -> None:
    before = picture()
    kept = before.copy()
    after = put_look(before, words)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    assert np.abs(after.astype(int) - before).mean() > 8
    assert np.array_equal(after, put_look(before, words))
    assert np.array_equal(before, kept)


@pytest.mark.parametrize("words", LOOKS)
def test_colourless_looks_are_blind_to_colour_and_only_they(words: str) -> None:
    coloured = picture()
    luma = np.rint(coloured @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    grey = np.repeat(luma[..., None], 3, -1)
    change = np.abs(put_look(coloured, words).astype(int) - put_look(grey, words)).mean()
    assert (change < 3) == LOOKS[words].colourless


def test_every_pair_of_looks_differs() -> None:
    looks = [put_look(picture(), words).astype(int) for words in LOOKS]
    for index, first in enumerate(looks):
        for second in looks[index + 1 :]:
            assert np.abs(first - second).mean() > 8


def test_tags_that_a_look_makes_untrue_are_left_out() -> None:
    tags = ("smile", "brown hair", "white background", "blue clothes", "studio backdrop")
    assert without_lost_colours(tags, "black and white photo") == ("smile", "white background", "studio backdrop")
    assert without_lost_colours(tags, "sepia photo") == ("smile", "studio backdrop")
    assert without_lost_colours(tags, "watercolour") == ("smile", "brown hair", "blue clothes", "studio backdrop")
    assert without_lost_colours(tags, "warm film photo") == tags


def test_other_words_are_no_look() -> None:
    with pytest.raises(KeyError):
        put_look(picture(), "warm photo")


def test_greyscale_leaves_grey_pictures_alone() -> None:
    grey = greyscale(picture())
    assert np.ptp(grey, axis=-1).max() == 0
    assert np.array_equal(greyscale(grey), grey)
