import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.perception.detect import RgbU8
from studiolo.perception.regions import Region
from studiolo.perception.retouch import SKIN, retouch
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]


@pytest.fixture(scope="module")
def face(photos: Photos, suite: Suite) -> tuple[RgbU8, NDArray[np.uint8]]:
    """A photo of 512 px and its regions."""
    photo = cv2.resize(photos["P001", "portrait.jpg"], (512, 512), interpolation=cv2.INTER_AREA)
    landmarks = suite.detector(photo, 0.7)[0].landmarks_px
    return photo, suite.regions(photo, landmarks)


def synthetic(side_px: int = 300) -> RgbU8:
    """Skin with fine grain, blotches of a middle size, and one edge down the middle."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 3, (side_px, side_px))
    blotches = cv2.GaussianBlur(rng.normal(0, 1, (side_px, side_px)), (0, 0), 8)
    picture = 150 + grain + 5 * blotches / blotches.std()
    picture[:, side_px // 2 :] -= 80
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def test_off_and_without_skin_every_byte_stays(face: tuple[RgbU8, NDArray[np.uint8]]):
    photo, regions = face
    assert retouch(photo, regions, 0.0) is photo
    np.testing.assert_array_equal(retouch(photo, np.full_like(regions, Region.HAIR), 1.0), photo)


def test_only_skin_changes(face: tuple[RgbU8, NDArray[np.uint8]]):
    photo, regions = face
    done = retouch(photo, regions, 1.0)
    skin = np.isin(regions, SKIN)
    np.testing.assert_array_equal(done[~skin], photo[~skin])
    assert (done[skin] != photo[skin]).any(axis=-1).mean() > 0.3
    for region in (Region.EYES, Region.BROWS, Region.LIPS):
        assert (regions == region).sum() > 50


def test_skin_is_neither_whitened_nor_tinted(face: tuple[RgbU8, NDArray[np.uint8]]):
    photo, regions = face
    skin = np.isin(regions, SKIN)
    before, after = (image[skin].mean(axis=0) for image in (photo, retouch(photo, regions, 1.0)))
    np.testing.assert_allclose(after, before, atol=0.3)


def test_blotches_go_while_grain_and_edges_stay():
    picture = synthetic()
    skin = np.full(picture.shape[:2], Region.SKIN, np.uint8)
    done = retouch(picture, skin, 1.0)
    inner = (slice(40, -40), slice(30, 120))
    one, two = (image[..., 0].astype(np.float32) for image in (picture, done))
    blotches = [cv2.GaussianBlur(image, (0, 0), 5)[inner].std() for image in (one, two)]
    assert blotches[1] < 0.7 * blotches[0]
    grain = [(image - cv2.GaussianBlur(image, (0, 0), 1))[inner].std() for image in (one, two)]
    assert grain[1] > 0.85 * grain[0]
    edge = [image[40:-40, 140:145].mean() - image[40:-40, 155:160].mean() for image in (one, two)]
    assert edge[1] == pytest.approx(edge[0], rel=0.06)


def test_half_the_strength_changes_less(face: tuple[RgbU8, NDArray[np.uint8]]):
    photo, regions = face
    changes = [np.abs(retouch(photo, regions, s).astype(int) - photo).mean() for s in (0.25, 0.5, 1.0)]
    assert 0 < changes[0] < changes[1] < changes[2]
