from typing import Any

import numpy as np
import pytest

from studiolo.portraits.edits import EditOrder, template_sha256
from studiolo.settings import GenerationSettings


def order(**changes: Any) -> EditOrder:
    return EditOrder(**{"identity_id": "anna", "template_sha256": "0" * 64, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"identity_id": "ben"},
        {"template_sha256": "1" * 64},
        {"face_xy": (0.5, 0.5)},
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
