from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from studiolo.albums.geometry import (
    FACE_RATIO_MAX,
    FACE_RATIO_MIN,
    TEMPLATE_N2,
    alignment_deg,
    inside_mask,
    map_points,
)
from studiolo.albums.records import REFERENCE_SCHEMA, Verdict
from studiolo.identities.artifacts import lora_path
from studiolo.identities.references import (
    BACKGROUND,
    CROP_FACE_RATIO,
    CROP_SIDE_PX,
    Reference,
    calmest,
    prepare_reference,
)


def everywhere(rgb_u8: NDArray[np.uint8], landmarks_px: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Regions that call every pixel class 1, and the pixels at the landmarks class 2."""
    class_ids = np.ones(rgb_u8.shape[:2], np.uint8)
    x, y = np.rint(landmarks_px).astype(int).T
    class_ids[y, x] = 2
    return class_ids


def face(centre: tuple[float, float] = (300.0, 250.0), side: float = 110.0) -> dict[str, Any]:
    x, y = centre
    landmarks = TEMPLATE_N2 - TEMPLATE_N2.mean(axis=0) + centre
    return {
        "bbox_xyxy_px": [x - side / 2, y - side / 2, x + side / 2, y + side / 2],
        "landmarks_px": landmarks.reshape(-1).tolist(),
        "embedding": np.linspace(-1, 1, 128).tolist(),
        "quality": {"score": 0.75},
        "tags": ["black hair", "closed eyes", "smile"],
    }


def reference(name: str = "1", **changes: Any) -> Reference:
    rgb_u8 = np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)
    photo = {"photo_id": name * 64, "verdict": "unsure"}
    return prepare_reference(rgb_u8, photo, face(**changes), "a mature man", everywhere)


def test_a_reference_is_upright_and_centred_with_words() -> None:
    made = reference()
    assert made.crop_rgb_u8.shape == (CROP_SIDE_PX, CROP_SIDE_PX, 3)
    assert abs(alignment_deg(made.landmarks_px)) < 1e-6
    corners = map_points(made.matrix, np.array(face()["bbox_xyxy_px"]).reshape(2, 2))
    assert np.allclose(corners.mean(axis=0), (CROP_SIDE_PX - 1) / 2)
    assert np.allclose(np.diff(corners, axis=0), CROP_FACE_RATIO * CROP_SIDE_PX)
    assert made.caption == "a mature man, black hair, smile"
    assert made.verdict == Verdict.UNSURE
    assert (made.regions_u8 == 2).sum() == 5


def test_the_calmest_references_keep_their_order() -> None:
    rows = [{"photo_id": str(index), "expression_l2": l2} for index, l2 in enumerate((0.08, 0.01, None, 0.03))]
    assert [row["photo_id"] for row in calmest(rows, 3)] == ["1", "2", "3"]
    assert calmest(rows, 9) == rows


def test_the_trainer_finds_room_for_views_of_the_papers_range() -> None:
    face_px = CROP_FACE_RATIO * CROP_SIDE_PX
    assert face_px / FACE_RATIO_MAX < face_px / FACE_RATIO_MIN <= CROP_SIDE_PX + 1e-9


def test_what_lies_outside_the_photo_is_background() -> None:
    made = reference(centre=(60.0, 60.0))
    inside = inside_mask((500, 600), made.matrix, CROP_SIDE_PX)
    assert 0.2 < inside.mean() < 0.9
    assert (made.regions_u8[~inside] == BACKGROUND).all()
    assert (made.regions_u8[inside] > 0).all()


def test_regions_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="class ids"):
        prepare_reference(
            np.zeros((500, 600, 3), np.uint8), {"photo_id": "1", "verdict": "same"}, face(), "t",
            lambda rgb_u8, landmarks_px: np.zeros((4, 4), np.uint8),
        )  # fmt: skip


def test_rows_fit_the_schema() -> None:
    row = reference("b").row("Anna K", "Anna K")
    table = pa.Table.from_pylist([row], REFERENCE_SCHEMA)
    assert table.column("photo_id").to_pylist() == ["b" * 64]
    assert set(row) == set(REFERENCE_SCHEMA.names)
    folder = lora_path("Anna K").split("/")[1]
    assert row["crop_path"].startswith(f"identities/{folder}/references/")
