import cv2
import numpy as np
import pytest

from studiolo.perception import chips
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto, perceive_photo
from studiolo.perception.pose import Pose
from studiolo.perception.quality import (
    FACE_SIDE_PX,
    WEIGHTS,
    combine,
    exposure_score,
    quality_of,
    sharpness_score,
    weakest_part,
)
from studiolo.perception.suite import Suite
from studiolo.settings import PerceptionSettings, SelectionSettings

AHEAD = Pose(0, 0, 0)


@pytest.fixture(scope="module")
def chip(photos: dict[tuple[str, str], RgbU8], perceived: dict[tuple[str, str], PerceivedPhoto]) -> RgbU8:
    five = perceived["P001", "portrait.jpg"].faces[0]["landmarks_px"]
    matrix = chips.dlib_chip_matrix(five, FACE_SIDE_PX, 0.35)
    return chips.warp(photos["P001", "portrait.jpg"], matrix, FACE_SIDE_PX)


def test_blur_lowers_sharpness(chip: RgbU8):
    scores = [sharpness_score(chip), *(sharpness_score(cv2.GaussianBlur(chip, (0, 0), s)) for s in (1, 2, 3, 6))]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[-1] < 0.1
    assert sharpness_score(np.full_like(chip, 90)) == 0


def test_darkening_and_overexposing_lower_exposure(chip: RgbU8):
    darker = [exposure_score((chip * share).astype(np.uint8)) for share in (1, 0.4, 0.2, 0.05)]
    lighter = [exposure_score(np.clip(chip * share, 0, 255).astype(np.uint8)) for share in (1.0, 1.7, 2.5, 6.0)]
    assert darker == sorted(darker, reverse=True)
    assert lighter == sorted(lighter, reverse=True)
    assert darker[0] > 0.9
    assert max(darker[-1], lighter[-1]) < 0.1


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ((200, AHEAD, 0.3), (40, AHEAD, 0.3)),
        ((200, AHEAD, 0.3), (200, Pose(50, 0, 0), 0.3)),
        ((200, AHEAD, 0.3), (200, Pose(0, -40, 0), 0.3)),
        ((200, AHEAD, 0.3), (200, AHEAD, 0.07)),
    ],
)
def test_each_part_moves_the_score(chip: RgbU8, good: tuple[float, Pose, float], bad: tuple[float, Pose, float]):
    assert quality_of(chip, *good).score > quality_of(chip, *bad).score


def test_roll_costs_nothing(chip: RgbU8):
    assert quality_of(chip, 200, Pose(0, 0, 60), 0.3) == quality_of(chip, 200, AHEAD, 0.3)


def test_score_is_the_documented_mean():
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert combine(dict.fromkeys(WEIGHTS, 1.0)) == pytest.approx(1)
    assert combine(dict.fromkeys(WEIGHTS, 0.3)) == pytest.approx(0.3)
    parts = dict.fromkeys(WEIGHTS, 1.0) | {"sharpness": 0.5}
    assert combine(parts) == pytest.approx(0.5 ** WEIGHTS["sharpness"])
    assert combine(dict.fromkeys(WEIGHTS, 0.0)) > 0


def test_one_ruined_part_is_enough_to_refuse_a_face(chip: RgbU8):
    least = SelectionSettings().min_quality
    blurred, black = cv2.GaussianBlur(chip, (0, 0), 6), (chip * 0.05).astype(np.uint8)
    assert quality_of(chip, 400, AHEAD, 0.3).score > 0.9
    assert quality_of(blurred, 400, AHEAD, 0.3).score < 0.25 < least
    assert quality_of(black, 400, AHEAD, 0.3).score < least


def test_sharpness_does_not_depend_on_the_size_of_the_photo(
    suite: Suite, photos: dict[tuple[str, str], RgbU8], perceived: dict[tuple[str, str], PerceivedPhoto]
):
    box = perceived["P001", "portrait.jpg"].faces[0]["bbox_xyxy_px"]
    # Blurred a little, so that neither photo is at the top of the scale.
    photo = cv2.GaussianBlur(photos["P001", "portrait.jpg"], (0, 0), 0.02 * (box[2] - box[0]))
    whole, small = (
        perceive_photo(suite, seen, PerceptionSettings()).faces[0]["quality"]
        for seen in (photo, cv2.resize(photo, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA))
    )
    assert 0.2 < whole["sharpness"] < 0.8
    assert small["sharpness"] == pytest.approx(whole["sharpness"], abs=0.1)
    assert small["size"] < whole["size"]


@pytest.mark.parametrize("part", sorted(WEIGHTS))
def test_the_part_that_takes_most_is_named(part: str):
    assert weakest_part(dict.fromkeys(WEIGHTS, 0.9) | {part: 0.05}) == part


def test_shut_eyes_are_not_blamed_for_a_blur():
    assert weakest_part(dict.fromkeys(WEIGHTS, 1.0) | {"eyes": 0.0, "sharpness": 0.05}) == "sharpness"
