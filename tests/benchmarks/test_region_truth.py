import numpy as np
import pytest

from benchmarks.region_labels import Label
from benchmarks.region_truth import COMPARED, box_iou, iou, part_figures, scores_of, shares
from studiolo.perception.regions import Region


def _face(fringe: bool = False) -> np.ndarray:
    ids = np.zeros((64, 64), np.uint8)
    ids[4:60, 8:56] = Region.HAIR
    ids[16:56, 16:48] = Region.SKIN
    ids[22:25, 20:44], ids[28:33, 20:44] = Region.BROWS, Region.EYES
    ids[34:44, 28:36], ids[47:52, 24:40] = Region.NOSE, Region.LIPS
    if fringe:
        ids[16:26, 16:48] = Region.HAIR
    return ids


def _label(*unseen: Region, picture: str = "synthetic:0:512") -> Label:
    return Label(picture, np.eye(2, 3), frozenset(unseen), ())


def _by_part(label: Label, truth: np.ndarray, mask: np.ndarray) -> dict:
    return {score["part"]: score for score in scores_of(label, truth, mask)}


def test_overlap_of_equal_disjoint_and_halved_masks():
    one = np.zeros((8, 8), bool)
    one[:, :4] = True
    assert iou(one, one) == 1
    assert iou(one, ~one) == 0
    assert iou(one, np.ones((8, 8), bool)) == 0.5


def test_overlap_of_boxes():
    assert box_iou([0, 0, 4, 4], [0, 0, 4, 4]) == 1
    assert box_iou([0, 0, 4, 4], [4, 4, 8, 8]) == 0
    assert box_iou([0, 0, 4, 4], [2, 0, 6, 4]) == pytest.approx(1 / 3)


def test_a_mask_equal_to_its_label_is_right_in_every_part_and_a_pixel_matters_more_to_small_ones():
    scores = _by_part(_label(), _face(), _face())
    assert set(scores) == set(COMPARED)
    assert {score["iou"] for score in scores.values()} == {1.0}
    assert {scores[part]["box_iou"] for part in COMPARED if part != "skin"} == {1.0}
    assert scores["brows"]["further_in"] < scores["eyes"]["further_in"] < scores["face"]["further_in"] < 1
    assert scores["brows"]["further_out"] < scores["face"]["further_out"] < 1


def test_a_fringe_that_the_mask_takes_for_skin_costs_skin_and_hair_and_brows_are_drawn_that_are_not_seen():
    truth = _face(fringe=True)
    scores = _by_part(_label(Region.BROWS), truth, _face())
    assert scores["skin"]["iou"] < 1
    assert scores["hair"]["iou"] < 1
    assert scores["eyes"]["iou"] == 1
    assert not scores["brows"]["seen"]
    assert scores["brows"]["drawn"]
    shared = shares([(truth, _face())])
    assert shared["hair"]["skin"] > 0.05
    assert shared["hair"]["brows"] > 0.01
    assert sum(shared["hair"].values()) == pytest.approx(1, abs=0.01)
    assert shared["eyes"] == {"eyes": 1.0}


def test_figures_of_a_part_name_the_worst_picture_and_leave_out_what_cannot_be_seen():
    moved = np.roll(_face(), 2, axis=0)
    pictures = [
        (_label(picture="P001/selfie.jpg"), _face(), _face()),
        (_label(picture="synthetic:50:512"), _face(), moved),
        (_label(Region.EYES, picture="synthetic:100:512"), np.where(_face() == Region.EYES, 1, _face()), _face()),
    ]
    scores = [_by_part(*picture)["eyes"] for picture in pictures]
    figures = part_figures(scores)
    assert (figures["seen"], figures["unseen"], figures["unseen_but_drawn"]) == (2, 1, 1)
    assert figures["worst_picture"] == "synthetic:50:512"
    assert figures["worst"] == figures["mean_of_synthetic"] == pytest.approx(3 / 7, abs=1e-3)
    assert figures["mean_of_people"] == 1
    assert figures["mean"] == pytest.approx((1 + 3 / 7) / 2, abs=1e-3)
    assert figures["pooled"] == pytest.approx(8 / 12, abs=1e-3)
