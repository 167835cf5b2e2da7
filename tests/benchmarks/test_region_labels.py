import cv2
import numpy as np
import pytest

from benchmarks.region_labels import LABELLED, SIDE_PX, Label, read_labels, render
from studiolo.albums.samples import EXPRESSIONS, PEOPLE
from studiolo.perception.regions import Region

LABELS = list(read_labels())
PHOTOS = sorted(
    [
        *(f"expression-{number:02d}-{expression}.jpg" for number, expression in enumerate(EXPRESSIONS, start=1)),
        *("portrait.jpg", "selfie.jpg", "full-body-studio.jpg", "full-body-outdoors.jpg"),
    ]
)
AS_LABELLED = np.eye(2, 3)


def _square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [high, low], [high, high], [low, high]], np.float64)


def _label(*outlines: tuple[Region, np.ndarray]) -> Label:
    return Label("synthetic:0:512", AS_LABELLED, frozenset(), outlines)


def test_the_pictures_are_those_of_the_rule():
    people = [f"{person}/{PHOTOS[k + offset]}" for k, person in enumerate(PEOPLE) for offset in (0, 10)]
    faces = [f"synthetic:{number}:512" for number in range(0, 1000, 50)]
    assert [label.picture for label in LABELS] == people + faces


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.picture)
def test_outlines_lie_in_the_square_and_each_region_has_one_or_is_called_unseen(label):
    for region, ring in label.outlines:
        assert len(ring) >= 3
        assert ring.min() >= -0.5
        assert ring.max() <= SIDE_PX - 0.5
        assert cv2.contourArea(ring.astype(np.float32)) > 20, region
    assert np.linalg.det(label.crop_matrix[:, :2]) > 0
    assert {region for region, _ in label.outlines} - {Region.BACKGROUND} == set(LABELLED) - label.unseen


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.picture)
def test_no_region_is_painted_over_and_faces_are_in_order(label):
    ids = render(label, label.crop_matrix, SIDE_PX)
    height = {}
    for region in set(LABELLED) - label.unseen:
        rows = np.flatnonzero((ids == region).any(axis=1))
        assert (ids == region).sum() > 200, region
        height[region] = rows.mean()
    order = [region for region in (Region.BROWS, Region.EYES, Region.NOSE, Region.LIPS) if region in height]
    assert [height[region] for region in order] == sorted(height[region] for region in order)


def test_what_is_painted_later_hides_what_was_before():
    ids = render(
        _label((Region.HAIR, _square(10, 50)), (Region.SKIN, _square(20, 40)), (Region.BACKGROUND, _square(26, 30))),
        AS_LABELLED,
        64,
    )
    expected = np.zeros((64, 64), np.uint8)
    expected[10:51, 10:51], expected[20:41, 20:41], expected[26:31, 26:31] = Region.HAIR, Region.SKIN, Region.BACKGROUND
    np.testing.assert_array_equal(ids, expected)


def test_a_pixel_has_the_class_of_its_centre():
    assert (render(_label((Region.EYES, _square(9.7, 12.3))), AS_LABELLED, 32) == Region.EYES).sum() == 3 * 3
    assert (render(_label((Region.EYES, _square(10.3, 12.7))), AS_LABELLED, 32) == Region.EYES).sum() == 2 * 2


def test_outlines_follow_the_photo_into_another_square():
    label = _label((Region.NOSE, _square(10, 20)))
    moved = render(label, np.array([[1.0, 0, 5], [0, 1, -3]]), 64)
    np.testing.assert_array_equal(moved, np.roll(render(label, AS_LABELLED, 64), (-3, 5), axis=(0, 1)))
    twice = render(label, np.array([[2.0, 0, 0], [0, 2, 0]]), 64)
    assert np.flatnonzero((twice == Region.NOSE).any(axis=0))[[0, -1]].tolist() == [20, 40]
