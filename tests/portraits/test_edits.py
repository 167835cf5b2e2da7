from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.perception.conditions import edge_picture, pose_picture
from studiolo.perception.pose import Pose
from studiolo.portraits.edit_templates import EditTemplate
from studiolo.portraits.edits import EditOrder, first_pass, second_pass, template_sha256, whole_blocks
from studiolo.portraits.rounds import Subject
from studiolo.settings import GenerationSettings

SIDE = 64
SUBJECT = Subject("a handsome man", ("smile",))


def order(**changes: Any) -> EditOrder:
    return EditOrder(**{"identity_id": "anna", "template_sha256": "0" * 64, **changes})


@pytest.fixture
def template() -> EditTemplate:
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:45, 21:40] = True
    return EditTemplate(
        rgb_u8=rng.integers(0, 256, (90, 80, 3), np.uint8),
        matrix=np.array([[1.0, 0, 0], [0, 1, 0]]),
        crop_rgb_u8=rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
        joints_px=rng.uniform(20, 40, (5, 2)),
        landmarks_px=rng.uniform(20, 40, (68, 2)),
        pose=Pose(0, 0, 0),
        mask=mask,
        seen=np.zeros((90, 80), np.float32),
    )


def second(wanted: EditOrder, template: EditTemplate, **changes: Any) -> Any:
    fields = {"landmarks_px": np.full((68, 2), 30.0), "latents_Chw": torch.zeros(8, 8, 8), "count": 2, "first_index": 4}
    return second_pass(wanted, template, SUBJECT, "anna.safetensors", **{**fields, **changes})


def test_the_first_pass_begins_from_nothing_and_is_shown_no_face(template: EditTemplate) -> None:
    made = first_pass(order(), template, SUBJECT, "anna.safetensors")
    assert made.latents is None
    assert made.mask is None
    assert made.strength == 1
    assert set(made.controls) == {"pose"}
    assert np.array_equal(made.controls["pose"].rgb_u8, pose_picture(template.joints_px, SIDE))
    assert made.count == GenerationSettings().candidates_per_portrait
    assert made.face_lora == ("anna.safetensors", 1.0)


def test_the_second_pass_shows_the_warped_landmarks_and_the_edges_around(template: EditTemplate) -> None:
    made = second(order(prompt="studio"), template)
    assert (made.count, made.first_index, made.strength) == (2, 4, 0.65)
    assert made.prompt == "a handsome man, smile, studio"
    wanted = pose_picture(template.joints_px, SIDE, np.full((68, 2), 30.0))
    assert np.array_equal(made.controls["pose"].rgb_u8, wanted)
    assert np.array_equal(made.controls["edges"].rgb_u8, edge_picture(template.crop_rgb_u8, template.mask))
    assert made.seed != first_pass(order(), template, SUBJECT, None).seed
    assert set(second(order(edge_scale=0), template).controls) == {"pose"}
    assert set(second(order(pose_scale=0), template).controls) == {"edges"}


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


@pytest.mark.parametrize(
    "change",
    [
        {"identity_id": "ben"},
        {"template_sha256": "1" * 64},
        {"count": 2},
        {"seed": 1},
        {"prompt": "studio"},
        {"negative_prompt": "hat"},
        {"strength": 0.5},
        {"pose_scale": 0.5},
        {"edge_scale": 0.5},
        {"face_ratio": 0.5},
        {"generation": GenerationSettings(steps=3)},
        {"unsafe_above": 0.5},
    ],
)
def test_all_that_decides_the_bytes_is_in_the_key(change: dict[str, Any]) -> None:
    key = order().key("references", "lora", {"unet": "1"})
    assert order(**change).key("references", "lora", {"unet": "1"}) != key


def test_the_key_is_stable_and_knows_its_inputs() -> None:
    keys = {
        order().key(*inputs)
        for inputs in (
            ("references", "lora", {"unet": "1"}),
            ("others", "lora", {"unet": "1"}),
            ("references", "other", {"unet": "1"}),
            ("references", "lora", {"unet": "2"}),
        )
    }
    assert len(keys) == 4
    assert order().key("references", "lora", {"unet": "1"}) in keys
    plan = order(generation=GenerationSettings(actors=1, orders_in_flight=5))
    assert plan.key("references", "lora", {"unet": "1"}) in keys


def test_a_templates_hash_is_of_its_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    hashes = {template_sha256(picture) for picture in (rgb, rgb[:, ::-1], rgb.reshape(6, 4, 3), rgb.copy())}
    assert len(hashes) == 3
