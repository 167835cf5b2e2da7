from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.perception.conditions import edge_picture, pose_picture
from studiolo.perception.pose import Pose
from studiolo.portraits.edit_passes import first_pass, second_pass, whole_blocks
from studiolo.portraits.edit_templates import TemplateFace
from studiolo.portraits.rounds import Subject
from tests.portraits.test_edits import order

SIDE = 64
SUBJECT = Subject("a handsome man", ("smile",))


@pytest.fixture
def face() -> TemplateFace:
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:45, 21:40] = True
    return TemplateFace(
        matrix=np.array([[1.0, 0, 0], [0, 1, 0]]),
        crop_rgb_u8=rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
        joints_px=rng.uniform(20, 40, (5, 2)),
        landmarks_px=rng.uniform(20, 40, (68, 2)),
        pose=Pose(0, 0, 0),
        mask=mask,
    )


def second(wanted: Any, face: TemplateFace, **changes: Any) -> Any:
    fields = {"landmarks_px": np.full((68, 2), 30.0), "latents_Chw": torch.zeros(8, 8, 8), "count": 2, "first_index": 4}
    return second_pass(wanted, face, SUBJECT, "anna.safetensors", **{**fields, **changes})


def test_the_first_pass_begins_from_nothing_and_is_shown_no_face(face: TemplateFace) -> None:
    made = first_pass(order(), face, SUBJECT, "anna.safetensors", count=3)
    assert made.latents is None
    assert made.mask is None
    assert made.strength == 1
    assert set(made.controls) == {"pose"}
    assert np.array_equal(made.controls["pose"].rgb_u8, pose_picture(face.joints_px, SIDE))
    assert (made.count, made.first_index) == (3, 0)
    assert made.face_lora == ("anna.safetensors", 1.0)


def test_the_second_pass_shows_the_warped_landmarks_and_the_edges_around(face: TemplateFace) -> None:
    made = second(order(prompt="studio"), face)
    assert (made.count, made.first_index, made.strength) == (2, 4, 0.65)
    assert made.prompt == "a handsome man, smile, studio"
    wanted = pose_picture(face.joints_px, SIDE, np.full((68, 2), 30.0))
    assert np.array_equal(made.controls["pose"].rgb_u8, wanted)
    assert np.array_equal(made.controls["edges"].rgb_u8, edge_picture(face.crop_rgb_u8, face.mask))
    assert made.seed != first_pass(order(), face, SUBJECT, None).seed
    assert set(second(order(edge_scale=0), face).controls) == {"pose"}
    assert set(second(order(pose_scale=0), face).controls) == {"edges"}


@given(seed=st.integers(0, 2**16), block=st.sampled_from([4, 8]))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_blocks_cover_the_mask_and_no_block_more(seed: int, block: int) -> None:
    mask = np.random.default_rng(seed).random((32, 32)) < 0.02
    whole = whole_blocks(mask, block)
    assert whole[mask].all()
    for y in range(0, 32, block):
        for x in range(0, 32, block):
            part = whole[y : y + block, x : x + block]
            assert part.all() == part.any() == mask[y : y + block, x : x + block].any()
    assert np.array_equal(whole_blocks(whole, block), whole)
