import numpy as np
import pytest

from studiolo.perception.detect import RgbU8
from studiolo.perception.expression import Expression
from studiolo.perception.perceive import PerceivedPhoto, perceive_photo
from studiolo.perception.pose import Pose
from studiolo.perception.regions import Region
from studiolo.perception.suite import Suite
from studiolo.perception.tag import VOCABULARY, Crop, expression_tags, pose_tags, tags_of
from studiolo.settings import PerceptionSettings

Perceived = dict[tuple[str, str], PerceivedPhoto]


def drawn(
    hair: tuple[int, int, int], clothes: tuple[int, int, int], background: tuple[int, int, int], hair_px: int = 12
) -> Crop:
    """A drawn person: a face framed by `hair_px` of hair, and a body below."""
    size = 128
    regions = np.full((size, size), Region.BACKGROUND, np.uint8)
    regions[40 - hair_px : 80, 44 - hair_px : 84 + hair_px] = Region.HAIR
    regions[40:80, 44:84] = Region.SKIN
    regions[80:, 20:108] = Region.BODY
    colours = {Region.BACKGROUND: background, Region.HAIR: hair, Region.SKIN: (205, 160, 135), Region.BODY: clothes}
    picture = np.zeros((size, size, 3), np.uint8)
    for region, rgb in colours.items():
        picture[regions == region] = rgb
    person = (regions != Region.BACKGROUND).astype(np.float32)
    return Crop(picture, regions, person, np.ones((size, size), np.bool_))


CALM = Expression(eye_openness=0.3, mouth_openness=0.01, smile=0.56)
AHEAD = Pose(0, 0, 0)


def test_a_drawn_person_is_described():
    tags = tags_of(drawn((20, 17, 16), (20, 60, 200), (240, 240, 240)), AHEAD, CALM)
    assert tags == ["black hair", "white background", "blue clothes", "neutral expression", "facing forward"]


def test_hair_of_the_colour_of_skin_is_not_named_on_a_bald_head():
    skin, black = (205, 160, 135), (9, 9, 9)
    assert not any("hair" in tag for tag in tags_of(drawn(skin, black, black, hair_px=5), AHEAD, CALM))
    assert "blonde hair" in tags_of(drawn((215, 180, 130), black, black, hair_px=16), AHEAD, CALM)


def test_nothing_is_said_of_what_lies_outside_the_photo():
    crop = drawn((20, 17, 16), (20, 60, 200), (240, 240, 240))
    outside = Crop(crop.rgb_u8, crop.regions_u8, crop.person, np.zeros_like(crop.inside))
    assert tags_of(outside, AHEAD, CALM) == ["neutral expression", "facing forward"]


@pytest.mark.parametrize(
    ("pose", "tags"),
    [
        (AHEAD, ["facing forward"]),
        (Pose(30, 0, 0), ["looking right"]),
        (Pose(-30, 0, 0), ["looking left"]),
        (Pose(-30, 25, 0), ["looking left", "looking up"]),
        (Pose(0, -25, 0), ["looking down"]),
        (Pose(15, 0, 0), []),
        (Pose(0, 0, 45), ["facing forward"]),
    ],
)
def test_pose_tags(pose: Pose, tags: list[str]):
    assert pose_tags(pose) == tags


@pytest.mark.parametrize(
    ("expression", "tags"),
    [
        (CALM, ["neutral expression"]),
        (Expression(0.3, 0.3, 0.8), ["smile", "open mouth"]),
        (Expression(0.05, 0.01, 0.56), ["closed eyes"]),
        (Expression(0.3, 0.1, 0.56), []),
    ],
)
def test_expression_tags(expression: Expression, tags: list[str]):
    assert expression_tags(expression) == tags


def test_sample_people_get_tags_of_the_vocabulary_without_contradiction(perceived: Perceived):
    for key, seen in perceived.items():
        tags = seen.faces[0]["tags"]
        assert set(tags) <= set(VOCABULARY), key
        assert len(tags) == len(set(tags))
        for word in ("hair", "background", "clothes"):
            assert sum(tag.endswith(word) for tag in tags) <= 1
        assert not {"neutral expression"} < set(tags) & {"neutral expression", "smile", "open mouth"}
    for person in ("P001", "P002"):
        assert "smile" in perceived[person, "expression-02-happy.jpg"].faces[0]["tags"]
        assert "open mouth" in perceived[person, "expression-14-shocked.jpg"].faces[0]["tags"]
        portrait = perceived[person, "portrait.jpg"].faces[0]["tags"]
        assert {"grey background", "black hair", "neutral expression", "facing forward"} <= set(portrait)


def test_a_mirrored_photo_turns_the_head_over_and_contradicts_nothing(
    suite: Suite, photos: dict[tuple[str, str], RgbU8], perceived: dict[tuple[str, str], PerceivedPhoto]
):
    """Near a threshold one of the two may be silent (the mesh is not exactly symmetrical); it may not say another."""
    swapped = {"looking left": "looking right", "looking right": "looking left"}
    for person in ("P001", "P002"):
        for name in ("portrait.jpg", "full-body-outdoors.jpg"):
            face = perceived[person, name].faces[0]
            mirrored = perceive_photo(suite, photos[person, name][:, ::-1].copy(), PerceptionSettings()).faces[0]
            assert mirrored["pose"]["yaw_deg"] == pytest.approx(-face["pose"]["yaw_deg"], abs=4)
            before, after = {swapped.get(tag, tag) for tag in face["tags"]}, set(mirrored["tags"])
            for word in ("hair", "background", "clothes", "facing", "looking"):
                said = [{tag for tag in tags if word in tag} for tags in (before, after)]
                assert said[0] == said[1] or not all(said), (person, name, said)
    turned = perceived["P001", "full-body-outdoors.jpg"].faces[0]
    assert turned["pose"]["yaw_deg"] > 14, "the photo meant to show a turned head does not"
