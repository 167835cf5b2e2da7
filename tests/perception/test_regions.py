import numpy as np

from studiolo.albums.geometry import align_and_crop, map_points
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto
from studiolo.perception.regions import HEAD, Region, head_mask
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]
Perceived = dict[tuple[str, str], PerceivedPhoto]


def test_regions_of_a_reference_crop_are_where_they_belong(suite: Suite, photos: Photos, perceived: Perceived):
    for key, photo in photos.items():
        face = perceived[key].faces[0]
        five = np.array(face["landmarks_px"]).reshape(5, 2)
        crop, matrix = align_and_crop(photo, face["bbox_xyxy_px"], five, 256, 0.4)
        points = np.rint(map_points(matrix, five)).astype(int)
        regions = suite.regions(crop, map_points(matrix, five))
        assert regions.shape == (256, 256)
        assert regions.dtype == np.uint8
        assert set(np.unique(regions)) <= set(map(int, Region))
        wanted = (Region.EYES, Region.EYES, Region.NOSE)
        found = [regions[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] for x, y in points[:3]]
        assert all(np.isin(region, patch) for region, patch in zip(wanted, found, strict=True)), key
        rows = {region: np.nonzero(regions == region)[0] for region in Region}
        assert rows[Region.BROWS].mean() < rows[Region.EYES].mean() < rows[Region.NOSE].mean()
        assert rows[Region.NOSE].mean() < rows[Region.LIPS].mean()
        assert rows[Region.HAIR].mean() < rows[Region.BODY].mean()
        assert (regions == Region.SKIN).sum() > (regions == Region.NOSE).sum()
        assert np.array_equal(regions, suite.regions(crop, map_points(matrix, five)))


def test_head_mask_takes_the_head_only():
    regions = np.array([[int(region) for region in Region]], np.uint8)
    mask = head_mask(regions)
    assert mask.dtype == np.float32
    assert {region for region, value in zip(Region, mask[0], strict=True) if value == 1} == set(HEAD)
    assert set(np.unique(mask)) == {0.0, 1.0}
